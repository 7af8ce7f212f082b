"""SIGINT (Ctrl-C) and SIGTERM end a run after the step, with everything saved."""

import contextlib
import os
import shlex
import signal
import sys
import threading
from types import FrameType
from typing import Any, NoReturn

from lightning.pytorch import Callback, LightningModule, Trainer

from cifar_lightning.callbacks.checkpoints import Checkpoints
from cifar_lightning.errors import Interrupted
from cifar_lightning.runs.layout import INTERRUPTED


class Stopping(Callback):
    """Note the first signal, save after the current step, and end the run; a second signal kills at once."""

    def __init__(self, checkpoints: Checkpoints | None) -> None:
        self.checkpoints = checkpoints
        self.signum: int | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the handlers, over Lightning's own, which would end the run in the middle of a step."""
        if threading.current_thread() is not threading.main_thread():  # no other can
            return
        self._pid = os.getpid()
        for signum in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(signum) != signal.SIG_IGN:  # the parent process wants it ignored, `nohup` say
                self._handlers[signum] = signal.signal(signum, self._note)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: object, batch_idx: int
    ) -> None:
        """End the run after a signal, unless gradients still accumulate or the epoch's own checkpoint follows."""
        whole_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if self.signum is None or trainer.is_last_batch or not whole_step:
            return
        if self.checkpoints:
            trainer.save_checkpoint(self.checkpoints.path(trainer, INTERRUPTED))
        batches, epoch = trainer.num_training_batches, trainer.current_epoch + 1
        self._interrupt(trainer, self.signum, f"step {batch_idx + 1} of {batches} in epoch {epoch}")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the run between two epochs after a signal."""
        if self.signum is not None:
            self._interrupt(trainer, self.signum, f"epoch {trainer.current_epoch}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule, exception: Any = None) -> None:
        """Restore the handlers that were there before."""
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    on_exception = on_train_end

    def _interrupt(self, trainer: Trainer, signum: int, where: str) -> NoReturn:
        if self.checkpoints is None:
            raise Interrupted(signum, f"stopped after {where}, nothing is kept", "start it again")
        remedy = f"resume with: python -m cifar_lightning fit --resume {shlex.quote(str(trainer.log_dir))}"
        raise Interrupted(signum, f"stopped and saved after {where}", remedy)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a DataLoader's worker: Ctrl-C is not for it, and of a SIGTERM it dies
            return None if signum == signal.SIGINT else os._exit(128 + signum)
        self.signum = signum
        for each in self._handlers:
            signal.signal(each, signal.SIG_DFL)
        # Not print: it may have been interrupted in the middle of a line.
        with contextlib.suppress(OSError):  # the reader of a pipe may be gone
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"\nstopping after this step (again: at once)\n")
