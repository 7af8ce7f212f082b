"""The environment of a run is saved with it, and compared where it resumes."""

import sys
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.utils import environment


class EnvironmentCheck(Callback):
    """Save the environment in every checkpoint, and report what differs on resuming."""

    state_key = "Conditions"  # the key in checkpoints from before this class was renamed, kept so that they compare

    def __init__(self) -> None:
        self.here: dict[str, Any] = {}
        self.saved: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Describe the environment, and print to stderr what has changed since the checkpoint."""
        data = CIFAR10DataModule.of(trainer)
        self.here = environment.describe(pl_module.device, *data.train, *data.val)
        if self.saved and (changed := environment.differences(self.saved, self.here)):
            print(f"resumes in another environment, not bit for bit: {', '.join(changed)}", file=sys.stderr)

    def state_dict(self) -> dict[str, Any]:
        """Return the environment."""
        return self.here

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the checkpoint's environment until training starts."""
        self.saved = state_dict
