"""Means, paired differences and 95% intervals over seeds.

Two kinds of chance are in an accuracy: the seed's, and that of which images it was measured on. Seeds tell the first by
their standard deviation. The second is binomial: 10,000 images know 77% to 0.4 points, whatever the seeds say. So no
interval of an accuracy is narrower than its images allow, and two seeds that agree to four digits prove nothing.
"""

import math
from dataclasses import dataclass
from functools import reduce
from operator import sub
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from cifar_lightning.report.curve_diagnosis import diagnose
from cifar_lightning.results import tables
from cifar_lightning.results.records import Study

MAIN = ("cnn", "cnn_no_batch_norm", "cnn_no_dropout", "mlp", "mlp_no_batch_norm", "mlp_no_dropout")
SEVERAL = "several, one after the other"  # machines that a run was trained on
ACC = "best_val/acc"
POINT = ["experiment", "variant", "seed"]
NORMAL = 1.96  # the 97.5% quantile where the standard deviation is known
POWER = 0.8  # the usual share of studies that are to see an effect
ALMOST_NOTHING = 1e-9  # the scale of a distribution around seeds that agree to the last bit
# That an accuracy is measured on. Records hold no predictions, so differences can't be paired by image: their floor is
# that of two independent samples, which is wider than McNemar's.
IMAGES = {"train/acc": 40_000, "train_clean/acc": 5_000, "val/acc": 10_000, "best_val/acc": 10_000, "test/acc": 10_000}
PARTS = {"gap/acc": ("train_clean/acc", "val/acc"), "eval_lead": ("train_clean/acc", "train/acc")}
OTHER_IMAGES = ("val/acc", "best_val/acc")  # than the original's: it drew its own validation set


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95% interval; None is what the runs don't tell."""

    n: int  # seeds
    mean: float
    sd: float | None = None  # seed-to-seed standard deviation, of n - 1
    half: float | None = None  # of the width of the interval
    pooled: bool = False  # whether the interval is made of the pooled SD of other settings, n being 1
    df: float = math.inf  # degrees of freedom of the distribution that the interval is made of

    @property
    def ends(self) -> list[float]:
        return [] if self.half is None else [self.mean - self.half, self.mean + self.half]

    @property
    def excludes_zero(self) -> bool | None:
        """Whether the interval excludes 0; None without one."""
        return None if self.half is None else abs(self.mean) > self.half

    def student(self, df: float) -> Any:
        """Return the Student distribution of which the interval, which there must be, holds 95%: one of scipy's."""
        assert self.half is not None
        return stats.t(df, self.mean, max(self.half / stats.t.ppf(0.975, df), ALMOST_NOTHING))

    @property
    def detectable(self) -> float | None:
        """The least effect whose interval excludes 0 in 80% of such studies (of three seeds 77%), if there is one."""
        return None if self.half is None else self.half + float(self.student(self.df).ppf(POWER)) - self.mean

    def minus(self, other: "Estimate") -> "Estimate":
        """Return the difference of estimates of different networks, whose intervals add in quadrature."""
        half = None if self.half is None or other.half is None else math.hypot(self.half, other.half)
        return Estimate(min(self.n, other.n), self.mean - other.mean, None, half, self.pooled or other.pooled)


def finished(study: Study) -> pd.DataFrame:
    """Return the rows of `runs` that are done, with more columns; what is not finite is missing.

    `gap/acc` is the generalization gap of the last epoch, `eval_lead` what evaluation mode gains on training images
    there, `epoch_times` the seconds of each epoch and `seconds` their sum, `hardware` what they were taken on, `images`
    and `steps` those of an epoch, `diagnosis` what the curves show and `verdict` its verdict, `scaling` when dropout
    scales.
    """
    table, curves = tables.runs(study), dict(list(tables.curves(study).groupby(POINT)))
    table = table[(table.status == "done") & (table.epochs > 0)].replace([np.inf, -np.inf], np.nan)
    table = table.reset_index(drop=True)
    for name, (whole, part) in PARTS.items():
        table[name] = table[whole] - table[part]
    for name, field in (("images", "images_per_epoch"), ("steps", "steps_per_epoch"), ("source", "source")):
        table[name] = [getattr(study.records[address], field) for address in table.address]
    runs = [curves[key] for key in table[POINT].itertuples(index=False, name=None)]
    table["epoch_times"] = [list(run.epoch_seconds) for run in runs]
    table["seconds"] = table.epoch_times.map(sum).astype(float)
    table["hardware"] = [_hardware(study.records[address].environment) for address in table.address]
    table["diagnosis"] = [diagnose(run) for run in runs]
    table["verdict"] = [each.verdict for each in table.diagnosis]
    table["scaling"] = table.get("model.dropout_scaling", "train")
    return table


def _hardware(environment: dict[str, Any]) -> str:
    """Return what a run computed on: the GPU, or the processor and its threads."""
    if "moved" in environment:
        return SEVERAL
    if (device := environment.get("device") or "cpu") != "cpu":
        return str(device)
    return f"{environment.get('processor') or 'unknown processor'}, threads: {environment.get('threads', 'unknown')}"


def estimate(
    rows: pd.DataFrame, metric: str, table: pd.DataFrame, minus: pd.DataFrame | None = None, *, one_more: bool = False
) -> Estimate | None:
    """Return a metric's mean over the runs of a setting with its interval; None without a run that has it.

    `table` has all runs, for the pooled SD where there is one seed. The metric of `minus`, runs of another setting, is
    taken off seed by seed. With `one_more` the interval is that of one more run, such as the original's.
    """
    sides = [rows] if minus is None else [rows, minus]
    found = reduce(sub, (side.groupby("seed")[metric].last().dropna().astype(float) for side in sides)).dropna()
    n, mean, sd, noise, df = len(found), float(found.mean()), None, math.nan, len(found) - 1.0
    if n > 1:
        sd = noise = float(found.std())
    else:
        # Each setting of the main runs and ablations varies around its own mean; variances are weighted by their
        # degrees of freedom. What is measured on one network stands for the other.
        groups = table[table.experiment.isin(MAIN)].groupby(POINT[:2])[metric]
        free = (groups.count() - 1).clip(lower=0)
        df = float(free.sum())
        noise = math.sqrt((groups.var() * free).sum() / df) if df else math.nan
    if not n or math.isnan(noise):
        return Estimate(n, mean) if n else None
    # The pooled SD is that of single runs, of which a difference has two.
    variances = 1 / n + one_more + (sd is None and minus is not None)
    spread = noise * math.sqrt(variances)
    seeds = float(stats.t.ppf(0.975, df)) * spread
    shares = [(part, side[part].mean()) for side in sides for part in PARTS.get(metric, (metric,)) if part in IMAGES]
    images = sum(p * (1 - p) / IMAGES[part] for part, p in shares if 0 < p < 1)
    blur = math.sqrt(images * (1 + one_more))
    if one_more and metric in OTHER_IMAGES:
        half = math.hypot(seeds, NORMAL * blur)
        df = df * (1 + (blur / spread) ** 2) ** 2 if spread else math.inf  # Welch and Satterthwaite
    else:
        half, df = max((seeds, df), (NORMAL * blur, math.inf))
    return Estimate(n, mean, sd, half, sd is None, df)


def holm(chances: pd.Series) -> pd.Series:
    """Return p-values times how many are no smaller, in ascending order (Holm 1979); those that are missing stay so.

    Those below 0.05 then have not one that is due to chance in 95% of studies, however many were tried.
    """
    found = chances.dropna().sort_values()
    return (found * np.arange(len(found), 0, -1)).cummax().clip(upper=1).reindex(chances.index)
