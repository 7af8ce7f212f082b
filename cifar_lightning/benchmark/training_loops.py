"""The four ways to train that are compared. Each runs in a process of its own and takes turns of one epoch."""

import contextlib
import io
import multiprocessing
import os
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from cifar_lightning.benchmark.products import products
from cifar_lightning.benchmark.stock import Pictures, stock, stock_optimizer
from cifar_lightning.benchmark.timing import Epochs, Pace
from cifar_lightning.cli import app
from cifar_lightning.cli.dry_run import DryRun
from cifar_lightning.cli.warning_filters import be_quiet
from cifar_lightning.data.image_set import ImageSet
from cifar_lightning.utils import performance as speed

LIMIT_STEPS = 40  # a turn of the arithmetic alone
DTYPES = {"bf16": torch.bfloat16, "16": torch.float16, "64": torch.float64}


def start(way: str, connection: Connection, flags: Sequence[str]) -> None:
    """Runs one of the ways until the process is ended.

    Args:
        way: A key of `WAYS`.
        connection: Takes a dictionary that describes the setting (from `loop` alone), then a `Turn` for each message.
        flags: What `fit` is given.
    """
    be_quiet()
    with contextlib.redirect_stdout(io.StringIO()):
        WAYS[way](connection, flags)


def plain(connection: Connection, flags: Sequence[str]) -> None:
    """The loop that people write: pictures one by one, stock modules, float32, a number read at every step."""
    setting = DryRun(["fit", *flags])
    os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)  # Lightning's doing; PyTorch alone has it not
    multiprocessing.set_start_method(None, force=True)  # workers start as in any program, not as this process did
    warnings.filterwarnings("ignore", "This DataLoader will create")  # people have two workers on one core, too
    setting.load()
    device, data = setting.device, setting.datamodule
    network = stock(setting.model.network).to(device, torch.float32)
    train, val = Pictures(data.train), Pictures(data.val)
    del data.train, data.val, data.train_clean
    optimizer = stock_optimizer(setting.model.new_optimizer(), network)
    lone = len(train) % data.batch_size == 1 < data.batch_size  # batch norm refuses it; `fit` leaves it out, too
    loader: DataLoader[Any] = DataLoader(train, data.batch_size, shuffle=True, num_workers=2, drop_last=lone)

    def epoch() -> None:
        network.train()
        total, correct = 0.0, 0
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            logits = network(images)
            loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
            correct += (logits.argmax(1) == labels).sum().item()
        network.eval()
        with torch.no_grad():
            for images, labels in DataLoader(val, data.batch_size, num_workers=2):
                images, labels = images.to(device), labels.to(device)
                logits = network(images)
                total += F.cross_entropy(logits, labels).item()
                correct += (logits.argmax(1) == labels).sum().item()

    for _ in Pace(connection, device).turns(len(loader)):
        epoch()


def ours(connection: Connection, flags: Sequence[str]) -> None:
    """`fit` itself, with everything that it does by default."""
    Epochs.pace = Pace(connection, torch.device("cpu"))  # until `fit` knows better
    status = app.run(["fit", *flags, f"--trainer.callbacks+={Epochs.__module__}.Epochs"])
    raise SystemExit(status)


def loop(connection: Connection, flags: Sequence[str]) -> None:
    """The same module, data and precision without the Trainer: no metrics, no logs, no checkpoints."""
    speed.prepare()
    setting = DryRun(["fit", *flags])
    setting.load()
    model, data, precision = setting.model, setting.datamodule, setting.trainer.precision_plugin
    optimizer = model.new_optimizer()
    batches = len(data.train_dataloader())
    connection.send(describe(setting))

    def loss_of(batch: ImageSet) -> Tensor:
        at_once = setting.device.type == "cuda"  # as Lightning copies
        there = (tensor.to(setting.device, non_blocking=at_once) for tensor in batch)
        images, labels = data.on_after_batch_transfer(ImageSet(*there), 0)
        with precision.forward_context():
            logits = model(images.to(model.dtype))
        return F.cross_entropy(logits.float(), labels)

    def epoch() -> None:
        model.train()
        setting.trainer.training = True
        for batch in data.train_dataloader():
            optimizer.zero_grad()
            loss_of(batch).backward()
            optimizer.step()
        model.eval()
        setting.trainer.validating = True
        with torch.inference_mode():
            for loader in data.val_dataloader():
                for batch in loader:
                    loss_of(batch)

    with speed.still_heap():
        for _ in Pace(connection, setting.device).turns(batches):
            epoch()


def limit(connection: Connection, flags: Sequence[str]) -> None:
    """The convolutions and matrix products of a training step alone, forward and backward, in the precision used."""
    speed.prepare()
    setting = DryRun(["fit", *flags])
    device = setting.device
    network = setting.model.network.to(device)
    images = torch.zeros(setting.datamodule.batch_size, 3, 32, 32, device=device)
    dtype = DTYPES.get(str(setting.trainer.precision).partition("-")[0], torch.float32)
    step = products(network, images, dtype)
    with speed.still_heap():
        for _ in Pace(connection, device).turns(LIMIT_STEPS):
            for _ in range(LIMIT_STEPS):
                step()


WAYS: dict[str, Callable[[Connection, Sequence[str]], None]] = {
    "plain": plain,
    "ours": ours,
    "loop": loop,
    "limit": limit,
}


def describe(setting: DryRun) -> dict[str, Any]:
    """What is compared, in plain values."""
    device, data = setting.device, setting.datamodule
    return {
        "model": type(setting.model).__name__,
        "parameters": sum(p.numel() for p in setting.model.parameters()),
        "batch_size": data.batch_size,
        "train_images": len(data.train.labels),
        "source": data.source,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": str(setting.trainer.precision),
        "threads": torch.get_num_threads(),
    }
