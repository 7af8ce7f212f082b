"""Run a command and turn whatever ends it into an exit status: the engine behind `python -m cifar_lightning`."""

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pkgutil import resolve_name
from types import FrameType
from typing import TYPE_CHECKING

from cifar_lightning.cli import launch
from cifar_lightning.errors import InputError, Interrupted, causes
from cifar_lightning.utils.rank import rank

if TYPE_CHECKING:  # it takes seconds
    from cifar_lightning.cli.lightning_cli import CLI

OURS = "cifar_lightning.cli.lightning_cli:CLI"


def guarded(command: Callable[[Sequence[str]], int], args: Sequence[str]) -> int:
    """Run a command; print what went wrong as one line, with a traceback only after `--debug`.

    Return 0 if it is done, 1 if it failed while running, 2 for wrong input, 130 after Ctrl-C, 143 after SIGTERM.
    """
    try:
        with contextlib.ExitStack() as stack:
            launch.follow()
            stack.enter_context(launch.rank_zero_speaks())
            if threading.current_thread() is threading.main_thread():  # only the main thread may set handlers
                for name in {"SIGINT", "SIGTERM", "SIGUSR1"} & {*signal.Signals.__members__}:  # Windows lacks the last
                    signum = signal.Signals[name]
                    if signum != signal.SIGINT or signal.getsignal(signum) == signal.default_int_handler:  # not ignored
                        stack.callback(signal.signal, signum, signal.signal(signum, _interrupt))
            try:
                return command([arg for arg in args if arg != "--debug"])
            except BrokenPipeError:  # the reader of our output, `head` say, has closed it
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return 1
            except Exception as error:
                if interruption(error):
                    raise
                if "--debug" in args:
                    traceback.print_exc(file=launch.stderr())
                return report_error(error)
    except BaseException as error:
        if interrupted := interruption(error):
            if not rank():
                print(interrupted, file=sys.stderr)
            return interrupted.status
        raise
    finally:
        _RECEIVED.clear()


_RECEIVED: list[int] = []  # signals that were to end the command


def _interrupt(signum: int, frame: FrameType | None) -> None:
    _RECEIVED.append(signum)
    # It ends the program through every `finally`.
    raise KeyboardInterrupt if signum == signal.SIGINT else Interrupted(signum)


def interruption(error: BaseException) -> Interrupted | None:
    """Return the signal that an exception tells of, if it is of one."""
    for each in causes(error):  # Lightning and extension modules turn the exception of a signal into others
        if isinstance(each, KeyboardInterrupt | Interrupted):
            return each if isinstance(each, Interrupted) else Interrupted(signal.SIGINT)
    # An extension module may drop it for an error of its own: matplotlib's "Invalid bounding box", one time in 300.
    return Interrupted(_RECEIVED[0]) if _RECEIVED else None


def report_error(error: Exception) -> int:
    """Print one line on what went wrong, unless another process of this command has, and return the exit status."""
    from cifar_lightning.cli.error_messages import explain  # imports Lightning, which takes seconds

    text, status = explain(error)
    if not launch.told(error, status):
        print(f"error: {text}", file=launch.stderr())
    return status


def lightning(args: Sequence[str], cli: str = OURS) -> int:
    """Run `fit`, `validate`, `test` or `predict` and return the exit status; raises what goes wrong."""
    refused = run(args, cli).datamodule.refused
    for error in refused:
        print(f"error: {error}", file=sys.stderr)
    return 1 if refused else 0


def run(args: Sequence[str], cli: str = OURS) -> "CLI":
    """Run one of Lightning's commands by the `CLI` of that import path; raises what goes wrong."""
    with _alone(args), launch.processes(args) as processes, launch.rank_zero_speaks():
        import torch

        from cifar_lightning.cli.quiet import be_quiet
        from cifar_lightning.utils import performance

        be_quiet()
        performance.prepare()
        try:
            made: CLI = resolve_name(cli)(args, processes)
            return made
        finally:
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()  # another command of this process makes its own


@contextlib.contextmanager
def _alone(args: Sequence[str]) -> Iterator[None]:
    """Refuse a command while another thread is at one: both would draw from the one random generator of the process."""
    if not _AT_WORK.acquire(blocking=False):
        cause = "another thread of this process is at work, and its random numbers would change"
        raise InputError(" ".join(args[:1]), cause, "wait for it, or give each a process of its own")
    try:
        yield
    finally:
        _AT_WORK.release()


_AT_WORK = threading.RLock()  # a callback may run a command within its own
