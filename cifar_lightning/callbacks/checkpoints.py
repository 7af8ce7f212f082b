"""Checkpoints of a run: its last epoch, the one before, the best, and the step it was interrupted at."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from cifar_lightning.callbacks.history import History
from cifar_lightning.runs.layout import NEW, RunFolder
from cifar_lightning.runs.recovery import settle


class Checkpoints(Checkpoint):
    """Save a checkpoint to RUN/checkpoints at the end of each epoch; `history` must come before it in the Trainer.

    `last.ckpt` is the last epoch, `previous.ckpt` the one before it, `best.ckpt` the first of the highest `val/acc`;
    `interrupted.ckpt` lies there between a signal and the end of the epoch that it came in. Wherever the process is
    killed, one of them is whole and at most an epoch old: the new one is on disk (as `new.ckpt`) before any other loses
    its name.
    """

    def __init__(self, history: History) -> None:
        self.history, self.stopped = history, False

    def path(self, trainer: Trainer, name: str) -> Path:
        """Return the path of BEST, LAST, PREVIOUS, INTERRUPTED or NEW, whether or not it exists."""
        return RunFolder(Path(str(trainer.log_dir))).checkpoint(name)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the epoch, then give the file its names."""
        new, self.stopped = self.path(trainer, NEW), trainer.should_stop
        trainer.save_checkpoint(new)
        settle(new, self.history.rows)

    def state_dict(self) -> dict[str, Any]:
        """Return whether training stopped here, before its last epoch (by EarlyStopping, say)."""
        return {"stopped": self.stopped}
