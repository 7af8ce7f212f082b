"""The curves of a run: one row per epoch, the same in metrics.csv, in TensorBoard and in every checkpoint."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from cifar_lightning.errors import RunError
from cifar_lightning.runs import metrics_csv
from cifar_lightning.runs.layout import RunFolder
from cifar_lightning.runs.tensorboard_logger import RunLogger
from cifar_lightning.utils.processes import gather

# Only a validation writes these; in an epoch without one the Trainer still holds the last one's.
VALIDATION_PREFIXES = ("val/", "train_clean/", "gap/")


class History(Callback):
    """Collect the metrics that the model publishes in an epoch, with the learning rate and the epoch's seconds.

    Checkpoints carry all rows so far, so that a resumed run has them all, and metrics.csv is written whole each time.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.validation: dict[str, float] = {}  # after the current epoch's last step: of the weights in its checkpoint
        self._seconds_before, self._started = 0.0, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.perf_counter() - self._seconds_before  # resumes in the middle of an epoch
        self._validation_interval = trainer.val_check_batch  # in steps

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started, self.validation = time.perf_counter(), {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Have an epoch with validations end with one: the row speaks of the weights that the checkpoint holds."""
        if interval := self._validation_interval:
            steps = trainer.fit_loop.epoch_loop.total_batch_idx + 1  # over all epochs: this one has begun
            due = trainer.check_val_every_n_epoch or steps % interval < trainer.num_training_batches
            trainer.val_check_batch = 1 if trainer.is_last_batch and due else interval

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validation = _published(trainer, validation=True) if trainer.is_last_batch else {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the epoch's row: to metrics.csv, and to every logger."""
        epoch, steps = trainer.current_epoch + 1, trainer.fit_loop.epoch_loop.batch_progress.current
        if steps.completed < steps.ready:
            cause = f"on_train_batch_start skips the rest of epoch {epoch} after step {steps.completed}"
            raise RunError("model", f"{cause}: no row could speak of it", "use --trainer.limit_train_batches")
        metrics = _published(trainer, validation=False) | self.validation
        metrics["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        metrics["epoch_seconds"] = round(time.perf_counter() - self._started, 3)
        self.rows.append({"epoch": epoch, **metrics})
        if (folder := trainer.log_dir) and trainer.loggers and trainer.is_global_zero:
            metrics_csv.write(RunFolder(Path(folder)).metrics, self.rows)
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.log_epoch(metrics, epoch)
            else:  # whose x are steps, as Lightning counts them
                logger.log_metrics({"epoch": epoch, **metrics}, step=trainer.global_step - 1)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Bring to disk what has been logged so far, before the checkpoint that counts on it."""
        for logger in trainer.loggers:
            logger.save()

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "validation": self.validation, "seconds": time.perf_counter() - self._started}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.validation = state_dict["rows"], state_dict["validation"]
        self._seconds_before = state_dict["seconds"]


class StepCurve(Callback):
    """Log the loss of every nth step as `train/loss_step`: where `log_every_n_steps` was given."""

    # Not by the model's `self.log`: the Trainer logs that after `on_train_batch_end`, where a run may be saved and end.

    def __init__(self, every: int) -> None:
        self.every, self.steps = every, 0  # done at the last batch: gradients may accumulate over several

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.steps = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, _: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        before, self.steps = self.steps, trainer.global_step
        if self.steps > before and self.steps % self.every == 0:
            loss = gather(trainer, outputs["loss"]).mean().item()
            loss *= trainer.accumulate_grad_batches  # by which the Trainer has divided
            for logger in trainer.loggers:
                logger.log_metrics({"train/loss_step": loss}, step=self.steps - 1)


def _published(trainer: Trainer, *, validation: bool) -> dict[str, float]:
    metrics = {n: x for n, x in trainer.callback_metrics.items() if "/" in n}
    # The fewest digits that are this float32 again: 0.7706, not 0.7705999612808228.
    shortest = {name: float(str(np.float32(value.item()))) for name, value in metrics.items()}
    return {name: value for name, value in shortest.items() if name.startswith(VALIDATION_PREFIXES) == validation}
