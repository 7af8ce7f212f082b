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
    """Paths of the files that a run leaves in its folder.

    Attributes:
        path: The folder.
        config: All settings, for `fit --config`.
        metrics: The curves, a row per epoch.
        test: Results of `test`.
        predictions: Results of `predict`.
        checkpoints: The folder of checkpoints.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config, self.metrics = path / "config.yaml", path / "metrics.csv"
        self.test, self.predictions = path / "test.json", path / "predictions.csv"
        self.checkpoints = path / "checkpoints"

    @classmethod
    def of_checkpoint(cls, path: Path) -> Self:
        """Return the run that a checkpoint belongs to: the folder it lies in, if it was copied elsewhere."""
        return cls(path.parent.parent if path.parent.name == "checkpoints" else path.parent)

    def checkpoint(self, name: str) -> Path:
        """Return the path of BEST, LAST, PREVIOUS, INTERRUPTED or NEW."""
        return self.checkpoints / name
