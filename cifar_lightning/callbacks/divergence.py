"""The end of a run whose training has diverged."""

from collections.abc import Iterable
from math import isfinite
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from cifar_lightning.callbacks.checkpoints import Checkpoints
from cifar_lightning.errors import SharedError
from cifar_lightning.runs.layout import LAST
from cifar_lightning.utils.processes import gather

# Reading the loss of each step would make the device wait for the host, which should have queued the next step by then;
# the error names the very step all the same.
STEPS_BETWEEN_CHECKS = 50


class Divergence(Callback):
    """End the run at the first loss that is not finite, and before weights that are not finite would be saved."""

    def __init__(self, checkpoints: Checkpoints | None) -> None:
        self.checkpoints = checkpoints
        self._unchecked: list[tuple[int, float, Tensor]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.trainer = trainer

    def on_train_batch_end(self, trainer: Trainer, _: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._unchecked.append((batch_idx + 1, trainer.optimizers[0].param_groups[0]["lr"], outputs["loss"].detach()))
        if len(self._unchecked) == STEPS_BETWEEN_CHECKS:
            self._check(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule, checkpoint: Any = None) -> None:
        """Check before the epoch enters the history, and before anything is saved in the middle of one."""
        self._check(trainer, pl_module.parameters())

    on_save_checkpoint = on_train_epoch_end

    def _check(self, trainer: Trainer, weights: Iterable[Tensor] = ()) -> None:
        steps, self._unchecked = self._unchecked, []
        losses = gather(self.trainer, torch.stack([loss for *_, loss in steps])).mean(0).tolist() if steps else []
        bad = [(step, lr, loss) for (step, lr, _), loss in zip(steps, losses, strict=True) if not isfinite(loss)]
        if bad:
            step, lr, loss = bad[0]
            field, cause = "train/loss", f"{loss} at step {step} of epoch"
        elif not all(bool(each.isfinite().all()) for each in weights):
            lr = trainer.optimizers[0].param_groups[0]["lr"]
            field, cause = "weights", f"not finite after step {trainer.global_step}, in epoch"
        else:
            return
        epoch = trainer.fit_loop.epoch_progress.current.ready  # current_epoch is one further at an epoch's end
        last = self.checkpoints.path(trainer, LAST) if self.checkpoints else None
        kept = f"{last} is the last finite one" if last and last.exists() else "no checkpoint was saved"
        raise SharedError(field, f"{cause} {epoch}, learning rate {lr:g}", f"try --model.lr {lr / 3:.1g}; {kept}")
