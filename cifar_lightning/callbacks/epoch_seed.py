"""Dropout and augmentation that depend on the seed, the epoch and the step alone."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.utils.seeding import derive


class EpochSeed(Callback):
    """Seeds every device's generator anew at the start of each epoch.

    So an epoch draws the same whether the run came to it or began with it. For a run that goes on in the middle of one,
    a checkpoint holds the generators' states. It must come after whatever draws when training starts.
    """

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self._restored: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws on where the checkpoint was."""
        self.device = pl_module.device
        for kind, state in self._restored.items():
            if kind == "cpu":
                torch.set_rng_state(state)
            elif kind == self.device.type:
                getattr(torch, kind).set_rng_state(state)  # torch.cuda, torch.mps
        self._restored = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seeds the epoch."""
        torch.manual_seed(derive(CIFAR10DataModule.of(trainer).seed, "epoch", trainer.current_epoch))

    def state_dict(self) -> dict[str, Any]:
        """The state of the CPU's generator and of the device's, uint8."""
        states = {"cpu": torch.get_rng_state()}
        if self.device.type in ("cuda", "mps"):
            states[self.device.type] = getattr(torch, self.device.type).get_rng_state()
        return states

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps the states until training starts."""
        self._restored = state_dict
