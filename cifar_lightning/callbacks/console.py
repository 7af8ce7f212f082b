"""Console output of training: a progress bar at a terminal, a line per epoch everywhere."""

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
from cifar_lightning.runs.checkpoint import OURS, architecture
from cifar_lightning.runs.layout import BEST, LAST, RunFolder


class ProgressBar(TQDMProgressBar):
    """A bar at a terminal; none in a log file, where each redraw would be a line of its own."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=1 if sys.stdout.isatty() else 0, leave=False)

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description(f"epoch {trainer.current_epoch + 1}")  # from 1, as the lines count

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        # Without Lightning's version number of the run.
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}


class Console(Callback):
    """Print the run's settings, each epoch's metrics, and the next commands; `history` must come before it."""

    def __init__(self, history: History, checkpoints: Checkpoints | None, precision_reason: str) -> None:
        self.history, self.checkpoints, self.precision_reason = history, checkpoints, precision_reason

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data, model, precision = CIFAR10DataModule.of(trainer), type(pl_module).__name__, trainer.precision
        parameters = sum(p.numel() for p in pl_module.parameters())
        tqdm.write(f"{model} with {parameters:,} parameters on {pl_module.device}, {precision}")
        if self.precision_reason:
            tqdm.write(f"precision {precision}: {self.precision_reason} (--trainer.precision chooses another)")
        train, val = len(data.train.labels), len(data.val.labels)
        tqdm.write(f"{train:,} images to train on, {val:,} to validate on: {data.description}")
        if trainer.log_dir and trainer.loggers:
            tqdm.write(f"run folder: {Path(trainer.log_dir)}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        row = self.history.rows[-1]
        stages = [stage for stage in ("train", "val") if f"{stage}/loss" in row]
        metrics = [f"{stage} loss {row[f'{stage}/loss']:.4f} acc {row[f'{stage}/acc']:.4f}  " for stage in stages]
        epoch = f"epoch {row['epoch']:3d}/{trainer.max_epochs}"
        tqdm.write(f"{epoch}  {''.join(metrics)}{row['epoch_seconds']:.1f} s")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = CIFAR10DataModule.of(trainer)
        if data.source == "synthetic":
            tqdm.write(f"trained on {data.description}")
        if self.checkpoints is None or not self.history.rows:
            return
        accs = [row["val/acc"] for row in self.history.rows if "val/acc" in row]
        path = self.checkpoints.path(trainer, BEST if accs else LAST)
        if accs:
            tqdm.write(f"best val/acc {max(accs):.4f} in {path}")
        logs = Path(str(trainer.log_dir)).parent.parent  # LOGS/NAME/version_N: TensorBoard compares all runs in LOGS
        ours = architecture(pl_module).startswith(OURS)  # a checkpoint alone imports no other
        own = "" if ours else f" --config {shlex.quote(str(RunFolder.of_checkpoint(path).config))}"
        tqdm.write(f"next:\n  python -m cifar_lightning test --ckpt_path {shlex.quote(str(path))}{own}")
        tqdm.write(f"  tensorboard --logdir {shlex.quote(str(logs))}")
