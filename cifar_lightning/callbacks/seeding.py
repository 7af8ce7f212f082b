"""Dropout and augmentation that depend on the seed and the epoch alone."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from cifar_lightning.seeds import derive


class EpochSeed(Callback):
    """Seeds every device's generator anew at the start of each epoch.

    A checkpoint holds no random state, so whatever draws from a generator that runs on from epoch to epoch differs
    after a resume. This way an epoch draws the same whether the run came to it or began with it.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remembers the run's seed."""
        self.seed = torch.initial_seed()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seeds the epoch."""
        torch.manual_seed(derive(self.seed, "epoch", trainer.current_epoch))
