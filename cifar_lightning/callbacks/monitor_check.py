"""Metrics that callbacks and schedules monitor, checked before the first step: else a wrong name costs an epoch."""

import sys
from difflib import get_close_matches
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from cifar_lightning.callbacks.early_stopping import callbacks_of
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.errors import InputError
from cifar_lightning.runs.checkpoint import OURS, architecture

KNOWN = ("lightning.", "torch.", "cifar_lightning.")  # what logs nothing that is not named here


class MonitorCheck(Callback):
    """Refuse a monitor that nothing publishes, and a `mode` that takes worse for better."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        everyone, names = callbacks_of(trainer), published(trainer)
        own = not architecture(pl_module).startswith(OURS)
        own |= any(not type(each).__module__.startswith(KNOWN) for each in everyone)
        for each in everyone:
            also = ["epoch", "step"] if isinstance(each, Checkpoint) else []
            certain = not own and getattr(each, "strict", True)
            _check("trainer.callbacks", each, getattr(each, "monitor", None), [*names, *also], certain=certain)
        for config in trainer.lr_scheduler_configs:
            if config.reduce_on_plateau:
                _check("model", config.scheduler, config.monitor, names, certain=config.strict and not own)


def published(trainer: Trainer) -> list[str]:
    """Return the names of all metrics that this program's models publish in training."""
    data, stages = CIFAR10DataModule.of(trainer), ["train"]
    if data.val_size and trainer.limit_val_batches:
        stages += ["val", *(("train_clean", "gap") if data.train_clean_size else ())]
    return [f"{stage}/{metric}" for stage in stages for metric in ("loss", "acc")]


def _check(field: str, by: Any, monitor: Any, names: list[str], *, certain: bool) -> None:
    if not isinstance(monitor, str):
        return
    who = f"{type(by).__name__} monitors {monitor}"
    if monitor not in names:
        near = " or ".join(get_close_matches(monitor, names, n=1, cutoff=0.5) or names)
        if certain:
            raise InputError(field, f"{who}, which nothing publishes", f"use {near}")
        print(f"{who}, which your own code must log; or did you mean {near}?", file=sys.stderr)
        return
    better = "max" if monitor.endswith("/acc") and not monitor.startswith("gap/") else "min"  # a gap is best small
    mode = getattr(by, "mode", better)
    if mode != better and "/" in monitor:
        raise InputError(field, f"{who}, and mode {mode} takes a worse one for a better", f"give it the mode {better}")
