"""The original report's numbers beside ours, and whether each is reproduced by the rule of report.md.j2."""

import math
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from cifar_lightning.report.statistics import Estimate, estimate, holm

# When dropout scales what it keeps: as in PyTorch, or as an experiment has it whose name ends so.
SCALINGS, SCALED = ("stock", "never", "always"), "_dropout_scaling"


class Claim(NamedTuple):
    """A number of the original beside ours."""

    experiment: str  # that repeats it
    varied: dict[str, Any]  # which of its variants: {"data.batch_size": 10}; empty where there is one
    metric: str  # a column of `finished`
    value: float  # the original's
    rows: pd.DataFrame  # our runs
    ours: Estimate | None  # with the interval in which the original's number is expected; None without runs
    verdict: str  # whether it lies there: reproduced, not reproduced, or open
    chance: float  # of one more run that is as far off, by Holm for all that are judged; NaN where open
    scaling: str  # of dropout, in our runs


@cache
def original() -> dict[str, Any]:
    """Return the content of claims.yaml."""
    content: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("claims.yaml").read_text())
    return content


def compare(table: pd.DataFrame, scaling: str = "stock") -> list[Claim]:
    """Return every number of the original beside ours, whose dropout scales so. report.md.j2 states the rule."""
    numbers = [(name, {}, *number) for name, metrics in original()["runs"].items() for number in metrics.items()]
    for sweep in original()["sweeps"]:
        experiment, setting, metric = sweep["experiment"], sweep["varies"], sweep["metric"]
        numbers += [(experiment, {setting: at}, metric, value) for at, value in sweep["values"].items()]
    stock, claims = scaling == "stock", list[Claim]()
    for experiment, varied, metric, value in numbers:
        rows = table[table.experiment == (experiment if stock else experiment + SCALED)]
        rows = rows if stock else rows[rows.scaling == scaling]
        for setting, at in varied.items():
            rows = by_value(rows, setting).get(at, rows[:0])
        rows = rows[rows[metric].notna() & (rows.variant.nunique() == 1)]  # several variants: none is the original's
        ours = estimate(rows, metric, table, one_more=True)
        if ours and (metric == "seconds" or experiment in original()["garbled"] or not comparable(rows).all()):
            ours = Estimate(ours.n, ours.mean, ours.sd)  # shown, and not judged
        verdict, chance = "open", math.nan
        if ours and ours.half is not None:
            verdict = "reproduced" if abs(value - ours.mean) <= ours.half else "not reproduced"
            chance = 2 * float(ours.student(ours.df).sf(ours.mean + abs(value - ours.mean)))
        claims.append(Claim(experiment, varied, metric, value, rows, ours, verdict, chance, scaling))
    adjusted = holm(pd.Series([claim.chance for claim in claims]))
    return [claim._replace(chance=chance) for claim, chance in zip(claims, adjusted, strict=True)]


def by_value(rows: pd.DataFrame, setting: str) -> dict[float, pd.DataFrame]:
    """Return the runs of a sweep by the value of its setting, in ascending order; those without a number are not."""
    rows = rows[rows[setting].map(lambda x: isinstance(x, int | float))] if setting in rows else rows[:0]
    return {float(str(x)): those for x, those in rows.groupby(setting)} if len(rows) else {}


def comparable(rows: pd.DataFrame) -> pd.Series:
    """Return of each run whether it saw CIFAR-10, and as many images and epochs as the original's, if it has one."""
    recipe, sweeps = original()["recipe"], [sweep["experiment"] for sweep in original()["sweeps"]]
    experiments = rows.experiment.str.removesuffix(SCALED)
    epochs = experiments.isin(sweeps).map({True: recipe["sweep_epochs"], False: recipe["epochs"]})
    alike = (rows.epochs == epochs) & (rows.images == recipe["images"])
    known = experiments.isin([*sweeps, *original()["runs"]])
    found: pd.Series = (rows.source == "cifar10") & (alike | ~known)
    return found
