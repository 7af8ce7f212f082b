"""The parts of a row in the table of faults, and the place that each row is tried in."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.faults.processes import Before

# As small as a run can be that still has several steps and an epoch before its last.
SMALL: Final = (
    "--data.source=synthetic --data.train_size=200 --data.val_size=100 --data.train_clean_size=50 "
    "--data.batch_size=50 --trainer.accelerator=cpu --trainer.max_epochs=2"
)
FIT: Final = f"fit --name=mlp --model=MLP --model.width=8 {SMALL}"
RUN, NEW = "logs/mlp-synthetic/version_0", "logs/mlp-synthetic/version_1"
RESUME: Final = f"fit --resume={RUN}"
BEST, LAST = f"{RUN}/checkpoints/best.ckpt", f"{RUN}/checkpoints/last.ckpt"
# What training writes into an old and into a new run's folder.
OLD_RUN: Final = tuple(
    f"{RUN}/{name}" for name in ("config.yaml", "metrics.csv", "events.*", "*/events.*", "checkpoints/*")
)
NEW_RUN: Final = (NEW, f"{NEW}/*")
# Beside the folder with a finished run that each row works in: what no payload may create, and the run to read only.
CANARY, WHOLE = Path("../canary"), Path("../whole")


class Place(NamedTuple):
    patch: pytest.MonkeyPatch  # undone after the command
    stack: ExitStack  # closed after the row


# Brings a fault about, or asserts what must hold afterwards; names of files are relative to the working folder.
Step = Callable[[Place], object]
# Does damage to a file.
Damage = Callable[[Path], object]


def nothing(place: Place) -> None:
    """The fault is in the command alone."""


@dataclass(frozen=True)
class Fault:
    """One row: a fault and what must come of it."""

    title: str  # unique; with a star before it the row is typical of its kind and runs by default, others are `slow`
    command: str  # as in a shell; CANARY and variables are replaced
    status: int  # exit status
    says: tuple[str, ...] = ()  # what the error lines must contain; with status 0, what the output must
    make: Step = nothing  # brings the fault about
    changes: tuple[str, ...] = ()  # patterns of what may appear or change
    errors: int | None = None  # error lines; by default one, or none with status 0 or after a signal
    then: Step = nothing  # asserts what must hold afterwards
    child: Before | None = None  # called first in a process of its own; without it the command runs in this process


def crossed(first: str, second: str) -> str:
    """Join two names of a generated row, which is typical if both are."""
    star = "*" if first.startswith("*") and second.startswith("*") else ""
    return f"{star}{first.removeprefix('*')} {second.removeprefix('*')}"


class Payload:
    """Creates the canary when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {CANARY}",)
