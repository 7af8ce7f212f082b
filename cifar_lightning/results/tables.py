"""A study's records as pandas tables: `runs` has a row per point, `curves` a row per point and epoch.

pandas takes 0.35 s to import, so this module stays out of what `fit` imports.
"""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from cifar_lightning.results.records import Point, Record, Study

KEY = {"experiment": "str", "variant": "str", "seed": "int64", "address": "str"}  # also of a table without rows
POINT = ("experiment", "variant", "model", "seed", "address", "status", "reason", "epochs", "best_epoch")
LAST = ("train/loss", "train/acc", "train_clean/loss", "train_clean/acc", "val/loss", "val/acc", "gap/loss")
METRICS = ("best_val/acc", *LAST, "test/loss", "test/acc")


def runs(study: Study) -> pd.DataFrame:
    """Return a row per point that has a record, in plan order; `to_csv` of it is results.csv.

    A run may serve a shorter experiment too: `epochs` and all metrics are of the epochs that the point asks for, and
    the test, which follows the last epoch, counts only where the run ends there. `status` is `done` if those epochs
    are there, whatever came of the run later. Metrics are of the last epoch, but for `best_val/acc`, the highest
    `val/acc` (`best_epoch` is the first that has it), and `test/*`, which are of the best checkpoint. Settings that
    vary anywhere in the study have a column each.
    """
    varied = sorted({name for point in study.plan.points for name in point.varied})
    found = ((point, study.records[point.address]) for point in study.plan.points if point.address in study.records)
    table = pd.DataFrame(
        [_run(point, record, varied) for point, record in found], columns=[*POINT, *METRICS, *varied, "folder"]
    )
    # Nullable integers, so that a missing epoch leaves 50 an integer; settings stay what they are, of any type.
    counts, settings = dict.fromkeys(("epochs", "best_epoch"), "Int64"), dict.fromkeys(varied, object)
    return table.astype({**KEY, **counts, **dict.fromkeys(METRICS, float), **settings})


def curves(study: Study) -> pd.DataFrame:
    """Return a row per point and epoch: experiment, variant, seed, address, epoch, then the columns of metrics.csv."""
    table = pd.DataFrame(list(_epochs(study)))
    return table.reindex(columns=[*KEY, "epoch", *table.columns.difference([*KEY, "epoch"], sort=False)]).astype(KEY)


def _run(point: Point, record: Record, varied: list[str]) -> dict[str, Any]:
    rows = record.rows[: point.epochs]
    done = record.status == "done" or len(record.rows) >= point.epochs
    # A failure behind the point's last epoch is another point's, unless it is that of this point's own test.
    own = not done or record.settings.get("trainer.max_epochs") == point.epochs
    best = max(rows, key=lambda row: (row["val/acc"], -row["epoch"]), default=None)
    row = {
        "experiment": point.experiment,
        "variant": point.variant,
        "model": str(record.settings.get("model.class_path", "")).rpartition(".")[2],
        "seed": point.seed,
        "address": point.address,
        "status": "done" if done else "failed",
        "reason": record.reason if own else "",
        "epochs": len(rows),
        **{name: record.settings.get(name, "") for name in varied},
        "folder": record.folder,
    }
    if best:
        row |= {"best_epoch": int(best["epoch"]), "best_val/acc": best["val/acc"]}
        row |= {name: rows[-1].get(name) for name in LAST}
    if record.test and len(record.rows) == len(rows):
        row |= {"test/loss": record.test.loss, "test/acc": record.test.acc}
    return row


def _epochs(study: Study) -> Iterator[dict[str, Any]]:
    for point in study.plan.points:
        if record := study.records.get(point.address):
            key = {"experiment": point.experiment, "variant": point.variant, "seed": point.seed}
            for row in record.rows[: point.epochs]:
                yield {**key, "address": point.address, **row, "epoch": int(row["epoch"])}
