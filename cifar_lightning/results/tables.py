"""A study's records as pandas tables: `runs` has a row per point, `curves` a row per point and epoch.

pandas takes 0.35 s to import, so this module stays out of what `fit` imports.
"""

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
    rows = [_run(point, record, varied) for point, record in _pairs(study)]
    # Nullable integers, so that a missing epoch leaves 50 an integer; settings stay what they are, of any type.
    kinds = {**KEY, "epochs": "Int64", "best_epoch": "Int64", **dict.fromkeys(METRICS, "float64")}
    table = pd.DataFrame(rows, columns=[*POINT, *METRICS, *varied, "folder"])
    return table.astype(kinds | dict.fromkeys(varied, "object"))


def curves(study: Study) -> pd.DataFrame:
    """Return a row per point and epoch: experiment, variant, seed, address, epoch, then the columns of metrics.csv."""
    pairs, key = _pairs(study), [*KEY, "epoch"]
    rows = [
        {name: getattr(point, name) for name in KEY} | row | {"epoch": int(row["epoch"])}
        for point, record in pairs
        for row in record.rows[: point.epochs]
    ]
    table = pd.DataFrame(rows)
    return table.reindex(columns=[*key, *table.columns.difference(key, sort=False)]).astype(KEY)


def _pairs(study: Study) -> list[tuple[Point, Record]]:
    found = ((point, study.records.get(point.address)) for point in study.plan.points)
    return [(point, record) for point, record in found if record]


def _run(point: Point, record: Record, varied: list[str]) -> dict[str, Any]:
    rows = record.rows[: point.epochs]
    done = record.status == "done" or len(record.rows) >= point.epochs
    # A failure behind the point's last epoch is another point's, unless it is that of this point's own test.
    own = not done or record.settings.get("trainer.max_epochs") == point.epochs
    row = {name: getattr(point, name) for name in KEY} | {name: record.settings.get(name, "") for name in varied}
    row |= {"status": "done" if done else "failed", "reason": record.reason if own else "", "epochs": len(rows)}
    row |= {"model": str(record.settings.get("model.class_path", "")).rpartition(".")[2], "folder": record.folder}
    if rows:
        best = max(rows, key=lambda row: (row["val/acc"], -row["epoch"]))
        row |= {"best_epoch": int(best["epoch"]), "best_val/acc": best["val/acc"]}
        row |= {name: rows[-1].get(name) for name in LAST}
    if record.test and len(record.rows) == len(rows):
        row |= {"test/loss": record.test.loss, "test/acc": record.test.acc}
    return row
