"""What a run says: a bar at a terminal, a line an epoch everywhere."""

import shlex
import sys
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from tqdm import tqdm

from cifar_lightning.callbacks.checkpoints import Checkpoints
from cifar_lightning.callbacks.history import History
from cifar_lightning.data.datamodule import CIFAR10DataModule


class ProgressBar(TQDMProgressBar):
    """A bar at a terminal; nothing in a log file, where each redraw would be a line of its own."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=1 if sys.stdout.isatty() else 0, leave=False)

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Counts from 1, as the lines and the curves do."""
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description(f"epoch {trainer.current_epoch + 1}")

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The model's own, without Lightning's number of the run."""
        metrics = super().get_metrics(trainer, pl_module)
        return {name: value for name, value in metrics.items() if name != "v_num"}


class Console(Callback):
    """Says what a run is, how each epoch went, and what to type next.

    Args:
        history: Where each epoch's row comes from; it must come before this one in the Trainer's callbacks.
        why_precision: What the hardware has to do with the precision; nothing where a person chose it.
        checkpoints: What saves; None where nothing is kept.
    """

    def __init__(self, history: History, why_precision: str = "", checkpoints: Checkpoints | None = None) -> None:
        self.history, self.why_precision, self.checkpoints = history, why_precision, checkpoints

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What is trained, on what, where."""
        data = CIFAR10DataModule.of(trainer)
        parameters = sum(p.numel() for p in pl_module.parameters())
        say(f"{type(pl_module).__name__} with {parameters:,} parameters on {pl_module.device}, {trainer.precision}")
        if self.why_precision:
            say(f"precision {trainer.precision}: {self.why_precision} (--trainer.precision chooses another)")
        train, val = len(data.train.labels), len(data.val.labels)
        say(f"{train:,} images to train on, {val:,} to validate on: {data.description}")
        if trainer.log_dir and trainer.loggers:
            say(f"run folder: {Path(trainer.log_dir)}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """One line an epoch."""
        row = self.history.rows[-1]
        words = [
            f"{stage} loss {row[f'{stage}/loss']:.4f} acc {row[f'{stage}/acc']:.4f}"
            for stage in ("train", "val")
            if f"{stage}/loss" in row
        ]
        say("  ".join([f"epoch {row['epoch']:3d}/{trainer.max_epochs}", *words, f"{row['epoch_seconds']:.1f} s"]))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The figures of `validate`, with every digit that is exact."""
        if trainer.state.fn == "validate":
            say(f"validation set: {CIFAR10DataModule.of(trainer).description}")
            for name, value in sorted(trainer.callback_metrics.items()):
                say(f"  {name:18} {value.item():.6f}")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The best epoch, and the next two commands to type."""
        if CIFAR10DataModule.of(trainer).source == "synthetic":
            say(f"trained on {CIFAR10DataModule.of(trainer).description}")
        if self.checkpoints is None or not self.history.rows:
            return
        path = self.checkpoints.folder(trainer) / "last.ckpt"
        if accs := [row["val/acc"] for row in self.history.rows if "val/acc" in row]:
            path = self.checkpoints.folder(trainer) / "best.ckpt"
            say(f"best val/acc {max(accs):.4f} in {path}")
        say("next:")
        say(f"  python -m cifar_lightning test --ckpt_path {shlex.quote(str(path))}")
        say("  tensorboard --logdir logs")


def say(line: str) -> None:
    """Prints a line, above a progress bar if there is one."""
    tqdm.write(line, file=sys.stdout)
