"""The files of a run: every name stands here, once."""

from pathlib import Path
from typing import Self

BEST, LAST, PREVIOUS, INTERRUPTED = "best.ckpt", "last.ckpt", "previous.ckpt", "interrupted.ckpt"
NEW = "new.ckpt"  # a checkpoint that is on disk and has not got its name yet
OWN = (BEST, LAST, PREVIOUS, INTERRUPTED, NEW)  # all others in the folder are a person's, and left alone
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
        self.job = path / "slurm_job.json"  # the SLURM job that began it, and its command

    @classmethod
    def of_checkpoint(cls, path: Path) -> Self:
        """Return the run that keeps a checkpoint; if it is of none, having been copied, the folder it lies in."""
        for folder in (*path.parents, *path.absolute().parents):  # a name with a slash makes folders in `checkpoints`
            if folder.name == "checkpoints" and cls(folder.parent).config.is_file():
                return cls(folder.parent)
        return cls(path.parent)

    def exists(self) -> bool:
        """Return whether there is what a run leaves first."""
        return self.config.is_file() or self.checkpoints.is_dir()

    def checkpoint(self, name: str) -> Path:
        """Return the path of one of OWN."""
        return self.checkpoints / name

    def best(self) -> Path:
        """Return the path of the best checkpoint, of the last where nothing is validated."""
        best, last = self.checkpoint(BEST), self.checkpoint(LAST)
        return last if last.is_file() and not best.exists() else best


def versions(runs: Path) -> list[tuple[int, Path]]:
    """Return number and folder of every run of one name."""
    named = ((path.name.removeprefix(VERSION), path) for path in runs.glob(f"{VERSION}*"))
    return [(int(number), path) for number, path in named if number.isdigit()]
