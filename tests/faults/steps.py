"""Steps of the rows in the table of faults: what brings a fault about, and what is asserted afterwards."""

import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cifar_lightning.__main__ import main
from tests.faults.compare import differences
from tests.faults.table import CANARY, NEW, RUN, WHOLE, Damage, Place, Step


def write(name: str, content: str | bytes) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.replace("CANARY", str(CANARY)).encode() if isinstance(content, str) else content)


def written(name: str, content: str | bytes) -> Step:
    return lambda place: write(name, content)


def both(*steps: Step) -> Step:
    return lambda place: [step(place) for step in steps]


def damaged(damage: Damage, *names: str) -> Step:
    return lambda place: [damage(Path(name)) for name in names]


def content(change: Callable[[bytes], bytes]) -> Damage:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def gone(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def replaced(make: Callable[[Path], object], path: Path) -> None:
    path.unlink(missing_ok=True)
    make(path)


folder: Damage = partial(replaced, Path.mkdir)
pipe: Damage = partial(replaced, os.mkfifo)
dangling: Damage = partial(os.symlink, "nowhere")


def check_whole(run: str) -> None:
    found = differences(Path(run), WHOLE)
    assert found == [], found


def resumes(run: str, place: Place) -> None:
    """Assert that a run resumes, and ends as the whole one."""
    for path in Path(run).rglob("*"):
        path.chmod(0o755)
    # TensorBoard reads event files by the second and the process in their names: not two in one second.
    time.sleep(1 - time.time() % 1)
    assert main(["fit", f"--resume={run}"]) == 0
    check_whole(run)


old_resumes, new_resumes = partial(resumes, RUN), partial(resumes, NEW)
