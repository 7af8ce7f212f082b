"""Ends of a run before its last epoch: a signal (SIGINT is Ctrl-C; SIGTERM), or training that diverged."""

import contextlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterable
from math import isfinite
from types import FrameType
from typing import Any, NoReturn

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from cifar_lightning.callbacks.checkpoints import Checkpoints
from cifar_lightning.errors import Interrupted, RunError
from cifar_lightning.runs.layout import INTERRUPTED, LAST

# Reading the loss of each step would make the device wait for the host, which should have queued the next step by then;
# the error names the very step all the same.
STEPS_BETWEEN_CHECKS = 50


class Stopping(Callback):
    """Note the first signal, save after the current step, and end the run; a second signal kills at once."""

    def __init__(self, checkpoints: Checkpoints | None, requeue_signal: signal.Signals | None) -> None:
        self.checkpoints, self.requeue_signal, self.signum = checkpoints, requeue_signal, 0
        self._handlers: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the handlers, over Lightning's own, which would end the run in the middle of a step."""
        if threading.current_thread() is not threading.main_thread():  # no other can
            return
        self._pid = os.getpid()
        for signum in {signal.SIGINT, signal.SIGTERM, self.requeue_signal or signal.SIGTERM}:
            if signal.getsignal(signum) != signal.SIG_IGN:  # the parent process wants it ignored, `nohup` say
                self._handlers[signum] = signal.signal(signum, self._note)

    def on_train_batch_end(self, trainer: Trainer, _: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """End the run after a signal, unless gradients still accumulate or the epoch's own checkpoint follows."""
        whole_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if self.signum and whole_step and not trainer.is_last_batch:
            if self.checkpoints:
                trainer.save_checkpoint(self.checkpoints.path(trainer, INTERRUPTED))
            batches, epoch = trainer.num_training_batches, trainer.current_epoch + 1
            self._interrupt(trainer, f"step {batch_idx + 1} of {batches} in epoch {epoch}")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.signum:
            self._interrupt(trainer, f"epoch {trainer.current_epoch}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule, exception: Any = None) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    on_exception = on_train_end

    def _interrupt(self, trainer: Trainer, where: str) -> NoReturn:
        if self.checkpoints is None:
            raise Interrupted(self.signum, f"stopped after {where}, nothing is kept", "start it again")
        remedy = f"resume with: python -m cifar_lightning fit --resume {shlex.quote(str(trainer.log_dir))}"
        raise Interrupted(self.signum, f"stopped and saved after {where}", remedy)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a DataLoader's worker: Ctrl-C is not for it, and of a SIGTERM it dies
            return None if signum == signal.SIGINT else os._exit(128 + signum)
        self.signum = signum
        for each in self._handlers:
            signal.signal(each, signal.SIG_IGN if each == self.requeue_signal else signal.SIG_DFL)
        # Not print: it may have been interrupted in the middle of a line.
        with contextlib.suppress(OSError):  # the reader of a pipe may be gone
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"\nstopping after this step (again: at once)\n")


class Divergence(Callback):
    """End the run at the first loss that is not finite, and before weights that are not finite would be saved."""

    def __init__(self, checkpoints: Checkpoints | None) -> None:
        self.checkpoints = checkpoints
        self._unchecked: list[tuple[int, float, Tensor]] = []

    def on_train_batch_end(self, trainer: Trainer, _: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._unchecked.append((batch_idx + 1, trainer.optimizers[0].param_groups[0]["lr"], outputs["loss"].detach()))
        if len(self._unchecked) == STEPS_BETWEEN_CHECKS:
            self._check(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule, checkpoint: Any = None) -> None:
        """Check before the epoch enters the history, and before anything is saved in the middle of one."""
        self._check(trainer, pl_module.parameters())

    on_save_checkpoint = on_train_epoch_end

    def _check(self, trainer: Trainer, weights: Iterable[Tensor] = ()) -> None:
        steps, self._unchecked = self._unchecked, []
        losses = torch.stack([loss for *_, loss in steps]).tolist() if steps else []
        bad = [(step, lr, loss) for (step, lr, _), loss in zip(steps, losses, strict=True) if not isfinite(loss)]
        if bad:
            step, lr, loss = bad[0]
            field, cause = "train/loss", f"{loss} at step {step} of epoch"
        elif not all(bool(each.isfinite().all()) for each in weights):
            lr = trainer.optimizers[0].param_groups[0]["lr"]
            field, cause = "weights", f"not finite after step {trainer.global_step}, in epoch"
        else:
            return
        epoch = trainer.fit_loop.epoch_progress.current.ready  # current_epoch is one further at an epoch's end
        last = self.checkpoints.path(trainer, LAST) if self.checkpoints else None
        kept = f"{last} is the last finite one" if last and last.exists() else "nothing finite was kept"
        raise RunError(field, f"{cause} {epoch}, learning rate {lr:g}", f"try --model.lr {lr / 3:.1g}; {kept}")
