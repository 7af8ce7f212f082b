"""Ends of a run before its last epoch: at a signal (SIGINT is Ctrl-C; SIGTERM), or a request."""

import contextlib
import os
import shlex
import signal
import sys
import threading
from types import FrameType
from typing import Any, NoReturn

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, GradientAccumulationScheduler
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from tqdm import tqdm

from cifar_lightning.callbacks.checkpoints import Checkpoints
from cifar_lightning.callbacks.early_stopping import SCHEDULE_ENDS, callbacks_of, epochs_done, heeded, request, stands
from cifar_lightning.errors import Interrupted
from cifar_lightning.runs.layout import INTERRUPTED
from cifar_lightning.utils.processes import Agreement


class Stopping(Checkpoint):  # which Lightning calls last: after all that may ask to stop, or save at the same step
    """Save and end the run in the middle of an epoch, after a signal or where Lightning would cut the epoch short.

    It would on a request to stop (`trainer.should_stop`) and at `max_steps`. A second signal kills at once.
    """

    def __init__(self, checkpoints: Checkpoints | None, requeue_signal: signal.Signals | None) -> None:
        self.checkpoints, self.requeue_signal = checkpoints, requeue_signal
        # What the handler noted, and what all processes know of it: it may come while they agree.
        self._noted = self.signum = 0
        self._asked = False  # a request that is kept from the loop until the step is whole
        self._handlers: dict[signal.Signals, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._patience = [each.patience for each in trainer.early_stopping_callbacks]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have the settings of this start decide on what the checkpoint brought with it."""
        self._agreement = Agreement(trainer)
        for early, patience in zip(trainer.early_stopping_callbacks, self._patience, strict=True):
            early.patience = patience  # Lightning restores the checkpoint's
        if self.checkpoints and stands(self.checkpoints.asked, trainer):
            trainer.should_stop = True
        else:
            for early in trainer.early_stopping_callbacks:
                early.stopping_reason = EarlyStoppingReason.NOT_STOPPED
        # While it restores its loops: with a limit of steps it would take an epoch that is done for one under way.
        self._max_steps, trainer.fit_loop.epoch_loop.max_steps = trainer.max_steps, -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the handlers, over Lightning's own, which would end the run in the middle of a step."""
        trainer.fit_loop.epoch_loop.max_steps = self._max_steps
        for each in callbacks_of(trainer):
            if isinstance(each, GradientAccumulationScheduler):  # it acts where an epoch starts, not where one resumes
                trainer.accumulate_grad_batches = each.get_accumulate_grad_batches(trainer.current_epoch)
        if threading.current_thread() is not threading.main_thread():  # no other can
            return
        self._pid = os.getpid()
        for signum in {signal.SIGINT, signal.SIGTERM, self.requeue_signal or signal.SIGTERM}:
            if signal.getsignal(signum) != signal.SIG_IGN:  # the parent process wants it ignored, `nohup` say
                self._handlers[signum] = signal.signal(signum, self._note)

    def on_train_batch_end(self, trainer: Trainer, _: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._agree(trainer)
        if trainer.is_last_batch:  # the epoch's own checkpoint follows, and Lightning's loop decides
            trainer.should_stop |= self._asked
        elif not _validation_follows(trainer):  # a run that resumes before a validation would leave it out
            self._end_if_asked(trainer)
        elif heeded(trainer):
            self._keep_request(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._agree(trainer)
        if not (trainer.sanity_checking or trainer.is_last_batch):
            self._end_if_asked(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._agree(trainer)
        if self.signum:
            self._interrupt(trainer, f"epoch {trainer.current_epoch}", {})
        if heeded(trainer):
            self._keep_request(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule, exception: Any = None) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    on_exception = on_train_end

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch, epochs, asked = epochs_done(trainer), trainer.max_epochs, request(trainer)
        if asked and epoch != epochs:
            remedy = self._remedy(trainer, asked["way_on"]) if self.checkpoints else "nothing is kept"
            tqdm.write(f"stopped after epoch {epoch} of {epochs}: {asked['reason']}; {remedy}")

    def _agree(self, trainer: Trainer) -> None:
        """Have all processes stop at the same step, though the signal or the request may have reached but one."""
        self.signum, stop = self._agreement.largest(self._noted, trainer.should_stop)
        trainer.should_stop = bool(stop)

    def _keep_request(self, trainer: Trainer) -> None:
        self._asked, trainer.should_stop = True, False

    def _end_if_asked(self, trainer: Trainer) -> None:
        """Save and end the run after a signal, a request or the last step, unless gradients still accumulate."""
        if heeded(trainer):
            self._keep_request(trainer)
        step, asks = trainer.fit_loop.epoch_loop.batch_idx + 1, self._asked or trainer.global_step == trainer.max_steps
        if not (self.signum or asks) or step % trainer.accumulate_grad_batches:
            return
        trainer.should_stop |= self._asked
        asked = request(trainer) if asks else {}
        if self._asked and not any(asked["by"].values()):  # not early stopping: whoever it was decides again
            trainer.should_stop, asked["way_on"] = False, "resume with"
        if self.checkpoints:
            trainer.save_checkpoint(self.checkpoints.path(trainer, INTERRUPTED))
        where = f"step {step} of {trainer.num_training_batches} in epoch {trainer.current_epoch + 1}"
        self._interrupt(trainer, where, {} if self.signum else asked)

    def _interrupt(self, trainer: Trainer, where: str, asked: dict[str, Any]) -> NoReturn:
        why = f": {asked['reason']}" if asked else ""
        if self.checkpoints is None:
            raise Interrupted(self.signum, f"stopped after {where}, nothing is kept{why}", "start it again")
        remedy = self._remedy(trainer, asked.get("way_on", "resume with"))
        raise Interrupted(self.signum, f"stopped and saved after {where}{why}", remedy)

    def _remedy(self, trainer: Trainer, way_on: str) -> str:
        command = f"python -m cifar_lightning fit --resume {shlex.quote(str(trainer.log_dir))}"
        return f"{way_on}: {command}" if way_on else SCHEDULE_ENDS

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a DataLoader's worker: Ctrl-C is not for it, and of a SIGTERM it dies
            return None if signum == signal.SIGINT else os._exit(128 + signum)
        self._noted = signum
        for each in self._handlers:
            signal.signal(each, signal.SIG_IGN if each == self.requeue_signal else signal.SIG_DFL)
        # Not print: it may have been interrupted in the middle of a line.
        with contextlib.suppress(OSError):  # the reader of a pipe may be gone
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"\nstopping after this step (again: at once)\n")


def _validation_follows(trainer: Trainer) -> bool:
    """Return whether Lightning validates after this step, which is not the epoch's last."""
    epochs, every = trainer.check_val_every_n_epoch, trainer.val_check_batch
    if not every or not trainer.enable_validation or (epochs and (trainer.current_epoch + 1) % epochs):
        return False
    loop = trainer.fit_loop.epoch_loop
    return ((loop.batch_idx if epochs else loop.total_batch_idx) + 1) % every == 0
