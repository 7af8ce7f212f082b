"""What every architecture shares: the steps, the metrics and the optimiser."""

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR
from torchmetrics.classification import MulticlassConfusionMatrix

from cifar_lightning.data.image_set import ImageSet
from cifar_lightning.errors import InputError, check
from cifar_lightning.models.metrics import LossAndAccuracy
from cifar_lightning.runs.checkpoint import architecture

NUM_CLASSES = 10

Optimizers = Literal["adam", "adamw", "sgd"]
Schedules = Literal["constant", "cosine", "one-cycle"]

# What the validation loaders are, in the data module's order.
VALIDATION_STAGES = ("val", "train_clean")


def check_batch_norm(model: nn.Module, batch_size: int) -> None:
    """Raises an `InputError` if batches are of one image and the model has batch norm over images alone."""
    if batch_size == 1 and any(isinstance(module, nn.BatchNorm1d) for module in model.modules()):
        cause = "1 leaves batch norm nothing to average over"
        raise InputError("data.batch_size", cause, "use 2 or more, or --model.batch_norm false")


class ImageClassifier(LightningModule):
    """A classifier of 32x32 colour images into 10 classes. A subclass builds `self.network` and nothing else.

    Args:
        lr: Learning rate, above 0; the peak where a schedule moves it.
        weight_decay: L2 penalty (adam, sgd) or decoupled decay (adamw); at least 0.
        optimizer: `sgd` uses Nesterov momentum 0.9.
        schedule: `constant`; `cosine` from lr down to 0 (Loshchilov & Hutter 2017); `one-cycle` up to lr and down to
            almost 0 (Smith & Topin 2018). Both move every step and span the whole run.

    Raises:
        InputError: A value is out of range.
    """

    network: nn.Module
    """Images, float32, shape (B, 3, 32, 32), to logits, shape (B, 10)."""

    confusion_counts: Tensor
    """After a test: int64, shape (10, 10), row = true class, column = predicted class."""

    def __init__(
        self,
        *,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        optimizer: Optimizers = "adam",
        schedule: Schedules = "constant",
    ) -> None:
        super().__init__()
        check(optimizer in get_args(Optimizers), "optimizer", optimizer, " or ".join(get_args(Optimizers)))
        check(schedule in get_args(Schedules), "schedule", schedule, " or ".join(get_args(Schedules)))
        check(0 < lr < float("inf"), "lr", lr, "a number above 0")
        check(0 <= weight_decay < float("inf"), "weight_decay", weight_decay, "0 or more")
        self.save_hyperparameters(logger=False)  # the subclass's arguments too
        self.lr, self.weight_decay, self.optimizer_name, self.schedule = lr, weight_decay, optimizer, schedule
        # Keyed as they are logged ('train' alone would hide nn.Module.train).
        self.metrics = nn.ModuleDict({f"{s}/": LossAndAccuracy() for s in ("train", *VALIDATION_STAGES, "test")})
        self.confusion_matrix = MulticlassConfusionMatrix(NUM_CLASSES, validate_args=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, shape (B, 10), of normalised images, float32, shape (B, 3, 32, 32)."""
        logits: Tensor = self.network(images)
        return logits

    def setup(self, stage: str) -> None:
        """Keeps the weights as the device likes them best, in every stage alike so that figures agree bit for bit."""
        # channels_last took the report's CNN from 176 to 144 ms a step on two CPU cores; a matter of memory layout, the
        # function stays the same. Left out on Apple GPUs, where it has been reported to give wrong numbers.
        # The Trainer moves the model only after this.
        device = self._trainer.strategy.root_device if self._trainer is not None else self.device
        if device.type != "mps":
            self.network.to(memory_format=torch.channels_last)

    def training_step(self, batch: ImageSet, batch_idx: int) -> Tensor:
        """The mean loss of a batch, shape ()."""
        return self._step(batch, "train")[0]

    def validation_step(self, batch: ImageSet, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Measures a batch of the validation set, or of the training set in evaluation mode."""
        self._step(batch, VALIDATION_STAGES[dataloader_idx])

    def test_step(self, batch: ImageSet, batch_idx: int) -> None:
        """Measures a batch of the test set, class by class."""
        _, logits = self._step(batch, "test")
        self.confusion_matrix.update(logits, batch.labels)

    def predict_step(self, batch: ImageSet, batch_idx: int) -> Tensor:
        """Probabilities, float32, shape (B, 10)."""
        return self._logits(batch).softmax(1)

    def on_train_batch_end(self, outputs: object, batch: ImageSet, batch_idx: int) -> None:
        """Publishes `train/*` after an epoch's last batch: means over the epoch, in training mode, as weights moved.

        Not in `on_train_epoch_end`: callbacks come before the model there, and would see the epoch before.
        """
        if self.trainer.is_last_batch or self.trainer.global_step == self.trainer.max_steps:
            self._publish("train")

    def on_validation_epoch_end(self) -> None:
        """Publishes `val/*`, `train_clean/*` and the generalisation gap between them, like with like."""
        val, clean = (self._publish(stage) for stage in VALIDATION_STAGES)
        if val and clean:
            gap = {"gap/loss": val["loss"] - clean["loss"], "gap/acc": clean["acc"] - val["acc"]}
            self.log_dict(gap, logger=False)

    def on_test_epoch_end(self) -> None:
        """Publishes `test/*` and keeps the confusion matrix as `confusion_counts`."""
        self._publish("test")
        self.confusion_counts = self.confusion_matrix.compute()
        self.confusion_matrix.reset()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser, and a schedule that moves every step where there is one."""
        optimizer = self.new_optimizer()
        if self.schedule == "constant":
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            cause = f"{self.schedule} must know where the run ends"
            raise InputError("schedule", cause, "set trainer.max_epochs, or use constant")
        scheduler: LRScheduler = (
            CosineAnnealingLR(optimizer, T_max=int(steps))
            if self.schedule == "cosine"
            # One step more, so that its end comes after the last step, as with the cosine.
            else OneCycleLR(optimizer, max_lr=self.lr, total_steps=int(steps) + 1, cycle_momentum=False)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def new_optimizer(self) -> Optimizer:
        """The optimiser that the settings ask for, without a schedule."""
        # fused: one kernel for all parameters; it took 2 of 8 ms off the MLP's step on two CPU cores.
        match self.optimizer_name:
            case "adam":
                return Adam(self.parameters(), lr=self.lr, weight_decay=self.weight_decay, fused=True)
            case "adamw":
                return AdamW(self.parameters(), lr=self.lr, weight_decay=self.weight_decay, fused=True)
            case "sgd":
                decay = self.weight_decay
                return SGD(self.parameters(), lr=self.lr, weight_decay=decay, momentum=0.9, nesterov=True, fused=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what it takes to build this model again from the checkpoint alone."""
        checkpoint["architecture"] = architecture(self)
        checkpoint["precision"] = str(self.trainer.precision)
        checkpoint["max_epochs"] = self.trainer.max_epochs
        if sums := self._metric("train").sums():  # in the middle of an epoch
            checkpoint["train_metrics"] = sums

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on with the sums of an epoch that was interrupted."""
        if "train_metrics" in checkpoint:
            self._metric("train").restore(checkpoint["train_metrics"])

    def __repr__(self) -> str:
        """The network alone, layer by layer, under this class's name."""
        return repr(self.network).replace(type(self.network).__name__, type(self).__name__, 1)

    def _logits(self, batch: ImageSet) -> Tensor:
        # In float32 whatever the precision of the network: softmax over bfloat16 loses digits.
        logits: Tensor = self(batch.images.to(self.dtype))
        return logits.float()

    def _step(self, batch: ImageSet, stage: str) -> tuple[Tensor, Tensor]:
        """Loss, shape (), and logits, shape (B, 10), of a batch, counted in the metrics of its stage."""
        logits = self._logits(batch)
        loss = F.cross_entropy(logits, batch.labels)
        self._metric(stage).update(loss, logits, batch.labels)
        return loss, logits

    def _metric(self, stage: str) -> LossAndAccuracy:
        metric = self.metrics[f"{stage}/"]
        assert isinstance(metric, LossAndAccuracy)
        return metric

    def _publish(self, stage: str) -> dict[str, Tensor]:
        """Hands an epoch's metrics to the callbacks (which log them) and starts the next; nothing if nothing came."""
        metric = self._metric(stage)
        if not metric.update_called:
            return {}
        values: dict[str, Tensor] = metric.compute()
        metric.reset()
        self.log_dict(
            {f"{stage}/{name}": value for name, value in values.items()}, prog_bar=True, logger=False, batch_size=1
        )
        return values
