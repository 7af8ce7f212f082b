"""A dry run of `fit`, for what must know its model and data before it trains: study and benchmark."""

from typing import Any

from cifar_lightning.cli.lightning_cli import CLI
from cifar_lightning.data.loader import steps_per_epoch
from cifar_lightning.errors import InputError


class DryRun(CLI):
    """Everything that `fit` would run with, made by the same code, and not run; how much it trains on in an epoch."""

    resumes_job = False

    def before_fit(self) -> None:
        if self.finder:
            cause = "LearningRateFinder in a study, whose settings are known before it runs"
            raise InputError("trainer.callbacks", cause, "search with `fit`, and give what it finds as model.lr")

    def fit(self, **_: Any) -> None:
        """Note what there would be to do, and do nothing of it."""
        data, self.device = self.datamodule, self.trainer.strategy.root_device
        images: int = data.train_size or 50_000 - data.val_size
        self.steps_per_epoch = steps_per_epoch(images, data.batch_size, self.trainer.limit_train_batches)
        self.images_per_epoch: int = min(images, self.steps_per_epoch * data.batch_size)

    def load(self) -> None:
        """Read the images, and move the model to its device."""
        self.trainer.training = True
        self.datamodule.trainer = self.trainer  # it augments only what a Trainer trains on
        self.datamodule.prepare_data()
        self.datamodule.setup("fit")
        self.place()
        trainer: Any = self.trainer  # its types do not tell of its data module
        trainer.datamodule = self.datamodule
        self.model.on_fit_start()

    def place(self) -> None:
        self.trainer.precision_plugin.convert_module(self.model.to(self.device))
        self.model.trainer = self.trainer  # tells `setup` the device
        self.model.setup("fit")
