"""TensorBoard beyond the curves: images with their classes, the graph, hyper-parameters."""

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure  # torchmetrics imports matplotlib anyway, so this costs no time
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from torch import Tensor

from cifar_lightning.callbacks.early_stopping import heeded, request
from cifar_lightning.data import Batch
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.data.transforms import denormalize, normalize
from cifar_lightning.runs.tensorboard_logger import RunLogger

DATA_HPARAMS = ("batch_size", "val_size", "train_size", "augment", "seed")  # those worth comparing runs by
SIDE = 4  # images in a row, and rows


class TensorBoardExtras(Callback):
    """Write what the curves alone do not show."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        ours, data = run_logger(trainer), CIFAR10DataModule.of(trainer)
        hparams = {"model": type(pl_module).__name__, "epochs": trainer.max_epochs, "source": data.source}
        hparams |= {**pl_module.hparams, **{name: data.hparams[name] for name in DATA_HPARAMS}}
        for logger in trainer.loggers:
            if not isinstance(logger, RunLogger):
                logger.log_hyperparams(hparams)
        if ours is None or not trainer.is_global_zero:
            return
        writer = ours.experiment
        # Again where a run resumes, perhaps for more epochs. Not by the writer's own add_hparams, which makes a run of
        # its own, and shows true as 1. The HPARAMS tab finds the last points of the run and of its stages by itself.
        shown = {name: x if isinstance(x, bool | int | float) else str(x) for name, x in hparams.items()}
        file_writer: Any = writer.file_writer  # open by now; torch's types know only its None
        file_writer.add_summary(hparams_pb(shown, trial_id=""))  # no id: a row for each run
        if trainer.global_step:  # the rest is there already
            return
        writer.add_text("data", data.description)
        few = Batch.whole(*(tensor[: SIDE**2] for tensor in data.train))
        # Through the data module's hooks, as any batch: augmented and normalized as in training, on the device.
        images = trainer.strategy.batch_to_device(few).images
        writer.add_figure("samples/train", image_grid(images, [data.classes[label] for label in few.labels]))
        with warnings.catch_warnings():
            # add_graph traces with torch.jit, which is deprecated and has no successor that TensorBoard can draw.
            warnings.simplefilter("ignore")
            # Of a copy, which is not compiled: what is can't be traced.
            writer.add_graph(copy.deepcopy(pl_module.network), images[:2].to(pl_module.dtype))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After the last epoch, and before its checkpoint, show validation images with the predicted classes."""
        logger, data = run_logger(trainer), CIFAR10DataModule.of(trainer)
        epoch, count = trainer.current_epoch + 1, SIDE**2
        # `max_time` ends only a start.
        last = epoch == trainer.max_epochs or (heeded(trainer) and request(trainer)["by"])
        if logger is None or not len(data.val.labels) or not last or not trainer.is_global_zero:
            return
        images = normalize(data.val.images[:count].to(pl_module.device))
        pl_module.eval()
        with torch.inference_mode(), trainer.precision_plugin.forward_context():
            predicted = pl_module(images).argmax(1)
        pl_module.train()
        titles = [
            data.classes[guess] if guess == label else f"{data.classes[guess]} ({data.classes[label]})"
            for guess, label in zip(predicted.tolist(), data.val.labels[:count].tolist(), strict=True)
        ]
        logger.writer("val").add_figure("predictions/val", image_grid(images, titles), epoch)


def run_logger(trainer: Trainer) -> RunLogger | None:
    """Return the logger of this run's folder; None where nothing is logged."""
    return next((each for each in trainer.loggers if isinstance(each, RunLogger)), None)


def image_grid(images: Tensor, titles: Sequence[str]) -> Figure:
    """Return normalized images, shape (B, 3, 32, 32) with B at most 16, in a square, each below its title."""
    figure, pixels = Figure(figsize=(6, 6.6)), denormalize(images).permute(0, 2, 3, 1).cpu().numpy()
    axes = figure.add_axes((0, 0, 1, 1))  # one for all: sixteen take 0.2 s longer to draw
    for i, (image, title) in enumerate(zip(pixels, titles, strict=True)):
        row, column = divmod(i, SIDE)
        left, top = column + 0.03, 1.1 * row + 0.15
        axes.imshow(image, extent=(left, left + 0.94, top + 0.94, top))
        axes.text(left + 0.47, top - 0.03, title, ha="center", fontsize=9)
    axes.set(xlim=(0, SIDE), ylim=(1.1 * SIDE, 0))
    axes.set_axis_off()
    return figure
