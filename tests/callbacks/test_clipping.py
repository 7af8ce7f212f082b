"""Gradients are clipped in every precision."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch.nn.utils import parameters_to_vector

from cifar_lightning.callbacks import Clipping
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.models import MLP


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_step_is_as_long_as_the_clipped_gradient(precision: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MLP(width=8, optimizer="sgd", lr=0.5)
    before = parameters_to_vector(model.parameters()).detach()
    Trainer(
        accelerator="cpu",
        precision=precision,  # type: ignore[arg-type]
        max_epochs=1,
        limit_train_batches=1,
        limit_val_batches=0,
        gradient_clip_val=0.01,
        callbacks=[Clipping()],
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(model, CIFAR10DataModule(source="synthetic", train_size=200, val_size=100))
    length = (parameters_to_vector(model.parameters()).detach() - before).norm()
    # The first step of Nesterov's momentum of 0.9: the gradient once by itself and 0.9 times as momentum.
    assert length == pytest.approx(0.5 * 1.9 * 0.01, rel=1e-3)
