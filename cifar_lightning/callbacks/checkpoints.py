"""Checkpoints of a run: its last epoch, the one before, the best, the step it was interrupted at; its environment."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from cifar_lightning.callbacks.early_stopping import request
from cifar_lightning.callbacks.history import History
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.errors import check
from cifar_lightning.runs.layout import NEW, OWN, RunFolder
from cifar_lightning.runs.recovery import settle
from cifar_lightning.utils import environment


def keep_apart(callbacks: Sequence[Callback]) -> None:
    """Keep a person's ModelCheckpoint from the names of the run's own files, which it would overwrite and delete."""
    for each in callbacks:
        if isinstance(each, ModelCheckpoint) and each.dirpath is None:
            remedy = "another filename for ModelCheckpoint, or a dirpath: a run keeps that one itself"
            check(f"{each.filename}.ckpt" not in OWN, "trainer.callbacks", each.filename, remedy)
            if f"{each.CHECKPOINT_NAME_LAST}.ckpt" in OWN:  # of `save_last`
                each.CHECKPOINT_NAME_LAST = "saved_last"


class Checkpoints(Checkpoint):
    """Save a checkpoint to RUN/checkpoints at the end of each epoch; `history` must come before it in the Trainer.

    `best.ckpt` is the first of the highest `val/acc`; `interrupted.ckpt` lies there between a signal and the end of the
    epoch that it came in. Wherever the process is killed, one checkpoint is whole and at most an epoch old: the new one
    is on disk (as `new.ckpt`) before any other loses its name.
    """

    def __init__(self, history: History) -> None:
        self.history, self.asked = history, dict[str, Any]()
        self.frozen: list[str] | None = None  # the checkpoint's, until training starts

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.trainer = trainer

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze what was frozen: a finetuning callback freezes anew, and unfreezes in one epoch alone."""
        if self.frozen is not None:
            for name, parameter in pl_module.named_parameters():
                parameter.requires_grad_(name not in self.frozen)

    def path(self, trainer: Trainer, name: str) -> Path:
        return RunFolder(Path(str(trainer.log_dir))).checkpoint(name)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        new = self.path(trainer, NEW)
        trainer.save_checkpoint(new)
        if trainer.is_global_zero:
            settle(new, self.history.rows)

    def state_dict(self) -> dict[str, Any]:
        asked = request(self.trainer)
        weights = self.trainer.lightning_module.named_parameters()
        frozen = [name for name, parameter in weights if not parameter.requires_grad]
        return {"asked": asked if asked.get("by") else {}, "frozen": frozen}  # steps and time count anew

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.asked, self.frozen = state_dict.get("asked", {}), state_dict.get("frozen")  # older versions lack them


class EnvironmentCheck(Callback):
    """Save the environment in every checkpoint, and report on stderr what differs where the run resumes."""

    state_key = "Conditions"  # the key in checkpoints from before this class was renamed, kept so that they compare

    def __init__(self) -> None:
        self.environment: dict[str, Any] = {}  # the checkpoint's, until training starts

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data, saved = CIFAR10DataModule.of(trainer), self.environment
        moved = saved.pop("moved", "")
        self.environment = environment.describe(pl_module.device, *data.train, *data.val)
        self.environment["processes"] = trainer.world_size
        if saved and (changed := environment.differences(saved, self.environment)):
            print(f"resumes in another environment, not bit for bit: {', '.join(changed)}", file=sys.stderr)
            moved = "; ".join(filter(None, [moved, ", ".join(changed)]))
        if moved:  # or else a record would tell of the last environment alone
            self.environment["moved"] = moved

    def state_dict(self) -> dict[str, Any]:
        return self.environment

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.environment = {"processes": 1, **state_dict}  # an older version's was of one
