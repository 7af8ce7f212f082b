"""TensorBoard beyond the curves: overlaid charts, sample images, the graph, hyper-parameters."""

import warnings
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams
from torchvision.utils import make_grid

from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.data.image_set import ImageSet
from cifar_lightning.data.transforms import denormalize

STAGES = ("train", "train_clean", "val")
CHARTS = {
    "loss": [f"{stage}/loss" for stage in STAGES],
    "accuracy": [f"{stage}/acc" for stage in STAGES],
    "generalization gap": ["gap/loss", "gap/acc"],
}
DATA_HPARAMS = ("batch_size", "val_size", "train_size", "augment", "seed")  # those worth comparing runs by
SAMPLES = 64


class TensorBoardExtras(Callback):
    """Write, once per run, what the curves alone do not show."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        writer, data = writer_of(trainer), CIFAR10DataModule.of(trainer)
        if writer is None or trainer.global_step:  # a resumed run has them already
            return
        writer.add_custom_scalars({"curves": {title: ["Multiline", tags] for title, tags in CHARTS.items()}})
        writer.add_text("data", data.description)
        few = ImageSet(data.train.images[:SAMPLES], data.train.labels[:SAMPLES])
        # Through the data module's hooks, as any batch: augmented and normalized as in training, on the device.
        images = trainer.strategy.batch_to_device(few).images
        writer.add_image("samples/train", make_grid(denormalize(images).cpu(), nrow=8))
        with warnings.catch_warnings():
            # add_graph traces with torch.jit, which is deprecated and has no successor that TensorBoard can draw.
            warnings.simplefilter("ignore")
            writer.add_graph(pl_module.network, images[:2].to(pl_module.dtype))
        params = {**pl_module.hparams, **{name: data.hparams[name] for name in DATA_HPARAMS}, "source": data.source}
        plain = {name: x if isinstance(x, bool | int | float | str) else str(x) for name, x in params.items()}
        file_writer: Any = writer.file_writer  # open, for something was written; torch's types know only its None
        # Not the writer's add_hparams, which makes a run of its own: the HPARAMS tab shows this run's last points.
        for summary in hparams(plain, {f"{stage}/{name}": 0.0 for stage in STAGES for name in ("loss", "acc")}):
            file_writer.add_summary(summary)


def writer_of(trainer: Trainer) -> SummaryWriter | None:
    """Return the writer of this run's event file; None where nothing is logged."""
    return next((each.experiment for each in trainer.loggers if isinstance(each, TensorBoardLogger)), None)
