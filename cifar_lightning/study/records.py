"""What a study leaves to read: plan.json, a result.json a run, and results.csv. The report is made of these alone.

`plan.json` is a `Plan`: the command, and every point of every experiment with the address of the run that it reads.
Each run has a folder `EXPERIMENT/NAME/`, whose `result.json` is a `Record`. `results.csv` has a row a point, for
spreadsheets and pandas; seconds, which differ from one machine and day to the next, stand in `result.json` alone.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from cifar_lightning import files
from cifar_lightning.errors import InputError

SCHEMA = 1
PLAN, RESULT, TABLE = "plan.json", "result.json", "results.csv"

# Columns of results.csv behind those that name the point: figures of the last epoch, but for the best validation.
FIGURES = ("train/loss", "train/acc", "train_clean/loss", "train_clean/acc", "val/loss", "val/acc", "gap/loss")


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
        folder: The run's, below the study's.
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


@dataclass(frozen=True)
class Run:
    """A point with what came of it."""

    point: Point
    record: Record

    @cached_property
    def rows(self) -> list[dict[str, float]]:
        """The curves, up to the point's last epoch."""
        return self.record.rows[: self.point.epochs]

    @property
    def test(self) -> Test | None:
        """What the test set said, unless the run went on beyond this point."""
        return self.record.test if len(self.record.rows) <= self.point.epochs else None

    @cached_property
    def best(self) -> dict[str, float]:
        """The row of the highest `val/acc`, the first of equals."""
        return max(self.rows, key=lambda row: (row["val/acc"], -row["epoch"]))

    @property
    def last(self) -> dict[str, float]:
        """The row of the last epoch."""
        return self.rows[-1]

    @property
    def seconds(self) -> float:
        """How long its epochs took."""
        return sum(row["epoch_seconds"] for row in self.rows)


@dataclass(frozen=True)
class Variant:
    """The runs of one setting that differ in their seed alone.

    Attributes:
        experiment: Its name.
        name: What varies, in words.
        varied: What varies, dotted.
        runs: Those that are done, in the order of their seeds.
        failed: Those that failed.
        pending: Seeds that have not been run.
    """

    experiment: str
    name: str
    varied: dict[str, Any]
    runs: tuple[Run, ...]
    failed: tuple[Run, ...]
    pending: tuple[int, ...]


@dataclass(frozen=True)
class Study:
    """A plan with its records, for the report.

    Attributes:
        plan: The grid.
        records: By address.
        folder: Where they were read.
    """

    plan: Plan
    records: dict[str, Record]
    folder: Path

    @cached_property
    def experiments(self) -> dict[str, list[Variant]]:
        """The variants of each experiment, in the order of the configuration."""
        points: dict[str, dict[str, list[Point]]] = {}
        for point in self.plan.points:
            points.setdefault(point.experiment, {}).setdefault(point.variant, []).append(point)
        return {name: [self._variant(group) for group in groups.values()] for name, groups in points.items()}

    def _variant(self, points: list[Point]) -> Variant:
        points = sorted(points, key=lambda point: point.seed)
        runs = [Run(point, self.records[point.address]) for point in points if point.address in self.records]
        return Variant(
            points[0].experiment,
            points[0].variant,
            points[0].varied,
            tuple(run for run in runs if run.record.status == "done"),
            tuple(run for run in runs if run.record.status == "failed"),
            tuple(point.seed for point in points if point.address not in self.records),
        )


def write_plan(folder: Path, plan: Plan) -> None:
    """Writes plan.json."""
    files.replace(folder / PLAN, _json(plan))


def write_record(folder: Path, record: Record) -> None:
    """Writes a run's result.json into its folder, which need not be there: it may have failed before it had one."""
    folder.mkdir(parents=True, exist_ok=True)
    files.replace(folder / RESULT, _json(record))


def write_table(study: Study) -> None:
    """Writes results.csv."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(_table(study))
    files.replace(study.folder / TABLE, text.getvalue().encode())


def read(folder: Path) -> Study:
    """Reads a study's records.

    Raises:
        InputError: There are none in that folder, or they can't be understood.
    """
    return Study(_read_plan(folder / PLAN), records(folder), folder)


def records(folder: Path) -> dict[str, Record]:
    """The record of every run below a study's folder, by address.

    Raises:
        InputError: One can't be understood.
    """
    paths = sorted(path for path in folder.glob(f"*/*/{RESULT}") if not path.parent.is_symlink())
    found = [_read_record(path) for path in paths]
    return {record.address: record for record in found}


def _json(what: Plan | Record) -> bytes:
    return f"{json.dumps(asdict(what), indent=1)}\n".encode()


def _read_plan(path: Path) -> Plan:
    content = _read(path)
    try:
        return Plan(**content | {"points": [Point(**point) for point in content["points"]]})
    except (TypeError, KeyError) as error:
        raise InputError(str(path), f"not the plan of a study ({error})", "run `study` again") from None


def _read_record(path: Path) -> Record:
    content = _read(path)
    try:
        if test := content["test"]:
            content["test"] = Test(**test | {"mistakes": [Mistake(**each) for each in test["mistakes"]]})
        return Record(**content)
    except (TypeError, KeyError) as error:
        raise InputError(str(path), f"not the record of a run ({error})", "remove it and run `study` again") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise InputError(str(path), f"can't be read ({error.strerror})", "name the folder of a study") from None
    except ValueError:
        raise InputError(str(path), "damaged", "remove it and run `study` again") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise InputError(str(path), f"not of layout {SCHEMA}", "remove it and run `study` again")
    return content


def _table(study: Study) -> Iterator[list[Any]]:
    names = (
        "experiment",
        "variant",
        "model",
        "seed",
        "address",
        "status",
        "reason",
        "epochs",
        "best_epoch",
        "best_val/acc",
    )
    varied = sorted({name for point in study.plan.points for name in point.varied})
    yield [*names, *FIGURES, "test/loss", "test/acc", *varied, "folder"]
    for point in study.plan.points:
        record = study.records.get(point.address)
        if record is None:
            continue
        run = Run(point, record)
        model = str(record.settings.get("model.class_path", "")).rpartition(".")[2]
        yield [
            *(point.experiment, point.variant, model, point.seed, point.address, record.status, record.reason),
            *((len(run.rows), int(run.best["epoch"]), run.best["val/acc"]) if run.rows else (0, "", "")),
            *(run.last.get(name, "") if run.rows else "" for name in FIGURES),
            *((run.test.loss, run.test.acc) if run.test else ("", "")),
            *(record.settings.get(name, "") for name in varied),
            record.folder,
        ]
