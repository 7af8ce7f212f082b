"""The report's multi-layer perceptron."""

from collections import OrderedDict
from typing import Any

from torch import nn

from cifar_lightning.errors import check
from cifar_lightning.models.base import NUM_CLASSES, ImageClassifier
from cifar_lightning.models.layers import Dropout, Scaling, check_scaling


class MLP(ImageClassifier):
    """3072 -> 512 -> 10: linear, batch norm, ReLU and dropout in each hidden layer, then one linear layer.

    Args:
        width: Units in each hidden layer, 1 to 1,000,000.
        depth: Hidden layers, at least 0.
        batch_norm: Normalize each hidden unit over the batch (Ioffe & Szegedy 2015).
        dropout: Probability of zeroing a hidden unit in training, 0 to 1; at 0 there is no such layer.
        dropout_scaling: When what dropout keeps is scaled by 1 / (1 - dropout): in `train`ing (PyTorch), `never`, or
            `always`. One of the latter two is what the original report's CNN seems to have done, by its losses.
        **optimization: As in `ImageClassifier`.
    """

    def __init__(
        self,
        *,
        width: int = 512,
        depth: int = 1,
        batch_norm: bool = True,
        dropout: float = 0.5,
        dropout_scaling: Scaling = "train",
        **optimization: Any,
    ) -> None:
        super().__init__(**optimization)
        check(1 <= width <= 10**6, "width", width, "1 to 1000000")
        check(depth >= 0, "depth", depth, "0 or more")
        check(0 <= dropout <= 1, "dropout", dropout, "a fraction from 0 to 1")
        check_scaling(dropout_scaling)
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        inputs = 3 * 32 * 32  # channels, rows, columns
        for i in range(1, depth + 1):
            number = i if depth > 1 else ""  # the report's one relu and one dropout have none
            layers[f"fc{i}"] = nn.Linear(inputs, width)
            if batch_norm:
                layers[f"bn{i}"] = nn.BatchNorm1d(width)
            layers[f"relu{number}"] = nn.ReLU()
            if dropout:
                layers[f"dropout{number}"] = Dropout(dropout, scaling=dropout_scaling)
            inputs = width
        layers[f"fc{depth + 1}"] = nn.Linear(inputs, NUM_CLASSES)
        self.network = nn.Sequential(layers)
