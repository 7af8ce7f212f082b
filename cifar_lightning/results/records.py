"""The records of a study; the report is made of these alone.

`plan.json` is a `Plan`: every point of every experiment, with the address of the run that serves it. Each run has a
folder `EXPERIMENT/NAME/`, whose `result.json` is a `Record`. `store.py` writes and reads them, `tables.py` joins them.
"""

import base64
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from msgspec import Meta, Struct

NEEDED = {"epoch", "epoch_seconds", "val/acc"}  # in every row: the report counts on them


class Mistake(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A test image that was taken for another class."""

    image: int  # its number in the official order, from 0
    true: str
    predicted: str
    probability: float  # of the predicted class, 0 to 1
    png: str  # the image as a PNG file, in Base64

    def __post_init__(self) -> None:
        if not base64.b64decode(self.png, validate=True).startswith(b"\x89PNG"):
            raise ValueError("Expected png to be a PNG file in Base64")


class Test(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Results on the test set, of a run's best checkpoint."""

    __test__ = False  # to pytest it is no test

    loss: float  # mean cross-entropy in nats
    acc: float  # fraction of the test images
    classes: list[str]  # in the order of the labels
    confusion_matrix: list[list[int]]  # counts; row = true class, column = predicted class
    mistakes: list[Mistake] = []  # the most probable ones, in descending order

    def __post_init__(self) -> None:
        if {len(self.confusion_matrix), *map(len, self.confusion_matrix)} != {len(self.classes)}:
            raise ValueError("Expected confusion_matrix to have a row and a column per class")

    @property
    def per_class_acc(self) -> dict[str, float]:
        """The recall of each class, 0 to 1."""
        pairs = enumerate(zip(self.classes, self.confusion_matrix, strict=True))
        return {name: row[i] / max(1, sum(row)) for i, (name, row) in pairs}


class Record(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The result of one run; the content of its result.json."""

    address: str  # a hash of settings, seed, source and recipe, in hexadecimal
    status: Literal["started", "done", "failed"]  # started: without results; it tells whose the folder is
    reason: str = ""  # why it failed
    command: str  # repeats the run
    folder: str  # of this record, below the study's; what `fit` left is in version_0 there
    seed: int  # of weights, order and masks
    source: str  # of the images: cifar10 or synthetic
    # The parsed configuration, dotted: model.dropout (model.class_path names the architecture). Of the Trainer only the
    # settings that differ from its defaults, and nothing of the machine.
    settings: dict[str, Any]
    parameters: int = 0
    images_per_epoch: int = 0  # trained on
    steps_per_epoch: int = 0
    rows: list[dict[str, float]] = []  # the curves, a row per epoch, named as in metrics.csv
    test: Test | None = None  # None where the test set was not asked
    # Versions, machine, threads, precision, commit, recipe, and the hash of the data (images and labels of the split).
    environment: dict[str, Any] = {}
    schema: Literal[2] = 2

    def __post_init__(self) -> None:
        if self.status == "done" and not self.rows:
            raise ValueError("rows: Expected at least one")
        if not all(row.keys() >= NEEDED for row in self.rows):
            raise ValueError(f"Expected {', '.join(sorted(NEEDED))} in rows")


class Point(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A point of the plan, and the run that serves it."""

    experiment: str  # its name in the study's configuration
    variant: str  # what varies, as text: batch_size=10; the experiment's name where nothing does
    varied: dict[str, Any]  # what varies, dotted: {"data.batch_size": 10}
    seed: int
    epochs: Annotated[int, Meta(ge=1)]  # how many of the run's count here: it may serve a longer experiment too
    address: str  # of the run


class Plan(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All points of a study."""

    command: str  # as typed
    points: list[Point]  # in the order of the configuration
    schema: Literal[2] = 2


class Study(NamedTuple):
    """A plan, and by address the records of its runs, as they are in a folder."""

    plan: Plan
    records: dict[str, Record]
    folder: Path
