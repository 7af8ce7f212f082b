"""TensorBoard's logger, in the folder of one run."""

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.tensorboard import SummaryWriter

from cifar_lightning.runs.layout import EVENTS, VERSION, versions
from cifar_lightning.utils import files
from cifar_lightning.utils.rank import rank

# Each stage has event files in a folder of its own, which TensorBoard takes for a run: so one card shows all three.
STAGES = ("train", "train_clean", "val")
CURVES = "curves"  # their tag; the first page opens on the first tags in alphabetical order


class RunLogger(TensorBoardLogger):
    """Writes event files to LOGS/NAME/version_N, and no hparams.yaml beside the config.yaml that holds them all.

    TensorBoard hides superseded points by their x alone, so each folder has one kind of it. Directly in the run's:
    steps from 0, as Lightning counts them (what a model or a callback logs). In the folder of a stage: epochs from 1,
    with `train/loss` as `curves/loss`; what belongs to no stage is with `train`.

    Args:
        runs: LOGS/NAME. ModelCheckpoint puts its files below it, too.
        run: A run that exists; None makes a new version.
        done: Steps and epochs that a run to train in has behind it: later points of earlier event files are hidden, for
            they are written again. None hides nothing.
    """

    def __init__(self, runs: Path, run: Path | None = None, done: tuple[int, int] | None = (0, 0)) -> None:
        steps, epochs = done or (None, None)
        super().__init__(runs, name="", default_hp_metric=False, purge_step=steps)
        self.runs, self.run = runs, run
        self.purge_epoch = epochs + 1 if epochs else epochs
        self.writers: dict[str, SummaryWriter] = {}  # by stage
        if run and not rank():
            # TensorBoard reads event files by name, which tells the second: none may begin in that of the last.
            begun = [int(path.name.split(".")[3]) for path in run.rglob(EVENTS)]
            time.sleep(min(1, max(0, max(begun, default=0) + 1 - time.time())))

    @property
    def log_dir(self) -> str:
        """The run's folder, made when it is first asked for; of two runs that start at once, each gets its own.

        Rank zero alone knows it, and makes it; `Trainer.log_dir` tells the others.
        """
        if rank():
            return str(self.runs)
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

    @rank_zero_only
    def log_epoch(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Write the points of one epoch, from 1."""
        for tag, value in metrics.items():
            stage, _, name = tag.partition("/")
            if stage in STAGES:
                self.writer(stage).add_scalar(f"{CURVES}/{name}", value, epoch)
            else:
                self.writer(STAGES[0]).add_scalar(tag, value, epoch)

    @rank_zero_only
    def save(self) -> None:
        """Bring the event files to disk: a checkpoint that counts on them must not survive them."""
        if self.purge_epoch is not None:  # what is stale is hidden in all stages, whether or not they get new points
            for stage in STAGES:
                if (Path(self.log_dir) / stage).is_dir():
                    self.writer(stage)
        for writer in (self.experiment, *self.writers.values()):
            writer.flush()
        for path in Path(self.log_dir).rglob(EVENTS):
            files.sync(path)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        super().finalize(status)
        for writer in self.writers.values():
            writer.close()

    def writer(self, stage: str) -> SummaryWriter:
        """Return what writes the points of a stage, by epochs."""
        if stage not in self.writers:
            folder = Path(self.log_dir) / stage
            purge_step = self.purge_epoch if any(folder.glob(EVENTS)) else 0  # the first file starts a session
            self.writers[stage] = SummaryWriter(str(folder), purge_step=purge_step)
        return self.writers[stage]
