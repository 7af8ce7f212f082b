"""The files of a run: every name stands here, once."""

from dataclasses import dataclass
from pathlib import Path

BEST, LAST, PREVIOUS, INTERRUPTED = "best.ckpt", "last.ckpt", "previous.ckpt", "interrupted.ckpt"
NEW = "new.ckpt"  # a checkpoint that is on disk and has not got its name yet

EVENTS = "events.out.tfevents.*"
VERSION = "version_"  # what `fit` names a run's folder: version_0, version_1


@dataclass(frozen=True)
class RunFolder:
    """Paths of what a run leaves.

    Attributes:
        path: The folder: LOGS/NAME/version_N.
    """

    path: Path

    @property
    def config(self) -> Path:
        """All settings, for `fit --config`."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """The curves, a row per epoch."""
        return self.path / "metrics.csv"

    @property
    def test(self) -> Path:
        """Results of `test`."""
        return self.path / "test.json"

    @property
    def predictions(self) -> Path:
        """Results of `predict`."""
        return self.path / "predictions.csv"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    def checkpoint(self, name: str) -> Path:
        """One of them: BEST, LAST, PREVIOUS, INTERRUPTED or NEW."""
        return self.checkpoints / name

    @classmethod
    def of_checkpoint(cls, path: Path) -> "RunFolder":
        """The run that a checkpoint belongs to; the folder it lies in, if it was copied elsewhere."""
        return cls(path.parent.parent if path.parent.name == "checkpoints" else path.parent)
