"""What `fit` would run with, without running it."""

import math

import torch

from cifar_lightning.cli.lightning_cli import CLI


class DryRun(CLI):
    """Everything that `fit` would run with, read and built by the same code, and not run."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing."""

    @property
    def device(self) -> torch.device:
        """Where `fit` would train."""
        return self.trainer.strategy.root_device

    @property
    def images_per_epoch(self) -> int:
        """How many images an epoch trains on."""
        data, limit = self.datamodule, self.trainer.limit_train_batches
        images = data.train_size or 50_000 - data.val_size
        batches = math.ceil(images / data.batch_size)
        taken = min(limit, batches) if isinstance(limit, int) else int(limit * batches)
        return int(min(images, taken * data.batch_size))

    def load(self) -> None:
        """Reads the images, and puts the model where it is trained."""
        self.trainer.training = True
        self.datamodule.trainer = self.trainer  # it augments only what a Trainer trains on
        self.datamodule.prepare_data()
        self.datamodule.setup("fit")
        self.place()

    def place(self) -> None:
        """Puts the model where it is trained."""
        self.trainer.precision_plugin.convert_module(self.model.to(self.device))
        self.model.trainer = self.trainer  # tells the model its device
        self.model.setup("fit")
