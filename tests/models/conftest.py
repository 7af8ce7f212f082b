"""Shared by the tests of models: a seed, random batches, a quiet Trainer."""

from typing import Any, cast

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cifar_lightning.data import Batch


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def batch(size: int) -> Batch:
    return Batch.whole(torch.randn(size, 3, 32, 32), torch.randint(0, 10, (size,)))


def loader(*batches: Batch) -> DataLoader[Batch]:
    return DataLoader(cast(Dataset[Batch], batches), batch_size=None)


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
