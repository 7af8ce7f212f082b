"""The files of a run: every name stands here, once."""

from pathlib import Path
from typing import Self

BEST, LAST, PREVIOUS, INTERRUPTED = "best.ckpt", "last.ckpt", "previous.ckpt", "interrupted.ckpt"
NEW = "new.ckpt"  # a checkpoint that is on disk and has not got its name yet
EVENTS = "events.out.tfevents.*"
VERSION = "version_"  # a run's folder is LOGS/NAME/version_N


def tagged(name: str, source: str) -> str:
    """Return the name of a run, marked if its images are the stand-in."""
    return f"{name}-synthetic" if source == "synthetic" else name


class RunFolder:
    """Paths of the files that a run leaves in its folder."""

    def __init__(self, path: Path) -> None:
        self.path, self.checkpoints = path, path / "checkpoints"
        self.config = path / "config.yaml"  # all settings, for `fit --config`
        self.metrics = path / "metrics.csv"  # the curves, a row per epoch
        self.test, self.predictions = path / "test.json", path / "predictions.csv"  # results of the commands

    @classmethod
    def of_checkpoint(cls, path: Path) -> Self:
        """Return the run that a checkpoint belongs to: the folder it lies in, if it was copied elsewhere."""
        return cls(path.parent.parent if path.parent.name == "checkpoints" else path.parent)

    def exists(self) -> bool:
        """Return whether there is what a run leaves first."""
        return self.config.is_file() or self.checkpoints.is_dir()

    def checkpoint(self, name: str) -> Path:
        """Return the path of BEST, LAST, PREVIOUS, INTERRUPTED or NEW."""
        return self.checkpoints / name


def versions(runs: Path) -> list[tuple[int, Path]]:
    """Return number and folder of every run of one name."""
    named = ((path.name.removeprefix(VERSION), path) for path in runs.glob(f"{VERSION}*"))
    return [(int(number), path) for number, path in named if number.isdigit()]
