"""Shared by the tests of models: a seed, random batches, a quiet Trainer."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from cifar_lightning.data.image_set import ImageSet


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def batch(size: int) -> ImageSet:
    return ImageSet(torch.randn(size, 3, 32, 32), torch.randint(0, 10, (size,)))


class Loader:
    """Batches as they are; a plain list would be a list of loaders to Lightning."""

    def __init__(self, *batches: ImageSet) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[ImageSet]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def trainer(epochs: int = 1, *callbacks: Callback, **more: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **more,
    )
