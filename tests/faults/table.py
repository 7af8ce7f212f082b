"""The parts of a row in the table of faults: a command, the steps that bring the fault about, and what must follow."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

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
PREDICTIONS: Final = f"{RUN}/predictions.csv"
# What training writes into an old and into a new run's folder.
OLD_RUN: Final = tuple(
    f"{RUN}/{name}" for name in ("config.yaml", "metrics.csv", "events.*", "*/events.*", "checkpoints/*")
)
NEW_RUN: Final = (NEW, f"{NEW}/*")
# Beside the folder with a finished run that each row works in: what no payload may create, and the run to read only.
CANARY, WHOLE = Path("../canary"), Path("../whole")

# Does damage to a file; a text or bytes instead become its content.
Damage = Callable[[Path], object] | str | bytes
# Patches or starts something while the command is at work.
Make = Callable[[], AbstractContextManager[object]]
Then = Callable[[], object]


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.replace("CANARY", str(CANARY)).encode() if isinstance(content, str) else content)


def damage(files: Mapping[str, Damage]) -> None:
    """Do to each file, or to those of a pattern, what is to be done to it."""
    for name, how in files.items():
        for path in Path().glob(name) if "*" in name else [Path(name)]:
            write(path, how) if isinstance(how, str | bytes) else how(path)


@dataclass(frozen=True)
class Fault:
    """One row: a fault and what must come of it; names of files are relative to the working folder."""

    title: str  # unique
    command: str  # as in a shell; CANARY and variables are replaced
    status: int  # exit status
    says: tuple[str, ...] = ()  # what the error lines must contain; with status 0, what the output must
    files: Mapping[str, Damage] = field(default_factory=dict)  # for `damage`
    changes: tuple[str, ...] = ()  # patterns of what may appear or change
    make: Make = nullcontext  # entered once the files are damaged
    errors: int | None = None  # error lines; by default one, or none with status 0 or after a signal
    then: Then | None = None  # asserts what must hold afterwards
    child: Before | None = None  # called first in a process of its own; without it the command runs in this process


# A text is a kind of fault, and the row behind it typical of that kind.
Table = list[str | Fault]
