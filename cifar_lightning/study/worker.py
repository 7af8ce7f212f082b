"""Execute one run in its process: `fit`, `test` and `predict` as a person would type them, and the record."""

import base64
import csv
import io
import json
import shutil
import subprocess
from pathlib import Path

from msgspec.structs import replace
from PIL import Image
from torch import Tensor

from cifar_lightning.cli import app
from cifar_lightning.cli.dry_run import DryRun
from cifar_lightning.data import cifar10, synthetic
from cifar_lightning.data.source import data_root
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
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        here = Path(__file__).parent
        return subprocess.run(command, cwd=here, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


# Now, as the code is read: later the checkout may hold another one.
COMMIT = _commit()


def execute(run: Run) -> int:
    """Train, from the start or from where it was stopped, and write the record.

    Returns:
        Exit status: of the first command that fails, else 0.
    """
    try:
        return _execute(run)
    except Exception as error:
        return app.report_error(error)


def _execute(run: Run) -> int:
    if status := app.run(_fit(run)):
        return status
    folder, record = run.study / run.folder, _record(run)
    write_record(folder, record)  # before anything can go wrong that does not concern it
    if not run.test:
        return 0
    for command in ("test", "predict"):
        if status := app.run([command, "--ckpt_path", str(run.files.checkpoint(BEST))]):
            return status
    write_record(folder, replace(record, test=_test(run)))
    return 0


def _fit(run: Run) -> list[str]:
    made = run.files
    if not made.path.is_dir():
        return run.arguments
    with files.locked(made.path, waiting=f"{made.path}: waits for a process that still trains here"):
        if made.config.exists() or made.checkpoints.exists():
            return ["fit", "--resume", str(made.path)]
        shutil.rmtree(made.path)  # it was killed before there was anything to resume
    return run.arguments


def _record(run: Run) -> Record:
    dry = DryRun([*run.arguments, "--trainer.logger", "false"])
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


def _test(run: Run) -> Test:
    report = json.loads(run.files.test.read_text())
    same = {name: report[name] for name in ("loss", "acc", "classes", "confusion_matrix")}
    return Test(**same, mistakes=_mistakes(run, report["classes"]))


def _mistakes(run: Run, classes: list[str]) -> list[Mistake]:
    """The most probable ones, in descending order."""
    root = data_root(DryRun([*run.arguments, "--trainer.logger", "false"]).datamodule.root)
    test = synthetic.make(train=False) if run.source == "synthetic" else cifar10.load(root, train=False)
    with run.files.predictions.open(newline="") as file:
        rows = list(csv.DictReader(file))
    true = [classes[label] for label in test.labels.tolist()]
    wrong = [(float(row["probability"]), i) for i, row in enumerate(rows) if row["class"] != true[i]]
    surest = sorted(wrong, key=lambda each: -each[0])[:MISTAKES_SHOWN]
    return [
        Mistake(image=i, true=true[i], predicted=rows[i]["class"], probability=probability, png=_png(test.images[i]))
        for probability, i in surest
    ]


def _png(image: Tensor) -> str:
    """An image, uint8, shape (3, 32, 32), as a PNG file in Base64."""
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
