"""Exceptions that end a command: each becomes one line on stderr and an exit status."""

import signal
from collections.abc import Iterator


class ReportedError(Exception):
    """Something to report in one line, `field: cause; remedy`, and nothing more.

    Args:
        field: The setting, the file or the metric, named as the person wrote it: `dropout`, `logs/best.ckpt`.
        cause: What is wrong with it, the value included.
        remedy: What to do next.
    """

    status = 1

    def __init__(self, field: str, cause: str, remedy: str) -> None:
        super().__init__(field, cause, remedy)  # what pickle makes it anew from, in another process
        self.field, self.cause, self.remedy = field, cause, remedy

    def __str__(self) -> str:
        return f"{self.field}: {self.cause}; {self.remedy}"


class InputError(ReportedError, ValueError):
    """Something a person gave can't be used: a setting, a file, a checkpoint."""

    status = 2


class RunError(ReportedError, RuntimeError):
    """Something went wrong while running, with nothing wrong in what was given."""


class SharedError(RunError):
    """One that all processes of a command raise at the same step: rank zero tells it."""


class Interrupted(BaseException):  # no Exception: nothing on its way may take it for a failure
    """A signal asked the program to end, or a setting (0). Exit status 0 or 128 + its number: 130 for Ctrl-C."""

    def __init__(self, signum: int, cause: str = "stopped at once", remedy: str = "start it again") -> None:
        name = f"{signal.Signals(signum).name}: " if signum else ""
        super().__init__(f"{name}{cause}; {remedy}")
        self.signum, self.status = signum, 128 + signum if signum else 0


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception, then the one that it was raised from or while handling, and so on."""
    while error:
        yield error
        error = error.__cause__ or error.__context__


def check(holds: bool, field: str, value: object, allowed: str) -> None:
    """Raise an `InputError` that names the field, the value and what is allowed, unless `holds`."""
    if not holds:
        raise InputError(field, f"{value!r} is not possible", f"use {allowed}")
