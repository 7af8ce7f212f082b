"""The architectures, one file each, and their base class."""

from cifar_lightning.models.base import ImageClassifier as ImageClassifier
from cifar_lightning.models.cnn import CNN as CNN
from cifar_lightning.models.mlp import MLP as MLP
from cifar_lightning.models.whitened_cnn import WhitenedCNN as WhitenedCNN
