"""The curves: one row an epoch, the same in metrics.csv, in TensorBoard and in every checkpoint."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from cifar_lightning.runs import metrics_csv
from cifar_lightning.runs.layout import RunFolder

# Only a validation writes these; in an epoch without one the Trainer still holds the last one's.
VALIDATION_PREFIXES = ("val/", "train_clean/", "gap/")


class History(Callback):
    """Collects what the model publishes in an epoch, with the learning rate and the seconds it took.

    The row goes to the loggers with the epoch (1 after the first) as its step, and into `metrics.csv`, which is written
    whole each time: a checkpoint carries all rows up to its epoch, so a resumed run has them all.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.validation: dict[str, float] = {}
        self._seconds_before, self._started = 0.0, time.perf_counter()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock where a run goes on in the middle of an epoch."""
        self._started = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._started, self.validation, self._seconds_before = time.perf_counter(), {}, 0.0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the figures of this epoch's own validation, the last if there are several."""
        self.validation = _published(trainer, validation=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the epoch's row."""
        metrics = _published(trainer, validation=False) | self.validation
        metrics["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        metrics["epoch_seconds"] = round(self._seconds(), 3)
        epoch = trainer.current_epoch + 1
        self.rows.append({"epoch": epoch, **metrics})
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=epoch)
            logger.save()  # before the checkpoint says that this epoch is done
        if trainer.log_dir and trainer.loggers:
            metrics_csv.write(RunFolder(Path(trainer.log_dir)).metrics, self.rows)

    def state_dict(self) -> dict[str, Any]:
        """All rows so far, as plain numbers, and how far the epoch is."""
        return {"rows": self.rows, "validation": self.validation, "seconds": self._seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on after the checkpoint's last row."""
        self.rows = state_dict["rows"]
        self.validation, self._seconds_before = state_dict["validation"], state_dict["seconds"]

    def _seconds(self) -> float:
        return self._seconds_before + time.perf_counter() - self._started


def _published(trainer: Trainer, *, validation: bool) -> dict[str, float]:
    """What the model has published, of a validation or of the rest."""
    metrics = {name: value for name, value in trainer.callback_metrics.items() if "/" in name}
    return {n: _shortest(value) for n, value in metrics.items() if n.startswith(VALIDATION_PREFIXES) == validation}


def _shortest(value: Tensor) -> float:
    """The number of fewest digits that is this float32 again: 0.7706, not 0.7705999612808228."""
    return float(str(np.float32(value.item())))
