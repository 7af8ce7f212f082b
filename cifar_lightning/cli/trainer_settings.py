"""Settings of the Trainer that no run can have: most of them Lightning takes without a word."""

import os
import re
from datetime import timedelta
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.strategies import DDPStrategy

from cifar_lightning.callbacks.early_stopping import TimeLimit
from cifar_lightning.errors import check

BY_THE_CLOCK = "steps or a part of an epoch: validated by the clock, no run repeats another"
SAMPLER = "false: it gives images twice, and each batch is cut for all processes"
# Strategies that train in a child process, which neither signals reach nor the curves come back from.
CHILD = "ddp_(spawn|fork|notebook)|start_method='?(spawn|fork)"


def accelerators() -> list[str]:
    """Return what `trainer.accelerator` can be on this machine."""
    known = AcceleratorRegistry.available_accelerators()
    here = sorted(name for name in known if AcceleratorRegistry[name]["accelerator"].is_available())
    return ["auto", *here, *(["gpu"] if {"cuda", "mps"} & set(here) else [])]


def seconds(max_time: str | timedelta | dict[str, int] | None) -> float:
    """Return how long that is; infinity if it is no limit, 0 if it is no duration."""
    try:
        left = TimeLimit(max_time).time_remaining()
    except (TypeError, MisconfigurationException):
        return 0
    return float("inf") if left is None else left


def check_trainer(trainer: Any, *, new: bool, resumes: bool) -> None:
    """Raise an `InputError` for the first setting that can't be, of a run that is new, or that resumes."""
    usable = accelerators() if isinstance(trainer.accelerator, str) else [trainer.accelerator]
    left, clips = seconds(trainer.max_time), trainer.gradient_clip_val is not None
    every, interval = trainer.check_val_every_n_epoch, trainer.val_check_interval
    for name, holds, allowed in (
        ("accelerator", trainer.accelerator in usable, " or ".join(usable)),
        ("num_nodes", trainer.num_nodes >= 1, "1 or more"),
        ("barebones", not trainer.barebones, "false: a run is logged and saved"),
        ("default_root_dir", trainer.default_root_dir is None, "--logs: the folder of all runs"),
        ("check_val_every_n_epoch", every is None or every >= 1, "1 or more"),
        ("val_check_interval", interval != 0, "more: 0 is no interval"),
        ("val_check_interval", not isinstance(interval, str | dict | timedelta), BY_THE_CLOCK),
        ("max_time", left > 0, "a time such as 00:12:00:00 (DD:HH:MM:SS) or {hours: 12}, or null"),
        ("gradient_clip_val", (trainer.gradient_clip_val or 0) >= 0, "0 or more, or null"),
        ("gradient_clip_algorithm", not trainer.gradient_clip_algorithm or clips, "it with a gradient_clip_val"),
        ("strategy", not re.search(CHILD, str(trainer.strategy)), "ddp or auto: a run lives in one process"),
        ("accumulate_grad_batches", trainer.accumulate_grad_batches >= 1, "1 or more"),
        ("max_epochs", not (new and trainer.max_epochs == 0), "1 or more: 0 trains nothing"),
        ("max_steps", not (new and trainer.max_steps == 0), "1 or more: 0 trains nothing"),
        ("limit_train_batches", not (new and trainer.limit_train_batches == 0), "more: 0 trains nothing"),
        ("fast_dev_run", not (resumes and trainer.fast_dev_run), "false: this run resumes"),
    ):
        check(holds, f"trainer.{name}", trainer[name], allowed)


def check_processes(trainer: Trainer, settings: Any, *, searches: bool) -> None:
    """Raise an `InputError` for the first setting that can't be, of a run of as many processes as the Trainer has."""
    if SLURMEnvironment.detect():
        tasks, processes = int(os.environ["SLURM_NTASKS"]), trainer.world_size
        check(tasks == processes, "SLURM_NTASKS", tasks, f"{processes}, or other --trainer.devices and num_nodes")
        SLURMEnvironment().validate_settings(trainer.num_devices, trainer.num_nodes)  # on each node, too
    running = int(os.environ.get("LOCAL_WORLD_SIZE", trainer.num_devices))
    several, cpu = trainer.world_size > 1, trainer.strategy.root_device.type == "cpu"
    ddp = isinstance(trainer.strategy, DDPStrategy)
    for name, value, holds, allowed in (
        ("devices", trainer.num_devices, trainer.num_devices == running, f"{running}: so many processes were started"),
        ("sync_batchnorm", True, not (settings.sync_batchnorm and cpu), "false: PyTorch has it for GPUs alone"),
        ("strategy", type(trainer.strategy).__name__, ddp or not several, "ddp: each process holds the whole model"),
        ("use_distributed_sampler", True, not (several and settings.use_distributed_sampler), SAMPLER),
        ("callbacks", "LearningRateFinder", not (several and searches), "it on one device, and then --model.lr"),
    ):
        check(holds, f"trainer.{name}", value, allowed)
