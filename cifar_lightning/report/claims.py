"""What the original report states, and whether its numbers came out again."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from cifar_lightning.report.statistics import Estimate, estimate


@dataclass(frozen=True)
class Claim:
    """A number of the original beside ours."""

    experiment: str  # that repeats it
    varied: dict[str, Any]  # which of its variants: {"data.batch_size": 10}; empty where there is one
    metric: str  # a column of `finished`
    value: float  # the original's
    rows: pd.DataFrame  # our runs
    ours: Estimate | None  # with the interval in which the original's number is expected; None without runs
    verdict: str  # whether it lies there: reproduced, not reproduced, or open


@cache
def original() -> dict[str, Any]:
    """Return the content of claims.yaml."""
    content: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("claims.yaml").read_text())
    return content


def compare(table: pd.DataFrame) -> list[Claim]:
    """Return every number of the original beside ours. report.md.j2 states the rule."""
    return [_compare(*number, table) for number in _numbers()]


def select(table: pd.DataFrame, experiment: str, varied: dict[str, Any] | None = None) -> pd.DataFrame:
    """Return the runs of an experiment, or those of them with these settings."""
    rows = table[table.experiment == experiment]
    for name, value in (varied or {}).items():
        rows = rows[rows[name] == value] if name in rows else rows[:0]
    return rows


def by_value(rows: pd.DataFrame, setting: str) -> dict[float, pd.DataFrame]:
    """Return the runs of a sweep by the value of its setting, in ascending order; those without a number are not."""
    rows = rows[rows[setting].map(lambda x: isinstance(x, int | float))] if setting in rows else rows[:0]
    return {float(str(x)): those for x, those in rows.groupby(setting)} if len(rows) else {}


def comparable(rows: pd.DataFrame) -> pd.Series:
    """Return of each run whether it saw CIFAR-10, and as many images and epochs as the original's, if it has one."""
    recipe, sweeps = original()["recipe"], [sweep["experiment"] for sweep in original()["sweeps"]]
    epochs = rows.experiment.isin(sweeps).map({True: recipe["sweep_epochs"], False: recipe["epochs"]})
    alike = (rows.epochs == epochs) & (rows.images == recipe["images"])
    known = rows.experiment.isin([*sweeps, *original()["runs"]])
    found: pd.Series = (rows.source == "cifar10") & (alike | ~known)
    return found


def _numbers() -> Iterator[tuple[str, dict[str, Any], str, float]]:
    for name, metrics in original()["runs"].items():
        yield from ((name, {}, metric, value) for metric, value in metrics.items())
    for sweep in original()["sweeps"]:
        for at, value in sweep["values"].items():
            yield sweep["experiment"], {sweep["varies"]: at}, sweep["metric"], value


def _compare(experiment: str, varied: dict[str, Any], metric: str, value: float, table: pd.DataFrame) -> Claim:
    rows = select(table, experiment, varied)
    rows = rows[rows[metric].notna() & (rows.variant.nunique() == 1)]  # several variants: none is the original's
    ours = estimate(rows, metric, table, one_more=True)
    judged = metric != "seconds" and experiment not in original()["garbled"] and comparable(rows).all()
    if ours is None or ours.low is None or ours.high is None or not judged:
        return Claim(experiment, varied, metric, value, rows, ours and Estimate(ours.n, ours.mean, ours.sd), "open")
    verdict = "reproduced" if ours.low <= value <= ours.high else "not reproduced"
    return Claim(experiment, varied, metric, value, rows, ours, verdict)
