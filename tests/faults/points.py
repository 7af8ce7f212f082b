"""Where a run can be killed, by name: before or after a function, or half-way through what it writes."""

import os
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tests.faults.nursery import at_call, wrapped


@dataclass
class Point:
    """A place in the program.

    Attributes:
        name: For people.
        target: A function, `package.module:Class.method`.
        when: `half` cuts off what is written to the file that the function opens.
        nth: Which of its calls.
        named: Only calls on a path of this name, or one that begins so if it ends with a dot, count.
        during: What is killed: a new run; one that goes on after a kill; one that saves after a SIGTERM.
    """

    name: str
    target: str
    when: Literal["before", "after", "half"]
    nth: int = 1
    named: str = ""
    during: Literal["fit", "resume", "interrupt"] = "fit"

    def given(self) -> dict[str, Any]:
        """As the nursery passes it on to `arm`."""
        return asdict(self)


CALLBACKS, REPLACE = "cifar_lightning.callbacks", "pathlib:Path.replace"
STEP = "cifar_lightning.models.base:ImageClassifier.training_step"

# Of 15 steps and 6 batches of validation an epoch; what happens each epoch is killed in the second.
POINTS = [
    Point("folder", "cifar_lightning.runs.logger:RunLogger._get_next_version", "after"),
    Point("config.yaml missing", "cifar_lightning.cli.run_parts:SaveConfig.setup", "before"),
    Point("config.yaml half", "pathlib:Path.open", "half", named=".config.yaml.tmp"),
    Point("config.yaml there", "cifar_lightning.cli.run_parts:SaveConfig.setup", "after"),
    Point("data not read", "cifar_lightning.data.datamodule:CIFAR10DataModule.setup", "before"),
    Point("no pictures yet", f"{CALLBACKS}.tensorboard:TensorBoardExtras.on_train_start", "before"),
    Point("pictures there", f"{CALLBACKS}.tensorboard:TensorBoardExtras.on_train_start", "after"),
    Point("first step", STEP, "before"),
    Point("last step of the first epoch", STEP, "after", 15),
    Point("mid-epoch", STEP, "after", 22),
    Point("first mid-validation", "cifar_lightning.models.base:ImageClassifier.validation_step", "after", 2),
    Point("mid-validation", "cifar_lightning.models.base:ImageClassifier.validation_step", "after", 8),
    Point("no row yet", f"{CALLBACKS}.history:History.on_train_epoch_end", "before", 2),
    Point("no row in metrics.csv", "cifar_lightning.runs.metrics_csv:write", "before", 2),
    Point("metrics.csv half", "pathlib:Path.open", "half", 2, ".metrics.csv.tmp"),
    Point("metrics.csv ahead of the curves", "cifar_lightning.runs.metrics_csv:write", "after", 2),
    Point("curves ahead of the checkpoint", f"{CALLBACKS}.checkpoints:Checkpoints.on_train_epoch_end", "before", 2),
    Point("first metrics.csv, no checkpoint", "cifar_lightning.runs.metrics_csv:write", "after", 1),
    Point("before the temporary file", "pathlib:Path.open", "before", 2, ".new.ckpt.tmp"),
    Point("first temporary file half", "pathlib:Path.open", "half", 1, ".new.ckpt.tmp"),
    Point("temporary file half", "pathlib:Path.open", "half", 2, ".new.ckpt.tmp"),
    Point("written, not on disk", "os:fsync", "before", 10),
    Point("on disk, not named", REPLACE, "before", 2, ".new.ckpt.tmp"),
    Point("named, folder not on disk", "os:fsync", "before", 11),
    Point("before the best's link", "cifar_lightning.utils.files:link", "before"),
    Point("linked, not named best", "os:link", "after"),
    Point("after the best's link", "cifar_lightning.utils.files:link", "after"),
    Point("before the last becomes the previous", REPLACE, "before", 1, "last.ckpt"),
    Point("no last", REPLACE, "after", 1, "last.ckpt"),
    Point("the new one is last, no one else", REPLACE, "after", 1, "new.ckpt"),
    Point("after the epoch", f"{CALLBACKS}.checkpoints:Checkpoints.on_train_epoch_end", "after", 2),
    Point("after the last epoch", f"{CALLBACKS}.checkpoints:Checkpoints.on_train_epoch_end", "after", 3),
    Point("trained", f"{CALLBACKS}.console:Console.on_fit_end", "before"),
    Point("chosen", "cifar_lightning.cli.starting_point:newest", "after", during="resume"),
    Point("not put right", "cifar_lightning.cli.lightning_cli:repair", "before", during="resume"),
    Point("event file half", "pathlib:Path.open", "half", named=".events.", during="resume"),
    Point("event files joined, the old not named", REPLACE, "before", named=".events.", during="resume"),
    Point("curves put right, metrics.csv not", "cifar_lightning.runs.events:repair", "after", during="resume"),
    Point("put right", "cifar_lightning.cli.lightning_cli:repair", "after", during="resume"),
    Point("config.yaml half again", "pathlib:Path.open", "half", named=".config.yaml.tmp", during="resume"),
    Point("history loaded", f"{CALLBACKS}.history:History.load_state_dict", "after", during="resume"),
    Point("generators set", f"{CALLBACKS}.epoch_seed:EpochSeed.on_train_start", "after", during="resume"),
    Point("first step again", STEP, "after", during="resume"),
    Point("interrupted half", "pathlib:Path.open", "half", named=".interrupted.ckpt.tmp", during="interrupt"),
    Point("interrupted, not named", REPLACE, "before", named=".interrupted.ckpt.tmp", during="interrupt"),
    Point("interrupted, named", REPLACE, "after", named=".interrupted.ckpt.tmp", during="interrupt"),
]


def arm(given: dict[str, Any]) -> None:
    """Has this process kill itself at a point."""
    point = Point(**given)
    if point.during == "interrupt":
        signal_at(22)
    calls = 0

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def armed(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += _counts(point, args)
            now = _counts(point, args) and calls == point.nth
            if now and point.when == "before":
                die()
            result = function(*args, **kwargs)
            if now and point.when == "after":
                die()
            return HalfWritten(result) if now and point.when == "half" else result

        return armed

    wrapped(point.target, wrap)


def signal_at(step: int) -> None:
    """Has this process send itself a SIGTERM in a training step, 1 for the first."""
    at_call(STEP, step, lambda: os.kill(os.getpid(), signal.SIGTERM))


def die() -> None:
    """Kills this process as the system would: nothing is flushed, no `finally` runs."""
    os.kill(os.getpid(), signal.SIGKILL)


class HalfWritten:
    """A file that gets half of what is written, and the process no further."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __enter__(self) -> "HalfWritten":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, content: bytes) -> None:
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        die()


def _counts(point: Point, args: tuple[Any, ...]) -> bool:
    if not point.named:
        return True
    name = args[0].name if args and isinstance(args[0], Path) else ""
    return name.startswith(point.named) if point.named.endswith(".") else name == point.named
