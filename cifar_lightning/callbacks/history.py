"""The curves: one row an epoch, the same in metrics.csv, in TensorBoard and in every checkpoint."""

import csv
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from cifar_lightning import files

FILE = "metrics.csv"

# Only a validation writes these; in an epoch without one the trainer still holds the last one's.
VALIDATION_PREFIXES = ("val/", "train_clean/", "gap/")
PREFIXES = ("train/", *VALIDATION_PREFIXES)


def is_curve(name: str) -> bool:
    """Whether a metric is one of the rows', counted in epochs, whatever rows there are."""
    return name in ("lr", "epoch_seconds") or name.startswith(PREFIXES)


class History(Callback):
    """Collects what the model publishes in an epoch, with the learning rate and the seconds it took.

    The row goes to the loggers with the epoch (1 after the first) as its step, and into `metrics.csv`, which is written
    whole each time: a checkpoint carries all rows up to its epoch, so a resumed run has them all.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.validated, self._seconds_before, self._started = False, 0.0, time.perf_counter()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock where a run goes on in the middle of an epoch."""
        self._started = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._started, self.validated, self._seconds_before = time.perf_counter(), False, 0.0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes that this epoch has figures of its own."""
        self.validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the epoch's row."""
        metrics = {name: _shortest(value) for name, value in trainer.callback_metrics.items() if "/" in name}
        if not self.validated:
            metrics = {name: value for name, value in metrics.items() if not name.startswith(VALIDATION_PREFIXES)}
        metrics["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        metrics["epoch_seconds"] = round(self._seconds(), 3)
        epoch = trainer.current_epoch + 1
        self.rows.append({"epoch": epoch, **metrics})
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=epoch)
            logger.save()  # before the checkpoint says that this epoch is done
        if trainer.log_dir and trainer.loggers:
            write_csv(Path(trainer.log_dir) / FILE, self.rows)

    def state_dict(self) -> dict[str, Any]:
        """All rows so far, as plain numbers, and how far the epoch is."""
        return {"rows": self.rows, "validated": self.validated, "seconds": self._seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on after the checkpoint's last row."""
        self.rows = state_dict["rows"]
        self.validated, self._seconds_before = state_dict["validated"], state_dict["seconds"]

    def _seconds(self) -> float:
        return self._seconds_before + time.perf_counter() - self._started


def _shortest(value: Tensor) -> float:
    """The number of fewest digits that is this float32 again: 0.7706, not 0.7705999612808228."""
    return float(str(np.float32(value.item())))


def write_csv(path: Path, rows: list[dict[str, float]]) -> None:
    """Writes rows with a header, unless they stand there; a row that lacks a column leaves it empty."""
    columns = dict.fromkeys(name for row in rows for name in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(columns))
    writer.writeheader()
    writer.writerows(rows)
    content = text.getvalue().encode()
    if not path.is_file() or path.read_bytes() != content:
        files.replace(path, content)
