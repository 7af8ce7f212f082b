"""The four variants that are compared. Each runs in a process of its own, which `python -m` this module starts."""

import contextlib
import copy
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from torchvision.datasets import CIFAR10
from torchvision.transforms import Compose, Normalize, ToTensor

from cifar_lightning.benchmark.timing import TimedEpochs, timed_epochs
from cifar_lightning.cli import app
from cifar_lightning.cli.dry_run import DryRun
from cifar_lightning.cli.warning_filters import be_quiet
from cifar_lightning.data.image_set import ImageSet
from cifar_lightning.data.transforms import MEAN, STD
from cifar_lightning.models import ImageClassifier
from cifar_lightning.utils import performance

LIMIT_STEPS = 40  # per turn
DTYPES = {"bf16": torch.bfloat16, "16": torch.float16, "64": torch.float64}


def baseline(flags: Sequence[str]) -> None:
    """Train by the loop that people write: images one by one, PyTorch's modules, float32, metrics read at each step."""
    setting = DryRun(["fit", *flags])
    os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)  # Lightning sets it, PyTorch alone does not
    warnings.filterwarnings("ignore", "This DataLoader will create")  # people have two workers on one core, too
    setting.load()
    model, data, device = setting.model, setting.datamodule, setting.device
    model.network = network = stock(model.network).to(device, torch.float32)
    optimizer = stock_optimizer(model)
    train, val, size = TorchvisionImages(data.train), TorchvisionImages(data.val), data.batch_size
    del data.train, data.val, data.train_clean  # or they would count in its peak memory
    lone = len(train) % size == 1  # batch norm refuses it; `fit` leaves it out, too
    train_loader: DataLoader[Any] = DataLoader(train, size, shuffle=True, num_workers=2, drop_last=lone)
    val_loader: DataLoader[Any] = DataLoader(val, size, num_workers=2)
    for _ in timed_epochs(device, len(train_loader)):
        for loader, training in ((train_loader, True), (val_loader, False)):
            network.train(training)
            total, correct = 0.0, 0
            with torch.set_grad_enabled(training):
                for images, labels in loader:
                    images, labels = images.to(device), labels.to(device)
                    logits = network(images)
                    loss = F.cross_entropy(logits, labels)
                    if training:
                        optimizer.zero_grad()
                        loss.backward()
                        optimizer.step()
                    total += loss.item()
                    correct += (logits.argmax(1) == labels).sum().item()


class TorchvisionImages(CIFAR10):  # type: ignore[misc]  # torchvision has no types
    """torchvision's data set, image by image, on a part of the training images."""

    def __init__(self, images: ImageSet) -> None:
        self.data = images.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.targets = images.labels.tolist()
        self.transform, self.target_transform = Compose([ToTensor(), Normalize(MEAN, STD)]), None


def stock(network: nn.Module) -> nn.Module:
    """Return a copy with PyTorch's own modules in place of ours, its weights in the default memory format."""
    network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    for name, child in network.named_children():
        stock_of_child = getattr(child, "stock", None)
        network.set_submodule(name, stock_of_child() if stock_of_child else stock(child))
    return network


def stock_optimizer(model: ImageClassifier) -> Optimizer:
    """Return the model's optimizer as PyTorch makes it by default: not fused."""
    optimizer = model.new_optimizer()
    optimizer.param_groups[0]["fused"] = None
    return optimizer


def fit(flags: Sequence[str]) -> None:
    """Train by `fit` with everything that it does by default."""
    sys.exit(app.run(["fit", *flags, f"--trainer.callbacks+={TimedEpochs.__module__}.TimedEpochs"]))


def bare_loop(flags: Sequence[str]) -> None:
    """Train the same module in the same precision without the Trainer: no metrics, no logs, no checkpoints."""
    performance.prepare()
    setting = DryRun(["fit", *flags])
    setting.load()
    model, data, trainer, device = setting.model, setting.datamodule, setting.trainer, setting.device
    optimizer = model.new_optimizer()

    def loss_of(batch: ImageSet) -> Tensor:
        moved = (tensor.to(device, non_blocking=device.type == "cuda") for tensor in batch)  # as Lightning copies
        images, labels = data.on_after_batch_transfer(ImageSet(*moved), 0)
        with trainer.precision_plugin.forward_context():
            logits = model(images.to(model.dtype))
        return F.cross_entropy(logits.float(), labels)

    with performance.still_heap():
        for _ in timed_epochs(device, len(data.train_dataloader()), describe(setting)):
            model.train()
            trainer.training = True  # augments the images where asked for
            for batch in data.train_dataloader():
                optimizer.zero_grad()
                loss_of(batch).backward()
                optimizer.step()
            model.eval()
            trainer.validating = True
            with torch.inference_mode():
                for loader in data.val_dataloader():
                    for batch in loader:
                        loss_of(batch)


def limit(flags: Sequence[str]) -> None:
    """Run the convolutions and matrix products of training steps alone, in the precision of `fit`."""
    performance.prepare()
    setting = DryRun(["fit", *flags])
    images = torch.zeros(setting.datamodule.batch_size, 3, 32, 32, device=setting.device)
    dtype = DTYPES.get(str(setting.trainer.precision).partition("-")[0], torch.float32)
    step = products(setting.model.network.to(setting.device), images, dtype)
    with performance.still_heap():
        for _ in timed_epochs(setting.device, LIMIT_STEPS):
            for _ in range(LIMIT_STEPS):
                step()


def products(network: nn.Module, images: Tensor, dtype: torch.dtype) -> Callable[[], None]:
    """Return a function that runs each convolution and linear layer once, forward and backward, and nothing else.

    The network uses each of these layers once; the images, shape (B, 3, 32, 32), are a batch for it.
    """
    network, inputs = copy.deepcopy(network), dict[nn.Module, Tensor]()
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_pre_hook(lambda layer, args: inputs.update({layer: args[0]})) for layer in layers]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    work = []
    for i, (layer, x) in enumerate(inputs.items()):
        layer.to(dtype).register_parameter("bias", None)
        x = torch.randn_like(x, dtype=dtype)
        if x.dim() == 4 and x.device.type != "mps":  # as `fit` keeps them
            layer, x = layer.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
        x.requires_grad_(i > 0)  # training never needs the gradient of the images
        with torch.no_grad():
            work.append((layer, x, torch.randn_like(layer(x))))

    def step() -> None:
        torch.autograd.backward([layer(x) for layer, x, _ in work], [gradient for *_, gradient in work])
        for layer, x, _ in work:
            layer.zero_grad()
            x.grad = None

    return step


def describe(setting: DryRun) -> dict[str, Any]:
    """Return what is compared, in plain values."""
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


VARIANTS = {"baseline": baseline, "fit": fit, "bare loop": bare_loop, "limit": limit}


def main(args: Sequence[str]) -> int:
    """Run a variant, given its name and the flags for `fit`, until the benchmark ends it."""
    name, *flags = args
    be_quiet()
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        VARIANTS[name](flags)
    return 0


if __name__ == "__main__":
    sys.exit(app.guarded(main, sys.argv[1:]))
