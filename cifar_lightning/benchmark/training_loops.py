"""The four variants that are compared, each in a process of its own, where each line on stdin asks for an epoch."""

import contextlib
import copy
import itertools
import json
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms as T
from torchvision.datasets import CIFAR10

from cifar_lightning.cli import app
from cifar_lightning.cli.dry_run import DryRun
from cifar_lightning.cli.quiet import be_quiet
from cifar_lightning.data import Batch, ImageSet
from cifar_lightning.data.transforms import MEAN, STD
from cifar_lightning.utils import performance

STDOUT = sys.__stdout__  # for the answers alone: what is printed elsewhere is redirected
# Not by its own name for itself, which is __main__ here and not in the other processes of `fit`.
TIMED_EPOCHS = "cifar_lightning.benchmark.training_loops.TimedEpochs"
LIMIT_STEPS = 40  # per turn


def timed_epochs(device: torch.device, steps: int, setting: dict[str, Any] | None = None) -> Iterator[None]:
    """Yield as each epoch starts; it ends when the caller comes back. The first line on stdin asks for the setting."""
    sys.stdin.readline()
    print(json.dumps(setting or {}), file=STDOUT, flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        yield
        if device.type != "cpu":  # it computes asynchronously, and is behind the program
            torch.accelerator.synchronize(device)
        epoch = {"seconds": time.perf_counter() - started, "steps": steps, "peak_mib": peak_mib()}
        epoch["peak_device_mib"] = torch.cuda.max_memory_allocated(device) // 2**20 if device.type == "cuda" else None
        print(json.dumps(epoch), file=STDOUT, flush=True)
    sys.exit(0)  # the benchmark is no more


def peak_mib() -> int | None:
    """Return the peak memory of this process so far in MiB; None where the system does not tell."""
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**20  # in bytes there
    status = Path("/proc/self/status")  # Linux, where getrusage begins with the parent's peak
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) // 2**10 for line in lines if line.startswith("VmHWM:")), None)


def baseline(setting: DryRun) -> None:
    """Train by the loop that people write: images one by one, PyTorch's modules, float32, metrics read at each step."""
    os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)  # Lightning sets it, PyTorch alone does not
    warnings.filterwarnings("ignore", "This DataLoader will create")  # people have two workers on one core, too
    setting.load()
    model, data, device = setting.model, setting.datamodule, setting.device
    model.network = network = stock(model.network).to(device, torch.float32)
    optimizer = model.new_optimizer()
    for group in optimizer.param_groups:
        group["fused"] = None  # PyTorch's default
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
        self.transform, self.target_transform = T.Compose([T.ToTensor(), T.Normalize(MEAN, STD)]), None


def stock(network: nn.Module) -> nn.Module:
    """Return a copy with PyTorch's own modules in place of ours, its weights in the default memory format."""
    network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    for name, child in network.named_children():
        stock_of_child = getattr(child, "stock", None)
        network.set_submodule(name, stock_of_child() if stock_of_child else stock(child))
    return network


class TimedEpochs(Callback):
    """Times the epochs of `fit`, each from its start through validation, logs and checkpoints to the next one's."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        if trainer.current_epoch == 0:  # only now are device and steps known
            self.epochs = timed_epochs(pl_module.device, int(trainer.num_training_batches))
        next(self.epochs)


def bare_loop(setting: DryRun) -> None:
    """Train the same module in the same precision without the Trainer: no metrics, no logs, no checkpoints."""
    setting.load()
    model, data, trainer, device = setting.model, setting.datamodule, setting.trainer, setting.device
    optimizer = model.new_optimizer()
    facts: dict[str, Any] = {"model": type(model).__name__, "parameters": sum(p.numel() for p in model.parameters())}
    facts |= {"batch_size": data.batch_size, "train_images": len(data.train.labels), "source": data.source}
    facts |= {"precision": str(trainer.precision), "threads": torch.get_num_threads()}
    facts["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

    def loss_of(batch: Batch) -> Tensor:
        batch = data.on_after_batch_transfer(data.transfer_batch_to_device(batch, device, 0), 0)
        with trainer.precision_plugin.forward_context():
            logits = model(batch.images.to(model.dtype)).float()
        return F.cross_entropy(logits, batch.labels, label_smoothing=model.label_smoothing if model.training else 0.0)

    train_loader = data.train_dataloader()
    for _ in timed_epochs(device, len(train_loader), facts):
        model.train()
        trainer.training = True  # augments the images where asked for
        for batch in train_loader:
            optimizer.zero_grad()
            loss_of(batch).backward()
            optimizer.step()
        model.eval()
        trainer.validating = True
        with torch.inference_mode():
            for batch in itertools.chain(*data.val_dataloader()):
                loss_of(batch)


def limit(setting: DryRun) -> None:
    """Run each convolution and linear layer of training steps, forward and backward, in the precision of `fit`."""
    setting.place()
    inputs, gradients = dict[nn.Module, Tensor](), list[Tensor]()

    def note(layer: nn.Module, given: tuple[Tensor], output: Tensor) -> None:
        if isinstance(layer, nn.Conv2d | nn.Linear):  # the network uses each once; the images need no gradient
            inputs[layer] = torch.randn_like(given[0], dtype=output.dtype).requires_grad_(bool(inputs))
            gradients.append(torch.randn_like(output))

    side = [*setting.datamodule.resolutions, 32][0]  # of the first epochs, as in `fit`
    size = min(setting.datamodule.batch_size, setting.images_per_epoch)
    images = torch.zeros(size, 3, side, side, device=setting.device)
    layout = torch.preserve_format if images.device.type == "mps" else torch.channels_last  # as the weights
    noting = nn.modules.module.register_module_forward_hook(note)
    with noting, torch.no_grad(), setting.trainer.precision_plugin.forward_context():
        setting.model(images.to(memory_format=layout))
    for layer, x in inputs.items():
        layer.to(x.dtype).register_parameter("bias", None)
    leaves = [each for layer, x in inputs.items() for each in (*layer.parameters(), x) if each.requires_grad]
    for _ in timed_epochs(setting.device, LIMIT_STEPS):
        for _ in range(LIMIT_STEPS):
            outputs = [layer(x) for layer, x in inputs.items()]
            learning = [i for i, output in enumerate(outputs) if output.requires_grad]  # a frozen first layer does not
            torch.autograd.backward([outputs[i] for i in learning], [gradients[i] for i in learning])
            for leaf in leaves:
                leaf.grad = None


def main(args: Sequence[str]) -> int:
    """Run a variant, given its name and the flags for `fit`, until the benchmark ends it."""
    name, *flags = args
    be_quiet()
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.ExitStack() as stack:
        if name == "fit":  # with everything that it does by default
            return app.lightning(["fit", *flags, f"--trainer.callbacks+={TIMED_EPOCHS}"])
        if name != "baseline":  # which has nothing of what makes `fit` fast
            performance.prepare()
        alone = DryRun(["fit", *flags, "--trainer.devices=1"])
        if name != "baseline":
            stack.enter_context(performance.steady(alone.device))
        {"baseline": baseline, "bare loop": bare_loop, "limit": limit}[name](alone)
    return 0


if __name__ == "__main__":
    sys.exit(app.guarded(main, sys.argv[1:]))
