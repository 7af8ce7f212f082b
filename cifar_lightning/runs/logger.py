"""TensorBoard's logger, in the folder of one run."""

import contextlib
from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger

from cifar_lightning.runs.layout import EVENTS, VERSION, versions
from cifar_lightning.utils import files


class RunLogger(TensorBoardLogger):
    """Writes event files to LOGS/NAME/version_N, and no hparams.yaml beside the config.yaml that holds them all.

    Args:
        runs: LOGS/NAME. ModelCheckpoint puts its files below it, too.
        run: A run that exists; None makes a new version.
        purge_step: Hides the points of earlier event files from this step on: they are written again.
    """

    def __init__(self, runs: Path, run: Path | None = None, purge_step: int | None = None) -> None:
        super().__init__(runs, name="", default_hp_metric=False, purge_step=purge_step)
        self.runs, self.run = runs, run

    @property
    def log_dir(self) -> str:
        """The run's folder, made when it is first asked for; of two runs that start at once, each gets its own."""
        if self.run is None:
            self.runs.mkdir(parents=True, exist_ok=True)
            number = max(versions(self.runs), default=(-1, self.runs))[0]
            while self.run is None:
                number += 1
                with contextlib.suppress(FileExistsError):
                    (self.runs / f"{VERSION}{number}").mkdir()
                    self.run = self.runs / f"{VERSION}{number}"
        return str(self.run)

    @property
    def version(self) -> str:
        return Path(self.log_dir).name

    def save(self) -> None:
        """Bring the event files to disk: a checkpoint that counts on them must not survive them."""
        self.experiment.flush()
        for path in Path(self.log_dir).glob(EVENTS):
            files.sync(path)
