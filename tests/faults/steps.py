"""Steps of the rows in the table of faults: what brings a fault about, and what is asserted afterwards."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from cifar_lightning.__main__ import main
from tests.faults.table import Damage, Place, Step


def written(name: str, content: str | bytes) -> Step:
    return lambda place: place.write(name, content)


def both(*steps: Step) -> Step:
    return lambda place: [step(place) for step in steps]


def damaged(damage: Damage, *names: str) -> Step:
    return lambda place: [damage(place, place.folder / name) for name in names]


def content(change: Callable[[bytes], bytes]) -> Damage:
    return lambda place, path: path.write_bytes(change(path.read_bytes()))


def removed(place: Place, path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def folder(place: Place, path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def pipe(place: Place, path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def unreadable(place: Place, path: Path) -> None:
    path.touch()
    path.chmod(0)


def resumes(run: str) -> Step:
    """Return the check that a run resumes, and ends as the whole one."""

    def check(place: Place) -> None:
        for path in (place.folder / run).rglob("*"):
            path.chmod(0o755)
        assert main(["fit", f"--resume={run}"]) == 0
        place.check_whole(run)

    return check
