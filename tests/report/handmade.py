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
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import to_builtins
from msgspec.structs import replace
from PIL import Image

from cifar_lightning.results import store
from cifar_lightning.results.records import Mistake, Plan, Point, Record, Study, Test

NOWHERE = Path("nowhere")  # of studies that are not written
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
SETTINGS = {"model.batch_norm": True, "model.dropout": 0.5, "model.lr": 0.001, "data.batch_size": 100}
ENVIRONMENT = {"torch": "2.15.0", "machine": "a machine", "threads": 2, "commit": "c0ffee", "data": "da7a"}
# What each experiment varies; those that are not named here vary nothing.
VARIED = {"batch_size": ["data.batch_size"], "batch_size_updates": ["data.batch_size"], "dropout": ["model.dropout"]}
VARIED |= {"batch_size_scaled": ["data.batch_size", "model.lr"], "learning_rate": ["model.lr"]}
SCALING, SCALED = (
    "model.dropout_scaling",
    ("cnn", "cnn_no_batch_norm", "batch_size", "dropout", "mlp", "mlp_no_batch_norm"),
)
VARIED |= {f"{name}_dropout_scaling": [SCALING, *VARIED.get(name, [])] for name in SCALED}
DEFAULTS = {"train/loss": 1.0, "train/acc": 0.6, "train_clean/loss": 0.9, "train_clean/acc": 0.65}
DEFAULTS |= {"val/loss": 1.1, "val/acc": 0.55, "epoch_seconds": 10.0, "lr": 0.001}
NAMES = {"seconds": "epoch_seconds", "clean_loss": "train_clean/loss", "clean_acc": "train_clean/acc"}
COMMAND = "python -m cifar_lightning study --config configs/study.yaml"

Course = float | Sequence[float]


def curve(epochs: int, **courses: Course) -> list[dict[str, float]]:
    """Return rows as in metrics.csv: `val_acc=0.5`, or (first, last) with a straight line between, or all of them."""
    rows = [{"epoch": i + 1.0} for i in range(epochs)]
    given = {NAMES.get(name, name.replace("_", "/")): course for name, course in courses.items()}
    for name, course in {**DEFAULTS, **given}.items():
        each = [course] * epochs if isinstance(course, float | int) else course
        values = each if len(each) == epochs else np.linspace(each[0], each[1], epochs)
        for row, value in zip(rows, values, strict=True):
            row[name] = float(value)
    return rows


def outcome(acc: float, *, loss: float = 1.0, mistakes: int = 1) -> Test:
    """Return a test of 1,000 images per class, as many recognised in each; the others are taken for the next class."""
    right, file = round(1000 * acc), io.BytesIO()
    matrix = np.eye(10, dtype=int) * right + np.roll(np.eye(10, dtype=int), 1, axis=1) * (1000 - right)
    Image.new("RGB", (32, 32), "gray").save(file, "PNG")
    png = base64.b64encode(file.getvalue()).decode()
    shown = [Mistake(image=i, true="cat", predicted="dog", probability=0.99, png=png) for i in range(mistakes)]
    return Test(loss=loss, acc=acc, classes=CLASSES, confusion_matrix=matrix.tolist(), mistakes=shown)


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
    """Return what came of one run with these settings instead of the defaults; `failed` is the reason why it did."""
    all_settings = {"model.class_path": f"cifar_lightning.models.{model}", **SETTINGS, **(settings or {})}
    content = [all_settings, seed, source, images, list(map(dict, rows)), failed, test and to_builtins(test)]
    steps = images // all_settings["data.batch_size"]
    return Record(
        address=hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16],
        status="failed" if failed else "done",
        reason=failed,
        command=f"python -m cifar_lightning fit --config configs/{model.lower()}.yaml --seed_everything {seed}",
        folder="",  # `study` knows it
        seed=seed,
        source=source,
        settings=all_settings,
        parameters=150_000,
        images_per_epoch=images,
        steps_per_epoch=min(steps, all_settings.get("trainer.limit_train_batches", steps)),
        rows=[dict(row) for row in rows],
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
    """Return a study in memory; the same record may stand in several experiments.

    Of an experiment whose runs went on for longer, `epochs` count; `pending` are seeds that were not run.
    """
    points, found = list[Point](), dict[str, Record]()
    for experiment, each in ((name, each) for name, those in experiments.items() for each in those):
        length = (epochs or {}).get(experiment, len(each.rows) if each.status == "done" else 50)
        varied = {name: each.settings[name] for name in VARIED.get(experiment, ())}
        words = ",".join(f"{name.rpartition('.')[2]}={json.dumps(value)}" for name, value in varied.items())
        points.append(_point(experiment, words or experiment, each.seed, length, each.address, varied))
        name = ",".join(filter(None, (words, f"seed={each.seed}")))
        found.setdefault(each.address, replace(each, folder=f"{experiment}/{name}"))
    for experiment, seeds in (pending or {}).items():
        points += [_point(experiment, experiment, seed, 50, f"pending-{experiment}-{seed}", {}) for seed in seeds]
    return Study(Plan(command=COMMAND, points=points), found, folder)


def _point(experiment: str, variant: str, seed: int, epochs: int, address: str, varied: dict[str, Any]) -> Point:
    return Point(experiment=experiment, variant=variant, varied=varied, seed=seed, epochs=epochs, address=address)


def write(made: Study) -> Path:
    """Write a study to its folder, as the command `study` does: plan.json, results.csv and each run's result.json."""
    made.folder.mkdir(parents=True, exist_ok=True)
    for each in made.records.values():
        store.write(made.folder / each.folder, each)
    store.write(made.folder, made.plan)
    store.write_table(made)
    return made.folder
