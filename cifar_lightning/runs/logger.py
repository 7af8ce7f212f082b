"""TensorBoard's logger, in the folder of one run."""

from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger

from cifar_lightning.runs.layout import EVENTS, VERSION
from cifar_lightning.utils import files


class RunLogger(TensorBoardLogger):
    """Writes event files to LOGS/NAME/version_N, and no hparams.yaml beside the config.yaml that holds them all.

    Args:
        logs: Folder of all runs.
        name: Of the run.
        run: A run that exists; None makes a new version.
        purge_step: Hides the points of earlier event files from this step on: they are written again.
    """

    def __init__(self, logs: str, name: str, *, run: Path | None = None, purge_step: int | None = None) -> None:
        super().__init__(logs, name, default_hp_metric=False, purge_step=purge_step)
        self.run = run

    @property
    def log_dir(self) -> str:
        """The run's folder, made when it is first asked for."""
        if self.run is None:
            self.run = new_run(Path(self.root_dir))
        return str(self.run)

    @property
    def version(self) -> str:
        """The folder's name."""
        return Path(self.log_dir).name

    def save(self) -> None:
        """Bring the event files to disk: a checkpoint that counts on them must not survive them."""
        self.experiment.flush()
        for path in Path(self.log_dir).glob(EVENTS):
            files.sync(path)


def new_run(runs: Path) -> Path:
    """Make the next version_N; of two runs that start at once, each gets its own."""
    runs.mkdir(parents=True, exist_ok=True)
    taken = (path.name.removeprefix(VERSION) for path in runs.glob(f"{VERSION}*"))
    number = max((int(text) for text in taken if text.isdigit()), default=-1) + 1
    while True:
        try:
            (runs / f"{VERSION}{number}").mkdir()
        except FileExistsError:
            number += 1
        else:
            return runs / f"{VERSION}{number}"
