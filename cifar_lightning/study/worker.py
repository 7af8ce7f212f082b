"""Execute one run in its process: `fit`, `test` and `predict` as a person would type them, and the record."""

import base64
import csv
import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from PIL import Image

from cifar_lightning.cli import app
from cifar_lightning.cli.dry_run import DryRun
from cifar_lightning.data import cifar10, synthetic
from cifar_lightning.results.records import Mistake, Record, Test
from cifar_lightning.results.store import write_record
from cifar_lightning.runs import metrics_csv
from cifar_lightning.runs.checkpoint import load
from cifar_lightning.runs.layout import BEST, LAST
from cifar_lightning.study.identity import RECIPE
from cifar_lightning.study.plan import Run
from cifar_lightning.utils import files
from cifar_lightning.utils.environment import hardware, software

MISTAKES_SHOWN = 12


def _commit() -> str:
    """Of the checkout that this package is in, with a mark if it was changed since; `unknown` if it is in none."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


COMMIT = _commit()  # now, as the code is read: later the checkout may hold another one


def execute(run: Run) -> int:
    """Train, from the start or from where it was stopped, and write the record.

    Returns:
        Exit status: of the first command that fails, else 0.
    """
    try:
        if status := app.run(_fit(run)):
            return status
        dry = DryRun([*run.arguments, "--trainer.logger", "false"])
        record = _record(run, dry)
        write_record(run.study / run.folder, record)  # before anything can go wrong that does not concern it
        if not run.test:
            return 0
        for command in ("test", "predict"):
            if status := app.run([command, "--ckpt_path", str(run.files.checkpoint(BEST))]):
                return status
        write_record(run.study / run.folder, replace(record, test=_test(run, dry.datamodule.root)))
        return 0
    except Exception as error:
        return app.report_error(error)


def _fit(run: Run) -> list[str]:
    made = run.files
    if not made.path.is_dir():
        return run.arguments
    with files.locked(made.path, waiting=f"{made.path}: waits for a process that still trains here"):
        if made.config.exists() or made.checkpoints.exists():
            return ["fit", "--resume", str(made.path)]
        shutil.rmtree(made.path)  # it was killed before there was anything to resume
    return run.arguments


def _record(run: Run, dry: DryRun) -> Record:
    content = load(run.files.checkpoint(LAST))
    around = {**hardware(), **software(), **content["callbacks"]["Conditions"], "precision": content["precision"]}
    return run.record(
        status="done",
        parameters=sum(weights.numel() for weights in dry.model.parameters()),
        images_per_epoch=dry.images_per_epoch,
        steps_per_epoch=dry.steps_per_epoch,
        rows=metrics_csv.read(run.files.metrics),
        environment={**around, "commit": COMMIT, "recipe": RECIPE},
    )


def _test(run: Run, root: Path) -> Test:
    report = json.loads(run.files.test.read_text())
    test = synthetic.make(train=False) if run.source == "synthetic" else cifar10.load(root, train=False)
    true = [report["classes"][label] for label in test.labels.tolist()]
    with run.files.predictions.open(newline="") as file:
        rows = list(csv.DictReader(file))
    wrong = [(float(row["probability"]), i) for i, row in enumerate(rows) if row["class"] != true[i]]
    mistakes = [
        Mistake(image=i, true=true[i], predicted=rows[i]["class"], probability=probability, png=_png(test.images[i]))
        for probability, i in sorted(wrong, key=lambda each: -each[0])[:MISTAKES_SHOWN]
    ]
    return Test(
        loss=report["loss"],
        acc=report["acc"],
        classes=report["classes"],
        confusion_matrix=report["confusion_matrix"],
        mistakes=mistakes,
    )


def _png(image: Any) -> str:
    """An image, uint8, shape (3, 32, 32), as a PNG file in Base64."""
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
