"""Everything that `fit` would run with, made by the same code, and not run."""

from typing import Any

import torch

from cifar_lightning.cli.lightning_cli import CLI
from cifar_lightning.data.loader import steps_per_epoch


class DryRun(CLI):
    """The configuration, Trainer, model and data of a `fit`."""

    def fit(self, **_: Any) -> None:
        """Do nothing."""

    @property
    def device(self) -> torch.device:
        """Where `fit` would train."""
        return self.trainer.strategy.root_device

    @property
    def train_images(self) -> int:
        """Images in the training set."""
        return int(self.datamodule.train_size or 50_000 - self.datamodule.val_size)

    @property
    def steps_per_epoch(self) -> int:
        """Training steps of an epoch."""
        return steps_per_epoch(self.train_images, self.datamodule.batch_size, self.trainer.limit_train_batches)

    @property
    def images_per_epoch(self) -> int:
        """Images that an epoch trains on."""
        return int(min(self.train_images, self.steps_per_epoch * self.datamodule.batch_size))

    def load(self) -> None:
        """Read the images, and move the model to its device."""
        self.trainer.training = True
        self.datamodule.trainer = self.trainer  # it augments only what a Trainer trains on
        self.datamodule.prepare_data()
        self.datamodule.setup("fit")
        self.place()

    def place(self) -> None:
        """Move the model to its device."""
        self.model.trainer = self.trainer  # which tells `setup` the device
        self.trainer.precision_plugin.convert_module(self.model.to(self.device))
        self.model.trainer = self.trainer  # tells the model its device
        self.model.setup("fit")
