"""Studies made by hand, every number of them known.

study(tmp_path, {
    "cnn": [record(curve(50, val_acc=(0.5, 0.77)), seed=0, test=outcome(0.76))],
    "batch_size": [record(curve(20, val_acc=0.7), {"data.batch_size": size}) for size in (10, 100)],
})
"""

import base64
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from msgspec import to_builtins
from msgspec.structs import replace
from PIL import Image

from cifar_lightning.results import store
from cifar_lightning.results.records import Mistake, Plan, Point, Record, Study, Test

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
SETTINGS = {"model.batch_norm": True, "model.dropout": 0.5, "model.lr": 0.001, "data.batch_size": 100}
ENVIRONMENT = {"torch": "2.15.0", "machine": "a machine", "threads": 2, "commit": "c0ffee", "data": "da7a"}

# What each experiment varies; those that are not named here vary nothing.
VARIED = {
    "batch_size": ("data.batch_size",),
    "batch_size_updates": ("data.batch_size",),
    "batch_size_scaled": ("data.batch_size", "model.lr"),
    "dropout": ("model.dropout",),
    "learning_rate": ("model.lr",),
}

Course = float | Sequence[float]


def curve(
    epochs: int,
    *,
    train_loss: Course = 1.0,
    train_acc: Course = 0.6,
    clean_loss: Course = 0.9,
    clean_acc: Course = 0.65,
    val_loss: Course = 1.1,
    val_acc: Course = 0.55,
    seconds: Course = 10.0,
) -> list[dict[str, float]]:
    """Rows as in metrics.csv. Each figure is one number, (first, last) with a straight line between, or all of them."""
    figures = {
        "train/loss": _values(train_loss, epochs),
        "train/acc": _values(train_acc, epochs),
        "val/loss": _values(val_loss, epochs),
        "val/acc": _values(val_acc, epochs),
        "train_clean/loss": _values(clean_loss, epochs),
        "train_clean/acc": _values(clean_acc, epochs),
        "epoch_seconds": _values(seconds, epochs),
    }
    rows = [{name: values[i] for name, values in figures.items()} for i in range(epochs)]
    return [
        {
            "epoch": epoch,
            **row,
            "gap/loss": row["val/loss"] - row["train_clean/loss"],
            "gap/acc": row["train_clean/acc"] - row["val/acc"],
            "lr": 0.001,
        }
        for epoch, row in enumerate(rows, start=1)
    ]


def _values(course: Course, epochs: int) -> list[float]:
    if isinstance(course, float | int):
        return [float(course)] * epochs
    if len(course) == epochs:
        return list(course)
    first, last = course
    return [first + (last - first) * i / max(1, epochs - 1) for i in range(epochs)]


def outcome(acc: float, *, loss: float = 1.0, mistakes: int = 1) -> Test:
    """1,000 images a class, as many recognised in each; the others are taken for the next class."""
    right = round(1000 * acc)
    matrix = [[right if i == j else 1000 - right if j == (i + 1) % 10 else 0 for j in range(10)] for i in range(10)]
    return Test(
        loss=loss, acc=acc, classes=CLASSES, confusion_matrix=matrix, mistakes=[_mistake(i) for i in range(mistakes)]
    )


def _mistake(image: int) -> Mistake:
    return Mistake(image=image, true="cat", predicted="dog", probability=0.99, png=_png())


@cache
def _png() -> str:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "gray").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def record(
    rows: Sequence[Mapping[str, float]] = (),
    settings: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    model: str = "CNN",
    test: Test | None = None,
    failed: str = "",
    source: str = "cifar10",
    images: int = 40_000,
    environment: Mapping[str, Any] = ENVIRONMENT,
) -> Record:
    """What came of one run with these settings instead of the defaults; `failed` is the reason why it did."""
    all_settings = {"model.class_path": f"cifar_lightning.models.{model}", **SETTINGS, **(settings or {})}
    content = json.dumps(
        [all_settings, seed, source, images, list(map(dict, rows)), failed, test and to_builtins(test)]
    )
    return Record(
        address=hashlib.sha256(content.encode()).hexdigest()[:16],
        status="failed" if failed else "done",
        reason=failed,
        command=f"python -m cifar_lightning fit --config configs/{model.lower()}.yaml --seed_everything {seed}",
        folder="",  # `study` knows it
        seed=seed,
        source=source,
        settings=all_settings,
        parameters=150_000,
        images_per_epoch=images,
        steps_per_epoch=min(
            images // all_settings["data.batch_size"], all_settings.get("trainer.limit_train_batches", images)
        ),
        rows=[{name: float(value) for name, value in row.items()} for row in rows],
        test=test,
        environment=dict(environment),
    )


def study(
    folder: Path,
    experiments: Mapping[str, Iterable[Record]],
    *,
    epochs: Mapping[str, int] | None = None,
    pending: Mapping[str, Sequence[int]] | None = None,
) -> Study:
    """A study in memory.

    Args:
        folder: Its own. Nothing is written there: `write` does that.
        experiments: The records of each. The same record may stand in several.
        epochs: How many count, of an experiment whose runs went on for longer.
        pending: Seeds of an experiment's first variant that were not run.
    """
    points: list[Point] = []
    found: dict[str, Record] = {}
    for experiment, those in experiments.items():
        for each in those:
            length = (epochs or {}).get(experiment, len(each.rows) if each.status == "done" else 50)
            varied = {name: each.settings[name] for name in VARIED.get(experiment, ())}
            point = Point(
                experiment=experiment,
                variant=_words(varied) or experiment,
                varied=varied,
                seed=each.seed,
                epochs=length,
                address=each.address,
            )
            points.append(point)
            name = ",".join(filter(None, (_words(varied), f"seed={each.seed}")))
            found.setdefault(each.address, replace(each, folder=f"{experiment}/{name}"))
    for experiment, seeds in (pending or {}).items():
        nothing = Point(experiment=experiment, variant=experiment, varied={}, seed=0, epochs=50, address="")
        like = next((point for point in points if point.experiment == experiment), nothing)
        points += [replace(like, seed=seed, address=f"pending-{experiment}-{seed}") for seed in seeds]
    return Study(
        Plan(command="python -m cifar_lightning study --config configs/study.yaml", points=points), found, folder
    )


def _words(varied: Mapping[str, Any]) -> str:
    return ",".join(f"{name.rpartition('.')[2]}={json.dumps(value)}" for name, value in varied.items())


def write(made: Study) -> Path:
    """Writes it to its folder, as the command `study` does: plan.json, results.csv and each run's result.json."""
    made.folder.mkdir(parents=True, exist_ok=True)
    for each in made.records.values():
        (made.folder / each.folder).mkdir(parents=True, exist_ok=True)
        store.write_record(made.folder / each.folder, each)
    store.write_plan(made.folder, made.plan)
    store.write_table(made)
    return made.folder
