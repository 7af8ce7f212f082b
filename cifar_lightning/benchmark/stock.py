"""What a plain loop is made of: torchvision's data set, PyTorch's own modules and optimiser."""

import copy
from typing import Any

import torch
from torch import nn
from torchvision.datasets import CIFAR10
from torchvision.transforms import Compose, Normalize, ToTensor

from cifar_lightning.data.image_set import ImageSet
from cifar_lightning.data.transforms import MEAN, STD
from cifar_lightning.models.layers.dropout import Dropout
from cifar_lightning.models.layers.pooling import ReLUDropoutMaxPool


class Pictures(CIFAR10):  # type: ignore[misc]  # torchvision has no types
    """torchvision's data set, and its way to each picture, on a part of the training images."""

    def __init__(self, images: ImageSet) -> None:
        self.data = images.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.targets = images.labels.tolist()
        self.transform, self.target_transform = Compose([ToTensor(), Normalize(MEAN, STD)]), None


def stock(network: nn.Module) -> nn.Module:
    """A copy with PyTorch's own modules in place of ours, its weights in the default memory format."""
    network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    for name, child in network.named_children():
        swapped = child.stock() if isinstance(child, Dropout | ReLUDropoutMaxPool) else stock(child)
        network.set_submodule(name, swapped)
    return network


def stock_optimizer(optimizer: torch.optim.Optimizer, network: nn.Module) -> torch.optim.Optimizer:
    """The same optimiser for another network, with no more than its settings said: not fused."""
    kinds = {"lr", "weight_decay", "momentum", "nesterov", "betas"}
    kept = {name: value for name, value in optimizer.defaults.items() if name in kinds}
    kind: Any = type(optimizer)
    plain_one: torch.optim.Optimizer = kind(network.parameters(), **kept)
    return plain_one
