"""What a run leaves in its folder besides its curves: config.yaml, an event file, the best and the last epoch."""

from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger


def savers(config: Any) -> list[Callback]:
    """What keeps the best and the last epoch, in the run's folder; nothing where there is none.

    Args:
        config: All that `fit` was given, parsed.
    """
    run = config.trainer
    if run.enable_checkpointing is False or run.logger is False or run.fast_dev_run:
        return []
    best = ModelCheckpoint(monitor="val/acc", mode="max", filename="best", enable_version_counter=False)
    last = ModelCheckpoint(filename="last", enable_version_counter=False, save_on_train_epoch_end=True)
    # With nothing to validate on there is no best.
    return [best, last] if config.data.val_size and run.limit_val_batches != 0 else [last]


class RunLogger(TensorBoardLogger):
    """TensorBoard without an empty hparams.yaml beside the config.yaml that holds them all."""

    def save(self) -> None:
        """Flushes the event file."""
        self.experiment.flush()


class SaveConfig(SaveConfigCallback):
    """Leaves config.yaml in the folder of a run that trains, and in no other."""

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Saves once, when training starts; without the checkpoint that it may go on from, to repeat the whole."""
        if stage == "fit" and trainer.loggers:
            self.config = self.config.clone()
            self.config.ckpt_path = None
            super().setup(trainer, pl_module, stage)
