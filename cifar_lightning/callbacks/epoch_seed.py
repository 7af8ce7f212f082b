"""Random draws (dropout, augmentation) that depend on the seed, the epoch and the step alone."""

from types import ModuleType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.utils.seeding import derive


class EpochSeed(Callback):
    """Seed every device's generator anew at the start of each epoch; last of what draws when training starts.

    So an epoch draws the same numbers whether the run came to it or began with it. For resuming in the middle of one, a
    checkpoint holds the generators' states, uint8.
    """

    def __init__(self) -> None:
        self._generators: dict[str, ModuleType] = {"cpu": torch}
        self._saved: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if (kind := pl_module.device.type) in ("cuda", "mps"):
            self._generators[kind] = getattr(torch, kind)  # torch.cuda, torch.mps
        for kind in self._saved.keys() & self._generators.keys():
            self._generators[kind].set_rng_state(self._saved[kind])

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.manual_seed(derive(CIFAR10DataModule.of(trainer).seed, "epoch", trainer.current_epoch))

    def state_dict(self) -> dict[str, Any]:
        return {kind: generator.get_rng_state() for kind, generator in self._generators.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = state_dict  # until training starts: draws before it must not move them
