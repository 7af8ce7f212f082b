"""The base class of every architecture: steps, metrics, optimizer and schedule."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, cast, get_args

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.utilities.enums import GradClipAlgorithmType
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR
from torchmetrics import ConfusionMatrix

from cifar_lightning.data import Batch
from cifar_lightning.data.transforms import normalize
from cifar_lightning.errors import InputError, check
from cifar_lightning.models.metrics import LossAndAccuracy
from cifar_lightning.models.muon import Muon
from cifar_lightning.runs.checkpoint import architecture
from cifar_lightning.runs.tensorboard_logger import RunLogger
from cifar_lightning.utils.processes import gather

NUM_CLASSES = 10
Optimizers = Literal["adam", "adamw", "sgd", "muon"]
Schedules = Literal["constant", "cosine", "one-cycle", "triangular"]
Views = Literal[1, 2, 6]
# From a fifth of the peak up to it in 23 % of the steps, then down to 7 % of it (Jordan 2024).
TRIANGULAR: Any = {"anneal_strategy": "linear", "pct_start": 0.23, "div_factor": 5, "final_div_factor": 0.2 / 0.07}
VALIDATION_STAGES = ("val", "train_clean")  # the validation loaders, in the data module's order


def check_batch_norm(model: nn.Module, batch_size: int) -> None:
    """Raise an `InputError` if batches are of one image and the model has batch norm over images alone."""
    if batch_size == 1 and any(isinstance(module, nn.BatchNorm1d) for module in model.modules()):
        cause = "1 leaves batch norm nothing to average over"
        raise InputError("data.batch_size", cause, "use 2 or more, or --model.batch_norm false")


def check_resolutions(model: nn.Module, resolutions: Sequence[int]) -> None:
    """Raise an `InputError` if images are to have another size than the model takes."""
    if resolutions and not getattr(model, "any_resolution", False):
        cause = f"{type(model).__name__} takes 32 pixels a side"
        raise InputError("data.resolutions", cause, "leave it out, or use WhitenedCNN")


def check_compiler(device: torch.device) -> None:
    """Raise an `InputError` if `torch.compile` does not work here: there is no C++ compiler, for instance."""
    try:
        torch.compile(torch.sin)(torch.zeros(2, device=device))
    except Exception as error:  # each back end has its own
        cause = f"torch.compile does not work here ({type(error).__name__})"
        raise InputError("compile", cause, "install a C++ compiler, or leave it out") from error


class ImageClassifier(LightningModule):
    """A classifier of 32x32 color images into 10 classes. A subclass builds `self.network`, and need do nothing else.

    Args:
        lr: Learning rate, above 0; the peak where a schedule moves it.
        weight_decay: L2 penalty (adam, sgd) or decoupled decay (adamw, muon), at least 0.
        optimizer: `sgd` uses Nesterov's momentum; `muon` makes its steps orthogonal, with a larger
            `lr` (0.02, say), see `Muon`.
        momentum: Of sgd and muon, 0 up to 1.
        schedule: `constant`; `cosine` from lr down to 0 (Loshchilov & Hutter 2017); `one-cycle` up to lr and down to
            almost 0 (Smith & Topin 2018); `triangular` likewise from lr / 5 to 7 % of lr, in straight lines. All move
            every step and span the whole run.
        label_smoothing: Probability that the training loss spreads evenly over all classes, 0 to 1 (Szegedy et al.
            2016). Losses of evaluation are without.
        views: Of each image that `test` and `predict` classify, whose logits are averaged: 1; 2, with its mirror image;
            6, with both shifted by a pixel to the upper left and to the lower right, of half the weight.
        compile: Let `torch.compile` fuse the network's operations. It takes up to a minute at the start; on two CPU
            cores the report's CNN became slower.
    """

    any_resolution: ClassVar[bool] = False  # whether the network takes images of other sizes than 32x32
    network: nn.Module
    confusion_counts: Tensor  # after a test: int64, shape (10, 10), row = true class, column = predicted class

    def __init__(
        self,
        *,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        optimizer: Optimizers = "adam",
        momentum: float = 0.9,
        schedule: Schedules = "constant",
        label_smoothing: float = 0.0,
        views: Views = 1,
        compile: bool = False,
    ) -> None:
        super().__init__()
        check(optimizer in get_args(Optimizers), "optimizer", optimizer, " or ".join(get_args(Optimizers)))
        check(schedule in get_args(Schedules), "schedule", schedule, " or ".join(get_args(Schedules)))
        check(0 < lr < float("inf"), "lr", lr, "a number above 0")
        check(0 <= weight_decay < float("inf"), "weight_decay", weight_decay, "0 or more")
        check(0 <= momentum < 1, "momentum", momentum, "0 or more, below 1")
        check(0 <= label_smoothing <= 1, "label_smoothing", label_smoothing, "a fraction from 0 to 1")
        check(views in get_args(Views), "views", views, "1, 2 or 6")
        self.save_hyperparameters(logger=False)  # the subclass's arguments too
        self.lr, self.weight_decay, self.optimizer_name, self.schedule = lr, weight_decay, optimizer, schedule
        self.momentum, self.label_smoothing, self.views, self.compiles = momentum, label_smoothing, views, compile
        # Keyed as they are logged: 'train' alone would hide nn.Module.train.
        metrics = nn.ModuleDict({f"{s}/": LossAndAccuracy() for s in ("train", *VALIDATION_STAGES, "test")})
        self.metrics = cast(Mapping[str, LossAndAccuracy], metrics)
        self.confusion_matrix = ConfusionMatrix("multiclass", num_classes=NUM_CLASSES, validate_args=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, shape (B, 10), float32, of images, shape (B, 3, 32, 32): float32, normalized; or bytes."""
        if images.dtype == torch.uint8:  # of a loader whose data module the Trainer does not know
            images = normalize(images)
        # Whatever the precision of the network: softmax over bfloat16 loses digits.
        return cast(Tensor, self.network(images.to(self.dtype))).float()

    def setup(self, stage: str) -> None:
        # channels_last took the report's CNN from 176 to 144 ms a step on two CPU cores; the function is the same. In
        # every stage, so that metrics agree bit for bit. Not on Apple GPUs, where wrong results were reported. The
        # Trainer knows the device, to which it moves the model only after this.
        if self.trainer.strategy.root_device.type != "mps":
            self.network.to(memory_format=torch.channels_last)
        if self.compiles:
            check_compiler(self.trainer.strategy.root_device)
            self.network.compile()  # in place: the weights keep their names

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss, _ = self._step(batch, "train")
        return loss if batch.processes == 1 else loss * batch.weight  # DDP takes the mean over processes

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._step(batch, VALIDATION_STAGES[dataloader_idx])

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.confusion_matrix.update(self._step(batch, "test")[1], batch.labels)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.classify(batch.images).softmax(1)

    def classify(self, images: Tensor) -> Tensor:
        """Return the logits of images, shape (B, 10), as of `forward`, averaged over `views` of each."""
        if self.views == 1:
            return cast(Tensor, self(images))
        logits = self._with_mirror_images(images)
        if self.views == 6:
            padded = F.pad(images.float(), [1] * 4, mode="reflect").to(images.dtype)  # bytes can't be reflected
            shifted = [self._with_mirror_images(each) for each in (padded[..., :-2, :-2], padded[..., 2:, 2:])]
            logits = (logits + (shifted[0] + shifted[1]) / 2) / 2
        return logits

    def _with_mirror_images(self, images: Tensor) -> Tensor:
        return cast(Tensor, self(images) + self(images.flip(3))) / 2

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        """Publish `train/*` after an epoch's last batch: means over the epoch, in training mode, as weights moved."""
        # Not in on_train_epoch_end: callbacks come before the model there, and would see the epoch before.
        if self.trainer.is_last_batch:
            self._publish("train")

    def on_train_epoch_end(self) -> None:
        """Send `train/*` to the loggers of a plain Trainer, which take those of an epoch only here."""
        train = {name: x for name, x in self.trainer.callback_metrics.items() if name.startswith("train/")}
        self._log(train)

    def on_validation_epoch_end(self) -> None:
        """Publish `val/*`, `train_clean/*` and the generalization gap between them, both in evaluation mode."""
        val, clean = (self._publish(stage) for stage in VALIDATION_STAGES)
        if val and clean:
            self._log({"gap/loss": val["loss"] - clean["loss"], "gap/acc": clean["acc"] - val["acc"]})

    def on_test_epoch_end(self) -> None:
        self._publish("test")
        self.confusion_counts = self.confusion_matrix.compute()
        with torch.inference_mode(False):  # or else it could be summed up in inference mode alone
            self.confusion_matrix.reset()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.new_optimizer()
        if self.schedule == "constant":
            return optimizer
        if (steps := self.trainer.estimated_stepping_batches) == float("inf"):
            cause = f"{self.schedule} must know where the run ends"
            raise InputError("schedule", cause, "set trainer.max_epochs, or use constant")
        if self.schedule == "cosine":
            scheduler: LRScheduler = CosineAnnealingLR(optimizer, T_max=int(steps))
        else:  # one step more, so that its end comes after the last step, as with the cosine
            peaks = [group["lr"] for group in optimizer.param_groups]
            shape = TRIANGULAR if self.schedule == "triangular" else {}
            scheduler = OneCycleLR(optimizer, peaks, total_steps=int(steps) + 1, cycle_momentum=False, **shape)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def new_optimizer(self) -> Optimizer:
        # fused: one kernel for all parameters; it took 2 of 8 ms off the MLP's step on two CPU cores.
        shared: dict[str, Any] = {"lr": self.lr, "weight_decay": self.weight_decay, "fused": True}
        if self.optimizer_name == "muon":
            return Muon(self.parameter_groups(), lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)
        if self.optimizer_name == "sgd":
            return SGD(self.parameter_groups(), momentum=self.momentum, nesterov=self.momentum > 0, **shared)
        return (Adam if self.optimizer_name == "adam" else AdamW)(self.parameter_groups(), **shared)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return what the optimizer moves, in groups that may have an `lr` and a `weight_decay` of their own."""
        return [{"params": list(self.parameters())}]

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, MixedPrecision) and plugin.scaler is None:
            # Its own method refuses a fused optimizer, which undoes a gradient scaler's scale only within its step;
            # in bfloat16 there is no scaler (Lightning issue 21435).
            algorithm = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
            super(MixedPrecision, plugin).clip_gradients(optimizer, gradient_clip_val or 0.0, algorithm)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds this model from the checkpoint alone, and the sums of an epoch that is under way."""
        checkpoint["architecture"] = architecture(self)
        checkpoint["precision"] = str(self.trainer.precision)
        checkpoint["max_epochs"] = self.trainer.max_epochs
        # None after the last batch (where a ModelCheckpoint may save before they are published): a resumed run begins
        # with the next epoch, whose means they would distort.
        metric = self.metrics["train/"]
        sums = {name: gather(self.trainer, getattr(metric, name)) for name in metric.metric_state}
        if sums["count"].any() and not self.trainer.is_last_batch:
            checkpoint["train_metrics"] = sums  # of each process

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for name, values in checkpoint.get("train_metrics", {}).items():
            values = values.view(-1)  # one without a dimension in an older version's
            if len(values) != self.trainer.world_size:  # now it is another number of processes
                values = values.new_zeros(self.trainer.world_size).index_fill(0, torch.tensor([0]), values.sum())
            setattr(self.metrics["train/"], name, values[self.trainer.global_rank])

    def __repr__(self) -> str:
        return repr(self.network).replace(type(self.network).__name__, type(self).__name__, 1)

    def _step(self, batch: Batch, stage: str) -> tuple[Tensor, Tensor]:
        logits = self.classify(batch.images) if stage == "test" else self(batch.images)
        smoothing = self.label_smoothing if stage == "train" else 0.0
        # Of no images, for a process that has none of this batch, it is 0.
        some = len(batch.labels) > 0
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=smoothing) if some else logits.sum()
        self.metrics[f"{stage}/"].update(loss, logits, batch.labels)
        return loss, logits

    def _log(self, values: Mapping[str, Tensor], *, logger: bool = True, prog_bar: bool = False) -> None:
        """Publish values of an epoch: to callbacks, and to the loggers of a plain Trainer; `History` writes to ours."""
        logger &= not any(isinstance(each, RunLogger) for each in self.trainer.loggers)
        # They are the same in all processes: a maximum leaves them so, a mean of three might round.
        shared: dict[str, Any] = {"batch_size": 1, "sync_dist": True, "reduce_fx": "max"}
        # None is True, but for a warning where there is no logger; `validate` and `test` return what is logged.
        self.log_dict(values, logger=None if logger else False, prog_bar=prog_bar, **shared)

    def _publish(self, stage: str) -> dict[str, Tensor]:
        metric = self.metrics[f"{stage}/"]
        if not metric.update_called:
            return {}
        values = metric.compute()
        metric.reset()
        self._log({f"{stage}/{n}": x for n, x in values.items()}, logger=stage != "train", prog_bar=True)
        return values
