"""The architectures, one file each, and their base class."""

from cifar_lightning.models.base import ImageClassifier
from cifar_lightning.models.cnn import CNN
from cifar_lightning.models.mlp import MLP

__all__ = ["CNN", "MLP", "ImageClassifier"]
