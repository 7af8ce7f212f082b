"""Console output of training: progress within an epoch, a line per epoch, and what to do next."""

import shlex
import sys
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from tqdm import tqdm

from cifar_lightning.callbacks.checkpoints import Checkpoints
from cifar_lightning.callbacks.history import History
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.models import ImageClassifier
from cifar_lightning.runs.checkpoint import OURS, architecture
from cifar_lightning.runs.layout import BEST, LAST, RunFolder
from cifar_lightning.utils.duration import duration


class ProgressLine(TQDMProgressBar):
    """One line on the epoch under way: redrawn at a terminal, gone when the run ends; in a log file a new one a minute.

    It shows the means of the epoch so far (of this process's images), and the time left of the whole run at the speed
    since training started.
    """

    def __init__(self) -> None:
        self.redraws, self.started = sys.stdout.isatty(), 0.0
        super().__init__(refresh_rate=int(self.redraws))
        self.seconds_between = 0.2 if self.redraws else 60  # reading the means makes the host wait for the device

    def init_train_tqdm(self) -> Tqdm:
        return Tqdm(bar_format="{desc}", disable=self.is_disabled, leave=False, dynamic_ncols=True, file=sys.stdout)

    def init_validation_tqdm(self) -> Tqdm:
        return Tqdm(disable=True) if self.trainer.state.fn == "fit" else super().init_validation_tqdm()

    def on_train_start(self, *args: Any) -> None:
        super().on_train_start(*args)
        self.shown = self.started = time.perf_counter()
        self.batches = 0  # since then

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        super().on_train_epoch_start(trainer, *args)
        self.train_progress_bar.set_description_str(epoch_of(trainer))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.batches += 1
        now = time.perf_counter()
        if now - self.shown < self.seconds_between:
            return
        assert isinstance(pl_module, ImageClassifier)
        self.shown, means = now, pl_module.metrics["train/"].means()
        done, in_epoch = batch_idx + 1, int(trainer.num_training_batches)
        line = f"{epoch_of(trainer)} {done / in_epoch:4.0%}  loss {means['loss']:.4f} acc {means['acc']:.4f}"
        if epochs := max(trainer.max_epochs or 0, 0):
            left = (epochs - trainer.current_epoch) * in_epoch - done
            line += f"  {duration(left * (now - self.started) / self.batches)} left"
        if self.redraws:
            self.train_progress_bar.set_description_str(line)
        else:
            print(line, flush=True)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_start(trainer, pl_module)
        if trainer.state.fn == "fit":
            self.train_progress_bar.set_description_str(f"{epoch_of(trainer)} validation")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.val_progress_bar.close()
        self.reset_dataloader_idx_tracker()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pass  # the line of `Console` says how it ended

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if trainer.training and self.started:
            self.train_progress_bar.close()


def epoch_of(trainer: Trainer, width: int = 0) -> str:
    """Return `epoch 2/50`, counted from 1."""
    epochs = f"/{trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
    return f"epoch {trainer.current_epoch + 1:{width}}{epochs}"


class Console(Callback):
    """Print the run's settings, each epoch's metrics, and the next commands; `history` must come before it."""

    def __init__(self, history: History, checkpoints: Checkpoints | None, precision_reason: str) -> None:
        self.history, self.checkpoints, self.precision_reason = history, checkpoints, precision_reason

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data, model, precision = CIFAR10DataModule.of(trainer), type(pl_module).__name__, trainer.precision
        parameters = sum(p.numel() for p in pl_module.parameters())
        where = f"{pl_module.device}" + (f" and {trainer.world_size - 1} more" if trainer.world_size > 1 else "")
        tqdm.write(f"{model} with {parameters:,} parameters on {where}")
        tqdm.write(f"precision {precision}" + (f": {self.precision_reason}" if self.precision_reason else ""))
        tqdm.write(f"{len(data.train.labels):,} images to train on, {len(data.val.labels):,} to validate on")
        tqdm.write(data.description)
        if trainer.log_dir and trainer.loggers:
            tqdm.write(f"run folder: {Path(trainer.log_dir)}")
        if self.checkpoints is None:
            tqdm.write("no checkpoint is saved")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        row = self.history.rows[-1]
        stages = [stage for stage in ("train", "val") if f"{stage}/loss" in row]
        metrics = [f"{stage} loss {row[f'{stage}/loss']:.4f} acc {row[f'{stage}/acc']:.4f}  " for stage in stages]
        tqdm.write(f"{epoch_of(trainer, width=3)}  {''.join(metrics)}{row['epoch_seconds']:.1f} s")

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
