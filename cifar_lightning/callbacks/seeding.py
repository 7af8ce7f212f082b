"""Dropout and augmentation that depend on the seed and the epoch alone."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.seeds import derive


class EpochSeed(Callback):
    """Seeds every device's generator anew at the start of each epoch.

    A checkpoint holds no random state, so whatever draws from a generator that runs on from epoch to epoch differs
    after a resume. This way an epoch draws the same whether the run came to it or began with it.
    """

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seeds the epoch."""
        torch.manual_seed(derive(CIFAR10DataModule.of(trainer).seed, "epoch", trainer.current_epoch))
