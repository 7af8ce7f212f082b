"""What happens in the process of a cell: `fit`, `test` and `predict` as a person would type them, and the record."""

import base64
import csv
import io
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from PIL import Image
from torch import Tensor

from cifar_lightning.cli import app
from cifar_lightning.cli.dry_run import DryRun
from cifar_lightning.data import cifar10, synthetic
from cifar_lightning.data.datamodule import data_root
from cifar_lightning.results.records import Mistake, Record, Test
from cifar_lightning.results.store import write_record
from cifar_lightning.runs import metrics_csv
from cifar_lightning.runs.checkpoint import load
from cifar_lightning.runs.layout import RunFolder
from cifar_lightning.study.cells import Cell
from cifar_lightning.study.folder import VERSION
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


def perform(cell: Cell, study: Path) -> int:
    """Trains, from the start or from where it was stopped, and leaves a record.

    Args:
        cell: What is wanted.
        study: The study's folder.

    Returns:
        Exit status: of the first command that fails, else 0.
    """
    try:
        return _perform(cell, study)
    except Exception as error:
        return app.report_error(error)


def _perform(cell: Cell, study: Path) -> int:
    run = study / cell.folder / VERSION
    if status := app.run(_fit(cell, run)):
        return status
    record = _record(cell, run)
    write_record(run.parent, record)  # before anything can go wrong that does not concern it
    if not cell.test:
        return 0
    best = str(run / "checkpoints" / "best.ckpt")
    for command in ("test", "predict"):
        if status := app.run([command, "--ckpt_path", best]):
            return status
    write_record(run.parent, replace(record, test=_test(cell, run)))
    return 0


def _fit(cell: Cell, run: Path) -> list[str]:
    if not run.is_dir():
        return list(cell.command)
    with files.locked(run, waiting=f"{run}: waits for a process that still trains here"):
        if (run / "config.yaml").exists() or (run / "checkpoints").exists():
            return ["fit", "--resume", str(run)]
        shutil.rmtree(run)  # it was killed before there was anything to go on with
    return list(cell.command)


def _record(cell: Cell, run: Path) -> Record:
    setting = DryRun([*cell.command, "--trainer.logger", "false"])
    content = load(run / "checkpoints" / "last.ckpt")
    around = {**hardware(), **software(), **content["callbacks"]["Conditions"], "precision": content["precision"]}
    return Record(
        **cell.identity,
        status="done",
        parameters=sum(weights.numel() for weights in setting.model.parameters()),
        images_per_epoch=setting.images_per_epoch,
        rows=metrics_csv.read(RunFolder(run).metrics),
        environment={**around, "commit": COMMIT, "code": cell.code},
    )


def _test(cell: Cell, run: Path) -> Test:
    report = json.loads((RunFolder(run).test).read_text())
    return Test(
        loss=report["loss"],
        acc=report["acc"],
        classes=report["classes"],
        confusion_matrix=report["confusion_matrix"],
        mistakes=_mistakes(cell, run, report["classes"]),
    )


def _mistakes(cell: Cell, run: Path, classes: list[str]) -> list[Mistake]:
    root = data_root(cell.settings.get("data.root"))
    test = synthetic.make(train=False) if cell.source == "synthetic" else cifar10.load(root, train=False)
    with (RunFolder(run).predictions).open(newline="") as file:
        rows = list(csv.DictReader(file))
    wrong = [
        Mistake(image=i, true=classes[label], predicted=row["class"], probability=float(row["probability"]), png="")
        for i, (row, label) in enumerate(zip(rows, test.labels.tolist(), strict=True))
        if row["class"] != classes[label]
    ]
    surest = sorted(wrong, key=lambda mistake: -mistake.probability)[:MISTAKES_SHOWN]
    return [replace(mistake, png=_png(test.images[mistake.image])) for mistake in surest]


def _png(image: Tensor) -> str:
    """An image, uint8, shape (3, 32, 32), as a PNG file in Base64."""
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
