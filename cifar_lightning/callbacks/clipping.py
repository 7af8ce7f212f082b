"""Gradients are clipped in bfloat16 as in float32."""

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision


class Clipping(Callback):
    """Has `trainer.gradient_clip_val` work in `bf16-mixed`, which is the default where the hardware computes in it.

    A fused optimiser undoes a gradient scaler's scale within its step, so that until then gradients can't be clipped,
    and Lightning (2.6) refuses to. It refuses in bfloat16, too, where nothing is scaled (its issue 21435).
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes away the sign that the optimiser undoes a scale, where there is no scale."""
        if isinstance(trainer.precision_plugin, MixedPrecision) and trainer.precision_plugin.scaler is None:
            for optimizer in trainer.optimizers:
                vars(optimizer)["_step_supports_amp_scaling"] = False
