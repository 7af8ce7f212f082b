"""What is kept of a run: its last epoch, the one before, the best, and the step it was interrupted at."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from cifar_lightning.callbacks.history import History
from cifar_lightning.runs.layout import INTERRUPTED, NEW, RunFolder
from cifar_lightning.runs.recovery import settle


class Checkpoints(Checkpoint):
    """Saves to RUN/checkpoints at the end of each epoch, its row of the history included.

    `last.ckpt` is the last epoch, `previous.ckpt` the one before it, `best.ckpt` the first of the highest `val/acc`;
    `interrupted.ckpt` lies there between a signal and the end of the epoch that it came in. Wherever the process is
    killed, one of them is whole and at most an epoch old: the new one is on disk (as `new.ckpt`) before any other loses
    its name.

    Args:
        history: Where each epoch's row comes from; it must come before this one in the Trainer's callbacks.
    """

    def __init__(self, history: History) -> None:
        self.history, self.stopped = history, False

    def folder(self, trainer: Trainer) -> Path:
        """Where they are."""
        assert trainer.log_dir is not None, "there are checkpoints only where there is a run folder"
        return RunFolder(Path(trainer.log_dir)).checkpoints

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the epoch."""
        new, self.stopped = self.folder(trainer) / NEW, trainer.should_stop
        trainer.save_checkpoint(new)
        settle(new, self.history.rows)

    def state_dict(self) -> dict[str, Any]:
        """Whether the run ends here, before its last epoch."""
        return {"stopped": self.stopped}

    def interrupt(self, trainer: Trainer) -> Path:
        """Saves in the middle of an epoch."""
        path = self.folder(trainer) / INTERRUPTED
        trainer.save_checkpoint(path)
        return path
