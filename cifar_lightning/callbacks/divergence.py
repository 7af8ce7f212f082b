"""Detection of NaN and infinity: training that diverged ends, and is never saved."""

from math import isfinite
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from cifar_lightning.callbacks.checkpoints import Checkpoints
from cifar_lightning.errors import RunError
from cifar_lightning.runs.layout import LAST

# Reading the loss of each step would make the device wait for the host, which should have queued the next step by then.
STEPS_BETWEEN_CHECKS = 50


class Divergence(Callback):
    """End the run at the first loss that is not finite, and before weights that are not finite would be saved."""

    def __init__(self, checkpoints: Checkpoints | None = None) -> None:
        self.checkpoints = checkpoints
        self._unchecked: list[tuple[int, float, Tensor]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: object, batch_idx: int
    ) -> None:
        """Collect the step's loss; the error names the very step, up to `STEPS_BETWEEN_CHECKS` steps later."""
        self._unchecked.append((batch_idx + 1, trainer.optimizers[0].param_groups[0]["lr"], outputs["loss"].detach()))
        if len(self._unchecked) == STEPS_BETWEEN_CHECKS:
            self._check_losses(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule, checkpoint: Any = None) -> None:
        """Check before the epoch enters the history, and before anything is saved in the middle of one."""
        self._check_losses(trainer)
        if not all(bool(p.isfinite().all()) for p in pl_module.parameters()):
            lr = trainer.optimizers[0].param_groups[0]["lr"]
            raise self._error(trainer, "weights", f"not finite after step {trainer.global_step}, in epoch", lr)

    on_save_checkpoint = on_train_epoch_end

    def _check_losses(self, trainer: Trainer) -> None:
        unchecked, self._unchecked = self._unchecked, []
        losses = torch.stack([loss for *_, loss in unchecked]).tolist() if unchecked else []
        for (step, lr, _), loss in zip(unchecked, losses, strict=True):
            if not isfinite(loss):
                raise self._error(trainer, "train/loss", f"{loss} at step {step} of epoch", lr)

    def _error(self, trainer: Trainer, field: str, cause: str, lr: float) -> RunError:
        epoch = trainer.fit_loop.epoch_progress.current.ready  # current_epoch is one further at an epoch's end
        last = self.checkpoints.path(trainer, LAST) if self.checkpoints else None
        kept = f"{last} is the last finite one" if last and last.exists() else "nothing finite was kept"
        return RunError(field, f"{cause} {epoch}, learning rate {lr:g}", f"try --model.lr {lr / 3:.1g}; {kept}")
