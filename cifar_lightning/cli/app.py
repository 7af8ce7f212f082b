"""Run a command and turn whatever ends it into an exit status: the engine behind `python -m cifar_lightning`."""

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from types import FrameType

from cifar_lightning.errors import Interrupted, causes


def run(args: Sequence[str]) -> int:
    """Run `fit`, `validate`, `test` or `predict` in this process and return the exit status, as `guarded`."""
    return guarded(lightning, args)


def guarded(command: Callable[[Sequence[str]], int], args: Sequence[str]) -> int:
    """Run a command; print what went wrong as one line, with a traceback only after `--debug`.

    Return 0 if it is done, 1 if it failed while running, 2 for wrong input, 130 after Ctrl-C, 143 after SIGTERM.
    """
    try:
        with contextlib.ExitStack() as stack:
            if threading.current_thread() is threading.main_thread():  # only the main thread may set handlers
                stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _interrupt))
            return command([arg for arg in args if arg != "--debug"])
    except BrokenPipeError:  # the reader of our output, `head` say, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except BaseException as error:
        for each in causes(error):  # Lightning and extension modules turn the exception of a signal into others
            if isinstance(each, KeyboardInterrupt | Interrupted):
                interrupted = each if isinstance(each, Interrupted) else Interrupted(signal.SIGINT)
                print(f"error: {interrupted}", file=sys.stderr)
                return interrupted.status
        if not isinstance(error, Exception):
            raise
        if "--debug" in args:
            traceback.print_exc()
        return report_error(error)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise Interrupted(signum)  # SIGTERM ends the program as Ctrl-C does: through every `finally`


def report_error(error: Exception) -> int:
    """Print one line on what went wrong and return the exit status for it."""
    try:
        from cifar_lightning.cli.error_messages import explain  # imports Lightning, which takes seconds

        text, status = explain(error)
    except KeyboardInterrupt:
        text, status = str(Interrupted(signal.SIGINT)), 128 + signal.SIGINT
    print(f"error: {text}", file=sys.stderr)
    return status


def lightning(args: Sequence[str]) -> int:
    """Run a command of the LightningCLI; raises what goes wrong."""
    from cifar_lightning.cli.lightning_cli import CLI
    from cifar_lightning.cli.warning_filters import be_quiet
    from cifar_lightning.utils import performance

    be_quiet()
    performance.prepare()
    refused = CLI(args).datamodule.refused
    for error in refused:
        print(f"error: {error}", file=sys.stderr)
    return 1 if refused else 0
