"""Random draws (dropout) that depend on the seed, the epoch, the step and the process alone."""

from types import ModuleType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.utils.processes import gather
from cifar_lightning.utils.seeding import derive


class EpochSeed(Callback):
    """Seed all generators at an epoch's start, so that it draws the same numbers whether or not the run resumes there.

    To resume in the middle of one, a checkpoint holds the generators' states, uint8, of each process.
    """

    def __init__(self) -> None:
        self._generators: dict[str, ModuleType] = {"cpu": torch}
        self._saved: dict[str, Tensor] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._trainer = trainer

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if (kind := pl_module.device.type) in ("cuda", "mps"):
            self._generators[kind] = getattr(torch, kind)  # torch.cuda, torch.mps
        self.on_train_epoch_start(trainer, pl_module)  # where it resumes with another number of processes
        for kind in self._saved.keys() & self._generators.keys():
            states = torch.atleast_2d(self._saved[kind])  # one state in an older version's
            if len(states) == trainer.world_size:
                self._generators[kind].set_rng_state(states[trainer.global_rank].clone())

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        purpose = f"epoch, process {trainer.global_rank}" if trainer.global_rank else "epoch"
        torch.manual_seed(derive(CIFAR10DataModule.of(trainer).seed, purpose, trainer.current_epoch))

    def state_dict(self) -> dict[str, Any]:
        return {kind: gather(self._trainer, each.get_rng_state()) for kind, each in self._generators.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = state_dict  # until training starts: draws before it must not move them
