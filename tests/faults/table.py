"""The parts of a row in the table of faults, and the place that each row is tried in."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import pytest

from tests.faults.compare import differences
from tests.faults.processes import Before

# As small as a run can be that still has several steps and an epoch before its last.
SMALL: Final = (
    "--data.source=synthetic --data.train_size=200 --data.val_size=100 --data.train_clean_size=50 "
    "--data.batch_size=50 --trainer.accelerator=cpu --trainer.max_epochs=2"
)
FIT: Final = f"fit --model=MLP --model.width=8 {SMALL}"
RUN, NEW = "logs/mlp-synthetic/version_0", "logs/mlp-synthetic/version_1"
RESUME: Final = f"fit --resume={RUN}"
BEST, LAST = f"{RUN}/checkpoints/best.ckpt", f"{RUN}/checkpoints/last.ckpt"
# What training writes into an old and into a new run's folder.
OLD_RUN: Final = tuple(f"{RUN}/{name}" for name in ("config.yaml", "metrics.csv", "events.*", "checkpoints/*"))
NEW_RUN: Final = (NEW, f"{NEW}/*")


@dataclass
class Place:
    """A folder with a finished run, that a command works in."""

    folder: Path  # the working folder; all names in a row are relative to it
    whole: Path  # the same run, not to be written to
    canary: Path  # a file that no payload may ever create, outside of the folder
    patch: pytest.MonkeyPatch  # undone after the command
    stack: ExitStack  # closed after the row
    words: dict[str, str] = field(default_factory=dict)  # placeholders in a row's command, a port say, and their values

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file; `CANARY` in a text stands for the canary's path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.replace("CANARY", str(self.canary)).encode() if isinstance(content, str) else content)
        return path

    @property
    def payload(self) -> "Payload":
        return Payload(str(self.canary))

    def check_whole(self, run: str) -> None:
        """Assert that a run ended as if there had been no fault."""
        found = differences(self.folder / run, self.whole)
        assert found == [], found


class Payload:
    """Creates the canary when it is unpickled."""

    def __init__(self, canary: str) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


# Brings a fault about, or asserts what must hold afterwards.
Step = Callable[[Place], object]
# Does damage to a path.
Damage = Callable[[Place, Path], object]


def nothing(place: Place) -> None:
    """The fault is in the command alone."""


@dataclass(frozen=True)
class Fault:
    """One row: a fault and what must come of it."""

    title: (
        str  # unique; with a star before it the row is typical of its kind and runs by default, the others are `slow`
    )
    command: str  # as typed; the keys of `Place.words` are replaced
    status: int  # exit status
    says: tuple[str, ...] = ()  # what the error lines must contain; with status 0, what the output must
    make: Step = nothing  # brings the fault about
    changes: tuple[str, ...] = ()  # patterns of what may appear or change
    errors: int | None = None  # error lines; by default one, or none with status 0 or if a signal killed
    then: Step = nothing  # asserts what must hold afterwards
    child: Before | None = None  # called first in a process of its own; without it the command runs in this process

    @property
    def name(self) -> str:
        return self.title.removeprefix("*")

    @property
    def typical(self) -> bool:
        return self.title.startswith("*")

    @property
    def error_lines(self) -> int:
        return (self.status > 0) if self.errors is None else self.errors

    def allows(self, name: str) -> bool:
        """Return whether a file may appear or change; a lock may, a temporary file may not."""
        allowed = name.endswith(".lock") or any(fnmatch(name, pattern) for pattern in self.changes)
        return allowed and not name.endswith(".tmp")


# The rows of each kind: what is broken, and what must notice.
Table = dict[str, list[Fault]]


def crossed(first: str, second: str) -> str:
    """Join two names of a generated row, which is typical if both are."""
    star = "*" if first.startswith("*") and second.startswith("*") else ""
    return f"{star}{first.removeprefix('*')} {second.removeprefix('*')}"


def snapshot(folder: Path) -> dict[str, object]:
    """Return everything below a folder with its content."""
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        if path.is_symlink():
            content: object = path.readlink()
        else:
            content = path.read_bytes() if path.is_file() else path.stat().st_mode
        found[str(path.relative_to(folder))] = content
    return found
