"""What a row of the table of faults is, and the place that each is tried in."""

import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import pytest

from tests.faults.compare import differences

# As small as a run can be that still has several steps and an epoch before its last.
SMALL: Final = (
    "--data.source=synthetic --data.train_size=200 --data.val_size=100 --data.train_clean_size=50 "
    "--data.batch_size=50 --trainer.accelerator=cpu --trainer.max_epochs=2"
)
FIT: Final = f"fit --model=MLP --model.width=8 {SMALL}"
RUN: Final = "logs/mlp-synthetic/version_0"
NEW: Final = "logs/mlp-synthetic/version_1"
BEST, LAST, PREVIOUS = (f"{RUN}/checkpoints/{name}.ckpt" for name in ("best", "last", "previous"))
# What training writes into an old and into a new run's folder.
GOES_ON: Final = tuple(f"{RUN}/{name}" for name in ("config.yaml", "metrics.csv", "events.*", "checkpoints/*"))
GOES_NEW: Final = (NEW, f"{NEW}/*")


@dataclass
class Place:
    """A folder with a finished run, that a command works in.

    Attributes:
        folder: The working folder; all names in a row are relative to it.
        whole: The same run, not to be written to.
        canary: What no payload may ever create; it lies outside of the folder.
        patch: Undone after the row.
        stack: Closed after the row.
        words: What stands for what in a row's command, a port say.
        nursery: Starts processes; asked for only by the rows that need one.
    """

    folder: Path
    whole: Path
    canary: Path
    patch: pytest.MonkeyPatch
    stack: ExitStack
    words: dict[str, str]
    nursery: Callable[[], Any]

    def write(self, name: str, content: str | bytes) -> Path:
        """Writes a file, `CANARY` in a text standing for the canary's path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content.encode().replace(b"CANARY", bytes(self.canary)) if isinstance(content, str) else content
        path.write_bytes(text)
        return path

    @property
    def payload(self) -> "Payload":
        """An object that creates the canary when it is unpickled."""
        return Payload(str(self.canary))


class Payload:
    """What an attacker pickles."""

    def __init__(self, canary: str) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


Step = Callable[[Place], object]


def nothing(place: Place) -> None:
    """The fault is in the command alone."""


@dataclass(frozen=True)
class Fault:
    """One row: a fault and what must come of it.

    Attributes:
        name: Unique.
        command: What is typed; words of `Place.words` are replaced.
        status: Exit status.
        says: What the line of the error must hold; with status 0, what must be said at all.
        make: Brings the fault about.
        changes: Patterns of what may appear or change.
        errors: Lines of errors; by default one, or none with status 0 or if a signal killed.
        then: What must hold afterwards.
        child: What is called first in a process of its own, a function of `tests.faults.children`; else in this one.
        given: What that function is called with.
        slow: Takes over five seconds.
    """

    name: str
    command: str
    status: int
    says: tuple[str, ...] = ()
    make: Step = nothing
    changes: tuple[str, ...] = ()
    errors: int | None = None
    then: Step = nothing
    child: str = ""
    given: Any = None
    slow: bool = False

    @property
    def error_lines(self) -> int:
        """How many lines of errors there must be."""
        return (self.status > 0) if self.errors is None else self.errors

    def allows(self, name: str) -> bool:
        """Whether a file may appear or change; a temporary one may not."""
        return any(fnmatch(name, pattern) for pattern in self.changes) and not name.endswith(".tmp")


def snapshot(folder: Path) -> dict[str, object]:
    """Everything below a folder, with its content."""
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        if path.is_symlink():
            content: object = path.readlink()
        else:
            content = path.read_bytes() if path.is_file() else path.stat().st_mode
        found[str(path.relative_to(folder))] = content
    return found


def unlike(run: Path, whole: Path) -> list[str]:
    """What is not in one run as in the other, as `compare.differences` has it.

    Less the bytes of the hyper-parameters: they hold a map, whose order is another one in each process.
    """
    return [found for found in differences(run, whole) if "_hparams_/session_start_info" not in found]


def files(**contents: str | bytes) -> Step:
    """Writes files into the folder: `a_yaml` is `a.yaml`."""

    def make(place: Place) -> None:
        for name, content in contents.items():
            place.write(".".join(name.rsplit("_", 1)), content)

    return make


def both(*steps: Step) -> Step:
    """One step after another."""

    def make(place: Place) -> None:
        for step in steps:
            step(place)

    return make


def removed(name: str) -> Step:
    """Removes a file or a folder."""

    def make(place: Place) -> None:
        path = place.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return make
