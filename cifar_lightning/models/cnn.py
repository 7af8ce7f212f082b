"""The report's convolutional network."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import nn

from cifar_lightning.errors import check
from cifar_lightning.models.base import NUM_CLASSES, ImageClassifier
from cifar_lightning.models.layers import ReLUDropoutMaxPool, Scaling, check_scaling


class CNN(ImageClassifier):
    """Blocks of 3x3 convolution, batch norm, ReLU, dropout and 2x2 max-pooling, then one linear layer.

    Args:
        channels: Output channels of each block, at most five blocks: each halves the 32 pixels of a side.
        batch_norm: Normalize each channel over the batch (Ioffe & Szegedy 2015).
        dropout: Probability of zeroing an activation in training, 0 to 1; at 0 there is no such layer.
        dropout_scaling: When what dropout keeps is scaled by 1 / (1 - dropout): in `train`ing (PyTorch), `never`, or
            `always`. One of the latter two is what the original report's CNN seems to have done, by its losses.
        **optimization: As in `ImageClassifier`.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int] = (64, 128),
        batch_norm: bool = True,
        dropout: float = 0.5,
        dropout_scaling: Scaling = "train",
        **optimization: Any,
    ) -> None:
        super().__init__(**optimization)
        check(len(channels) <= 5 and all(c >= 1 for c in channels), "channels", channels, "up to five numbers above 0")
        check(0 <= dropout <= 1, "dropout", dropout, "a fraction from 0 to 1")
        check_scaling(dropout_scaling)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        inputs, side = 3, 32  # channels, pixels
        for i, outputs in enumerate(channels, start=1):
            layers[f"conv{i}"] = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
            if batch_norm:
                layers[f"bn{i}"] = nn.BatchNorm2d(outputs)
            layers[f"pool{i}"] = ReLUDropoutMaxPool(dropout, dropout_scaling)
            inputs, side = outputs, side // 2
        layers["flatten"] = nn.Flatten()
        layers["fc"] = nn.Linear(inputs * side * side, NUM_CLASSES)
        self.network = nn.Sequential(layers)
