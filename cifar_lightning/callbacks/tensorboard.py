"""What TensorBoard shows besides the curves: overlaid charts, sample images, the graph, hyper-parameters."""

import warnings

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams
from torchvision.utils import make_grid

from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.data.image_set import ImageSet
from cifar_lightning.data.transforms import denormalize

STAGES = ("train", "train_clean", "val")
LAYOUT = {
    "curves": {
        "loss": ["Multiline", [f"{stage}/loss" for stage in STAGES]],
        "accuracy": ["Multiline", [f"{stage}/acc" for stage in STAGES]],
        "generalisation gap": ["Multiline", ["gap/loss", "gap/acc"]],
    }
}

# What of the data module is worth comparing runs by.
DATA_PARAMS = ("batch_size", "val_size", "train_size", "augment", "seed")

SAMPLES = 64


class TensorBoardExtras(Callback):
    """Writes, once a run, what the curves alone do not tell."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Chart layout, sample images as the network gets them, graph, hyper-parameters and where the data is from."""
        writer, data = writer_of(trainer), CIFAR10DataModule.of(trainer)
        if writer is None or trainer.global_step:  # a run that goes on has them already
            return
        writer.add_custom_scalars(LAYOUT)
        images = _samples(trainer, data)
        writer.add_image("samples/train", make_grid(denormalize(images).cpu(), nrow=8))
        writer.add_text("data", data.description)
        with warnings.catch_warnings():
            # add_graph traces with torch.jit, which is deprecated and has no successor that TensorBoard can draw.
            warnings.simplefilter("ignore")
            pl_module.eval()
            writer.add_graph(pl_module.network, images[:2].to(pl_module.dtype))
            pl_module.train()
        params = {**pl_module.hparams, **{name: data.hparams[name] for name in DATA_PARAMS}, "source": data.source}
        metrics = dict.fromkeys((f"{stage}/{name}" for stage in STAGES for name in ("loss", "acc")), 0.0)
        # The values of these metrics are the run's own curves: the HPARAMS tab shows their last points.
        for summary in hparams({name: _plain(value) for name, value in params.items()}, metrics):
            writer._get_file_writer().add_summary(summary)


def writer_of(trainer: Trainer) -> SummaryWriter | None:
    """What writes this run's event file; None where nothing is logged."""
    loggers = (logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger))
    logger = next(loggers, None)
    return logger.experiment if logger else None


def _samples(trainer: Trainer, data: CIFAR10DataModule) -> Tensor:
    """The first training images, augmented and normalised as in training, on the device."""
    few = data.train.take(data.train.labels.new_tensor(range(min(SAMPLES, len(data.train.labels)))))
    batch: ImageSet = trainer.strategy.batch_to_device(few)  # calls the data module's hooks, as for any batch
    return batch.images


def _plain(value: object) -> bool | int | float | str:
    return value if isinstance(value, bool | int | float | str) else str(value)
