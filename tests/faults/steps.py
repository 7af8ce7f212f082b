"""Damage to files in the table of faults, and assertions on runs afterwards."""

import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from cifar_lightning.__main__ import main
from cifar_lightning.runs.checkpoint import load
from tests.faults.compare import differences
from tests.faults.table import CANARY, NEW, RUN, WHOLE


class Payload:
    """Creates the canary when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {CANARY}",)


def content(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def gone(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def replaced(make: Callable[[Path], object], path: Path) -> None:
    path.unlink(missing_ok=True)
    make(path)


folder, pipe = partial(replaced, Path.mkdir), partial(replaced, os.mkfifo)
dangling = partial(os.symlink, "nowhere")


def is_whole(*runs: str) -> None:
    """Assert that runs are as the finished one."""
    for run in runs:
        found = differences(Path(run), WHOLE)
        assert found == [], found


def resumes(run: str) -> None:
    """Assert that a run resumes, and ends as the whole one."""
    for path in Path(run).rglob("*"):
        path.chmod(0o755)
    # TensorBoard reads event files by the second and the process in their names: not two in one second.
    time.sleep(1 - time.time() % 1)
    assert main(["fit", f"--resume={run}"]) == 0
    is_whole(run)


def trained(steps: int) -> None:
    """Assert that the new run's last checkpoint is of this step."""
    assert load(Path(f"{NEW}/checkpoints/last.ckpt"))["global_step"] == steps


old_resumes, new_resumes = partial(resumes, RUN), partial(resumes, NEW)
