"""What a study leaves to read. The report is made of these alone.

`plan.json` is a `Plan`: the command, and every point of every experiment with the address of the run that it reads.
Each run has a folder `EXPERIMENT/NAME/`, whose `result.json` is a `Record`. `results.csv` has a row a point, for
spreadsheets and pandas; seconds, which differ from one machine and day to the next, stand in `result.json` alone.
`store.py` writes and reads them, `results.py` joins them.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A test image that was taken for something else.

    Attributes:
        image: Its number in the official order, from 0.
        true: Its class.
        predicted: The class it was taken for.
        probability: How sure the network was of that, 0 to 1.
        png: The image as a PNG file, in Base64.
    """

    image: int
    true: str
    predicted: str
    probability: float
    png: str


@dataclass(frozen=True, kw_only=True)
class Test:
    """What `test` and `predict` say of a run's best checkpoint.

    Attributes:
        loss: Mean cross-entropy, in nats.
        acc: Fraction of the test images.
        classes: Their names, in the order of the labels.
        confusion_matrix: Counts; row = true class, column = predicted class.
        mistakes: Those it was surest of, the surest first.
    """

    __test__ = False  # to pytest it is no test

    loss: float
    acc: float
    classes: list[str]
    confusion_matrix: list[list[int]]
    mistakes: list[Mistake] = field(default_factory=list)

    @property
    def per_class_acc(self) -> dict[str, float]:
        """The fraction of each class's images that were recognised."""
        pairs = enumerate(zip(self.classes, self.confusion_matrix, strict=True))
        return {name: row[i] / max(1, sum(row)) for i, (name, row) in pairs}


@dataclass(frozen=True, kw_only=True)
class Record:
    """What came of one run; the content of its result.json.

    Attributes:
        address: What identifies it, in hexadecimal: a hash of settings, seed, source of the images and code.
        status: `done`, or `failed`.
        reason: Why it failed.
        command: What to type to repeat it.
        folder: Where its record is, below the study's folder; what `fit` left is in `version_0` there.
        seed: Of weights, order and masks.
        source: `cifar10` or `synthetic`.
        settings: All that was set, dotted: `model.dropout`. (`model.class_path` names the architecture.)
        parameters: Numbers that were learnt.
        images_per_epoch: Images trained on in an epoch.
        rows: The curves, a row an epoch, named as in metrics.csv.
        test: What the test set said; None where it was not asked.
        environment: What it ran on and with: versions, machine, threads, precision, commit, and the hashes of code
            and data (`data` is that of the images and labels of the split, in their order).
        schema: Version of this layout.
    """

    address: str
    status: Literal["done", "failed"]
    reason: str = ""
    command: str
    folder: str
    seed: int
    source: str
    settings: dict[str, Any]
    parameters: int = 0
    images_per_epoch: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    test: Test | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True)
class Point:
    """A place in the grid, and the run that stands there.

    Attributes:
        experiment: Its name in the study's configuration.
        variant: What varies, in words: `batch_size=10`; the experiment's name where nothing does.
        varied: What varies, dotted: `{"data.batch_size": 10}`.
        seed: Of the run.
        epochs: How many of the run's epochs count here: one run may serve a longer experiment too.
        address: Of the run.
    """

    experiment: str
    variant: str
    varied: dict[str, Any]
    seed: int
    epochs: int
    address: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The whole grid.

    Attributes:
        command: What was typed.
        points: In the order of the configuration.
        schema: Version of this layout.
    """

    command: str
    points: list[Point]
    schema: int = SCHEMA
