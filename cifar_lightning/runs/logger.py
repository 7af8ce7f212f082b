"""TensorBoard's logger, in the folder of one run."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter

from cifar_lightning.runs.layout import EVENTS, VERSION, versions
from cifar_lightning.utils import files

# Each stage has event files in a folder of its own, which TensorBoard takes for a run: so one card shows all three.
STAGES = ("train", "train_clean", "val")
CURVES = "curves"  # their tag; the first page opens on the first tags in alphabetical order


class RunLogger(TensorBoardLogger):
    """Writes event files to LOGS/NAME/version_N, and no hparams.yaml beside the config.yaml that holds them all.

    `train/loss` goes to the folder `train` below it as `curves/loss`, and likewise for each stage; other metrics stay.

    Args:
        runs: LOGS/NAME. ModelCheckpoint puts its files below it, too.
        run: A run that exists; None makes a new version.
        purge_step: Hides the points of earlier event files from this step on: they are written again.
    """

    def __init__(self, runs: Path, run: Path | None = None, purge_step: int | None = None) -> None:
        super().__init__(runs, name="", default_hp_metric=False, purge_step=purge_step)
        self.runs, self.run, self.purge_step = runs, run, purge_step
        self.writers: dict[str, SummaryWriter] = {}  # by stage

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

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write the points of one step."""
        others = {}
        for tag, value in metrics.items():
            stage, _, name = tag.partition("/")
            if stage in STAGES:
                self._writer(stage).add_scalar(f"{CURVES}/{name}", value, step)
            else:
                others[tag] = value
        super().log_metrics(others, step)

    def save(self) -> None:
        """Bring the event files to disk: a checkpoint that counts on them must not survive them."""
        if self.purge_step is not None:  # to be known on disk for all stages, before metrics.csv is repaired
            for stage in STAGES:
                if (Path(self.log_dir) / stage).is_dir():
                    self._writer(stage)
        for writer in (self.experiment, *self.writers.values()):
            writer.flush()
        for path in Path(self.log_dir).rglob(EVENTS):
            files.sync(path)

    def finalize(self, status: str) -> None:
        super().finalize(status)
        for writer in self.writers.values():
            writer.close()

    def _writer(self, stage: str) -> SummaryWriter:
        if stage not in self.writers:
            folder = Path(self.log_dir) / stage
            purge_step = self.purge_step if any(folder.glob(EVENTS)) else 0  # the first file starts a session
            self.writers[stage] = SummaryWriter(str(folder), purge_step=purge_step)
        return self.writers[stage]
