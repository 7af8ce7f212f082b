"""Run a command and turn whatever ends it into an exit status: the engine behind `python -m cifar_lightning`."""

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from cifar_lightning.errors import Interrupted


def run(args: Sequence[str]) -> int:
    """Run `fit`, `validate`, `test` or `predict` in this process.

    Args:
        args: The command and its flags, as typed.

    Returns:
        Exit status: 0 done, 1 failed while running, 2 wrong input, 130 for Ctrl-C, 143 for SIGTERM.
    """
    return guarded(lightning, args)


def guarded(command: Callable[[Sequence[str]], int], args: Sequence[str]) -> int:
    """Run a command; print what went wrong as one line, with a traceback only after `--debug`.

    Args:
        command: Takes its arguments (without `--debug`) and returns an exit status.
        args: As typed.

    Returns:
        Exit status, as `run`.
    """
    try:
        with _sigterm_raises():
            return command([arg for arg in args if arg != "--debug"])
    except BrokenPipeError:  # the reader of our output, `head` say, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except BaseException as error:
        if interrupted := _interruption(error):
            print(f"error: {interrupted}", file=sys.stderr)
            return interrupted.status
        if not isinstance(error, Exception):
            raise
        if "--debug" in args:
            traceback.print_exc()
        return report_error(error)


def report_error(error: Exception) -> int:
    """Print one line on what went wrong and return the exit status for it."""
    from cifar_lightning.cli.error_messages import explain  # imports Lightning, which takes seconds

    message = explain(error)
    print(f"error: {message.text}", file=sys.stderr)
    return message.status


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


def _interruption(error: BaseException | None) -> Interrupted | None:
    """Find the signal that ended a command: Lightning and extension modules turn its exception into others."""
    while error:
        if isinstance(error, Interrupted):
            return error
        if isinstance(error, KeyboardInterrupt):
            return Interrupted(signal.SIGINT)
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Let SIGTERM end the program as Ctrl-C does: through every `finally`."""

    def end(signum: int, frame: FrameType | None) -> None:
        raise Interrupted(signum)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
