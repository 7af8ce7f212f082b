"""Where a run can be killed, by name: before or after a function, or half-way through what it writes."""

import signal
from dataclasses import dataclass
from functools import partial
from typing import Literal

from tests.faults import children
from tests.faults.children import MODEL, When
from tests.faults.processes import Before


@dataclass(frozen=True)
class Point:
    """A place in the program where a run is killed."""

    name: str  # unique
    target: str  # a function, `package.module:Class.method`
    when: When  # `half`: half of what it writes, or of what is written to the file that it opens, is there
    nth: int = 1  # which of its calls
    named: str = ""  # only calls on a path of this name count, or of one that begins so if this ends with a dot
    during: Literal["fit", "resume", "interrupt"] = "fit"  # a new run; one that resumes; one that saves after SIGTERM

    @property
    def arm(self) -> Before:
        """Called in the process that is to be killed."""
        kill = partial(children.kill, self.target, self.nth, self.named, self.when)
        return partial(children.all_of, [TERMINATED, kill]) if self.during == "interrupt" else kill


CALLBACKS, CLI, RUNS = (f"cifar_lightning.{package}" for package in ("callbacks", "cli", "runs"))
OPEN, REPLACE = "pathlib:Path.open", "pathlib:Path.replace"
STEP, VALIDATION = f"{MODEL}.training_step", f"{MODEL}.validation_step"
SAMPLES = f"{CALLBACKS}.tensorboard:TensorBoardExtras.on_train_start"
APPEND = "tensorboard.compat.tensorflow_stub.io.gfile:LocalFileSystem.append"
WRITE_EVENT = "tensorboard.summary.writer.event_file_writer:EventFileWriter.add_event"
EPOCH_END = f"{CALLBACKS}.checkpoints:Checkpoints.on_train_epoch_end"

# In the middle of the second epoch.
TERMINATED = partial(children.signals, STEP, 24, [signal.SIGTERM])

# Of 15 steps and 6 batches of validation an epoch; what happens each epoch is killed in the second.
POINTS = [
    Point("folder", "pathlib:Path.mkdir", "after", named="version_0"),
    Point("config.yaml missing", f"{CLI}.lightning_cli:SaveConfig.save_config", "before"),
    Point("config.yaml half", OPEN, "half", named=".config.yaml.tmp"),
    Point("config.yaml there", f"{CLI}.lightning_cli:SaveConfig.save_config", "after"),
    Point("data not read", "cifar_lightning.data.datamodule:CIFAR10DataModule.setup", "before"),
    Point("no sample images yet", SAMPLES, "before"),
    Point("sample images there", SAMPLES, "after"),
    Point("first step", STEP, "before"),
    Point("last step of the first epoch", STEP, "after", 15),
    Point("mid-epoch", STEP, "after", 22),
    Point("first mid-validation", VALIDATION, "after", 2),
    Point("mid-validation", VALIDATION, "after", 8),
    Point("no row yet", f"{CALLBACKS}.history:History.on_train_epoch_end", "before", 2),
    Point("no row in metrics.csv", f"{RUNS}.metrics_csv:write", "before", 2),
    Point("metrics.csv half", OPEN, "half", 2, ".metrics.csv.tmp"),
    Point("metrics.csv ahead of the curves", f"{RUNS}.metrics_csv:write", "after", 2),
    Point("curves ahead of the checkpoint", EPOCH_END, "before", 2),
    Point("first metrics.csv, no checkpoint", f"{RUNS}.metrics_csv:write", "after", 1),
    Point("before the temporary file", OPEN, "before", 2, ".new.ckpt.tmp"),
    Point("first temporary file half", OPEN, "half", 1, ".new.ckpt.tmp"),
    Point("temporary file half", OPEN, "half", 2, ".new.ckpt.tmp"),
    Point("written, not on disk", "os:fsync", "before", 10),
    Point("on disk, not named", REPLACE, "before", 2, ".new.ckpt.tmp"),
    Point("named, folder not on disk", "os:fsync", "before", 11),
    Point("before the best's link", "cifar_lightning.utils.files:link", "before"),
    Point("linked, not named best", "os:link", "after"),
    Point("after the best's link", "cifar_lightning.utils.files:link", "after"),
    Point("before the last becomes the previous", REPLACE, "before", 1, "last.ckpt"),
    Point("no last", REPLACE, "after", 1, "last.ckpt"),
    Point("the new one is last, no one else", REPLACE, "after", 1, "new.ckpt"),
    Point("after the epoch", EPOCH_END, "after", 2),
    Point("after the last epoch", EPOCH_END, "after", 3),
    Point("trained", f"{CALLBACKS}.console:Console.on_fit_end", "before"),
    Point("chosen", f"{CLI}.starting_point:newest", "after", during="resume"),
    Point("before the new event file", WRITE_EVENT, "before", 1, during="resume"),
    Point("new event file, nothing purged", WRITE_EVENT, "before", 2, during="resume"),
    Point("purge record half", APPEND, "half", 2, during="resume"),
    Point("purged, not repaired", f"{CLI}.lightning_cli:repair", "before", during="resume"),
    Point("metrics.csv repaired", f"{RUNS}.metrics_csv:write", "after", during="resume"),
    Point("repaired", f"{CLI}.lightning_cli:repair", "after", during="resume"),
    Point("config.yaml half again", OPEN, "half", named=".config.yaml.tmp", during="resume"),
    Point("history loaded", f"{CALLBACKS}.history:History.load_state_dict", "after", during="resume"),
    Point("generators set", f"{CALLBACKS}.epoch_seed:EpochSeed.on_train_start", "after", during="resume"),
    Point("first step again", STEP, "after", during="resume"),
    Point("interrupted half", OPEN, "half", named=".interrupted.ckpt.tmp", during="interrupt"),
    Point("interrupted, not named", REPLACE, "before", named=".interrupted.ckpt.tmp", during="interrupt"),
    Point("interrupted, named", REPLACE, "after", named=".interrupted.ckpt.tmp", during="interrupt"),
]

# Curves and metrics.csv are an epoch further than the checkpoint: the most there can be to repair.
AHEAD = next(point for point in POINTS if point.name == "curves ahead of the checkpoint")

# Functions without which a run does not resume exactly; whether it must have been stopped within an epoch to show.
SABOTAGE = {
    "no reseeding": (f"{CALLBACKS}.epoch_seed:EpochSeed.on_train_epoch_start", False),
    "no history": (f"{CALLBACKS}.history:History.load_state_dict", False),
    "generators not restored": (f"{CALLBACKS}.epoch_seed:EpochSeed.load_state_dict", True),
    "epoch zeroed": ("cifar_lightning.data.loader:Batches.set_epoch", False),
    "batches not left out": ("cifar_lightning.data.loader:BatchLoader.load_state_dict", True),
    "sums of the epoch dropped": (f"{MODEL}.on_load_checkpoint", True),
    "curves not purged": (f"{CLI}.lightning_cli:purge_step", False),
}
