"""Training that has gone to NaN or infinity ends, and is never saved."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from cifar_lightning.callbacks.checkpoints import Checkpoints
from cifar_lightning.errors import RunError

# A look at the device each step would keep it waiting for the host: by then it should have the next step queued.
STEPS_BETWEEN_LOOKS = 50


class Divergence(Callback):
    """Ends the run at the first loss that is not finite, and before weights that are not would be saved.

    It finds the very step, up to `STEPS_BETWEEN_LOOKS` steps later.

    Args:
        checkpoints: What saves; None where nothing is kept.
    """

    def __init__(self, checkpoints: Checkpoints | None = None) -> None:
        self.checkpoints = checkpoints
        self._unseen: list[tuple[int, float, Tensor]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: object, batch_idx: int
    ) -> None:
        """Notes the loss of a step, and looks at the last ones from time to time."""
        self._unseen.append((batch_idx + 1, trainer.optimizers[0].param_groups[0]["lr"], outputs["loss"].detach()))
        if len(self._unseen) == STEPS_BETWEEN_LOOKS:
            self._look(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks before the epoch enters the history."""
        self._look(trainer)
        self._look_at_weights(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Looks before anything is saved, in the middle of an epoch too."""
        self._look(trainer)
        self._look_at_weights(trainer)

    def _look(self, trainer: Trainer) -> None:
        """Raises a `RunError` if one of the losses not seen so far is not finite."""
        unseen, self._unseen = self._unseen, []
        if not unseen:
            return
        losses = torch.stack([loss for _, _, loss in unseen]).tolist()
        for (step, lr, _), loss in zip(unseen, losses, strict=True):
            if abs(loss) == float("inf") or loss != loss:
                raise self._error(trainer, "train/loss", f"{loss} at step {step} of epoch", lr)

    def _look_at_weights(self, trainer: Trainer) -> None:
        if not all(bool(p.isfinite().all()) for p in trainer.lightning_module.parameters()):
            lr = trainer.optimizers[0].param_groups[0]["lr"]
            raise self._error(trainer, "weights", f"not finite after step {trainer.global_step}, in epoch", lr)

    def _error(self, trainer: Trainer, field: str, what: str, lr: float) -> RunError:
        # After an epoch's end the Trainer counts it already.
        epoch = trainer.fit_loop.epoch_progress.current.ready
        kept = self.checkpoints.folder(trainer) / "last.ckpt" if self.checkpoints else None
        stands = f"{kept} is the last finite one" if kept and kept.exists() else "nothing finite was kept"
        return RunError(field, f"{what} {epoch}, learning rate {lr:g}", f"try --model.lr {lr / 3:.1g}; {stands}")
