"""SIGINT (Ctrl-C) and SIGTERM end a run after the step, with everything saved."""

import contextlib
import os
import shlex
import signal
import sys
import threading
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from cifar_lightning.callbacks.checkpoints import Checkpoints
from cifar_lightning.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping(Callback):
    """Notes the first signal, saves after the step that is under way, and ends the run; a second one kills at once.

    An epoch's last step is followed by the validation, and then by the checkpoint of the epoch.

    Args:
        checkpoints: What saves; None where nothing is kept.
    """

    def __init__(self, checkpoints: Checkpoints | None) -> None:
        self.checkpoints = checkpoints
        self.signum: int | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the signals over, from Lightning too: it would end the run in the middle of things."""
        if threading.current_thread() is not threading.main_thread():  # no other can
            return
        self._pid = os.getpid()
        for signum in SIGNALS:
            if signal.getsignal(signum) != signal.SIG_IGN:  # whoever started this may not want it to be stopped so
                self._handlers[signum] = signal.signal(signum, self._note)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: object, batch_idx: int
    ) -> None:
        """Ends the run here if it was asked to, unless the gradient of the step is still being summed up."""
        whole_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if self.signum is None or trainer.is_last_batch or not whole_step:
            return
        if self.checkpoints:
            self.checkpoints.interrupt(trainer)
        where = f"step {batch_idx + 1} of {trainer.num_training_batches} in epoch {trainer.current_epoch + 1}"
        raise self._interrupted(trainer, where)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the run between two epochs."""
        if self.signum is not None:
            raise self._interrupted(trainer, f"epoch {trainer.current_epoch}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gives the signals back."""
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Gives the signals back."""
        self.on_train_end(trainer, pl_module)

    def _interrupted(self, trainer: Trainer, where: str) -> Interrupted:
        assert self.signum is not None
        if self.checkpoints is None:
            return Interrupted(self.signum, f"stopped after {where}, nothing is kept", "start it again")
        remedy = f"go on with: python -m cifar_lightning fit --resume {shlex.quote(str(trainer.log_dir))}"
        return Interrupted(self.signum, f"stopped and saved after {where}", remedy)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a DataLoader's worker: Ctrl-C is not for it, and of a SIGTERM it dies
            return None if signum == signal.SIGINT else os._exit(128 + signum)
        self.signum = signum
        for each in self._handlers:
            signal.signal(each, signal.SIG_DFL)
        # Not print: it may have been interrupted in the middle of a line.
        with contextlib.suppress(OSError):  # whoever read it may be gone
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"\nstopping after this step (again: at once)\n")
