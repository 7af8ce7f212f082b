"""The environment of a run is kept with it, and said aloud where it goes on in another."""

import sys
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.utils import environment


class Conditions(Callback):
    """Records the environment in every checkpoint, and compares on going on."""

    def __init__(self) -> None:
        self.here: dict[str, Any] = {}
        self.there: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks around, and says what has changed since the checkpoint."""
        data = CIFAR10DataModule.of(trainer)
        self.here = environment.describe(pl_module.device, *data.train, *data.val)
        if self.there and (changed := environment.differences(self.there, self.here)):
            print(f"goes on under other conditions, not bit for bit: {', '.join(changed)}", file=sys.stderr)

    def state_dict(self) -> dict[str, Any]:
        """The environment."""
        return self.here

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The environment of the checkpoint."""
        self.there = state_dict
