"""Execute one run in its process: `fit`, `test` and `predict` as a person would type them, and the record."""

import base64
import csv
import io
import json
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace
from PIL import Image

from cifar_lightning.cli import app
from cifar_lightning.cli.dry_run import DryRun
from cifar_lightning.data import cifar10, synthetic
from cifar_lightning.errors import InputError
from cifar_lightning.results.records import Mistake, Test
from cifar_lightning.results.store import RESULT, write
from cifar_lightning.runs import metrics_csv
from cifar_lightning.runs.checkpoint import load
from cifar_lightning.runs.layout import BEST, LAST, VERSION
from cifar_lightning.study.identity import RECIPE
from cifar_lightning.study.plan import Run
from cifar_lightning.utils import files
from cifar_lightning.utils.environment import hardware, software

MISTAKES_SHOWN = 12

# Of the checkout that this package is in, with a mark if it was changed since. Now, as the code is read: later the
# checkout may hold another one.
COMMIT = "unknown"
with suppress(OSError, subprocess.CalledProcessError):  # no git, or no checkout
    _command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    COMMIT = subprocess.check_output(_command, cwd=Path(__file__).parent, stderr=subprocess.DEVNULL, text=True).strip()


def execute(run: Run) -> int:
    """Train, from the start or from where it was stopped, and write the record; return the exit status."""
    try:
        made, arguments = run.files, run.arguments
        if not (run.study / run.folder / RESULT).exists():
            write(run.study / run.folder, run.record(status="started"))
        if made.path.is_dir():
            with files.locked(made.path, waiting=f"{made.path}: waits for a process that still trains here"):
                if made.config.exists() or made.checkpoints.exists():
                    arguments = ["fit", "--resume", str(made.path)]
                else:  # it was killed before there was anything to resume
                    shutil.rmtree(made.path)
        others = [*made.path.parent.glob(f"{VERSION}*")]  # repetitions by hand, after which `fit` would number its own
        if others and made.path not in others:
            raise InputError(str(others[0]), f"takes the place of {made.path.name}, which is gone", "move it away")
        if status := app.guarded(app.lightning, arguments):
            return status
        dry, content = DryRun([*run.arguments, "--trainer.logger", "false"]), load(made.checkpoint(LAST))
        conditions = {**content["callbacks"]["Conditions"], "precision": content["precision"]}
        record = run.record(
            status="done",
            parameters=sum(weights.numel() for weights in dry.model.parameters()),
            images_per_epoch=dry.images_per_epoch,
            steps_per_epoch=dry.steps_per_epoch,
            rows=metrics_csv.read(made.metrics),
            environment={**hardware(), **software(), **conditions, "commit": COMMIT, "recipe": RECIPE},
        )
        write(run.study / run.folder, record)  # before anything can go wrong that does not concern it
        if not run.test:
            return 0
        for command in ("test", "predict"):
            if status := app.guarded(app.lightning, [command, "--ckpt_path", str(made.checkpoint(BEST))]):
                return status
        write(run.study / run.folder, replace(record, test=_test(run, dry.datamodule.root)))
        return 0
    except Exception as error:
        return app.report_error(error)


def _test(run: Run, root: Path) -> Test:
    results = json.loads(run.files.test.read_text())
    test = synthetic.make(train=False) if run.source == "synthetic" else cifar10.load(root, train=False)
    true = [results["classes"][label] for label in test.labels.tolist()]
    with run.files.predictions.open(newline="") as file:
        rows = list(csv.DictReader(file))
    wrong = [i for i, row in enumerate(rows) if row["class"] != true[i]]
    mistakes = []
    for i in sorted(wrong, key=lambda i: -float(rows[i]["probability"]))[:MISTAKES_SHOWN]:
        Image.fromarray(test.images[i].permute(1, 2, 0).numpy()).save(png := io.BytesIO(), "PNG")
        name, probability = rows[i]["class"], float(rows[i]["probability"])
        text = base64.b64encode(png.getvalue()).decode()
        mistakes.append(Mistake(image=i, true=true[i], predicted=name, probability=probability, png=text))
    kept = {name: results[name] for name in ("loss", "acc", "classes", "confusion_matrix")}
    return Test(**kept, mistakes=mistakes)
