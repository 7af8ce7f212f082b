"""Whether curves mean what the original report says: overfitting, underfitting, learning rates too high and too low."""

import re
from collections import Counter
from statistics import fmean

from cifar_lightning.report import fitting
from cifar_lightning.report.evidence import POINT, Evidence, Part, accuracy, exceeds, points
from cifar_lightning.report.noise import SEEDED, value_of
from cifar_lightning.results.study_results import Run

# What a run is said to have failed of whose loss or weights were no longer finite.
DIVERGED = r"\b(nan|inf|not finite)\b"
TOO_HIGH, TOO_LOW = {"learning rate too high", "not learning"}, {"still learning"}


def signs(e: Evidence) -> list[Part]:
    """A part for each of the four signs."""
    runs = [run for name in SEEDED for run in e.find(name, needed=False)]
    if not runs:
        e.miss("a main run or ablation")
        return [(None, "")]
    return [_overfitting(e, runs), _underfitting(runs + e.find("dropout", needed=False)), *_rates(e)]


def _overfitting(e: Evidence, runs: list[Run]) -> Part:
    """Whether the sign is there, and the gap wider where nothing holds overfitting back: without dropout."""
    over = [run for run in runs if fitting.judge(run.rows).verdict == "overfitting"]
    text = f"{len(over)} of {len(runs)} main runs and ablations overfit by the rule"
    wider = {}
    for model in ("cnn", "mlp"):
        whole, without = e.find(model, needed=False), e.find(f"{model}_no_dropout", needed=False)
        if found := e.difference(without, whole, lambda run: value_of(run, "gap/acc")):
            wider[model] = found
    if not over or not wider:
        return None, f"{text}."
    answers = [exceeds(each, POINT) for each in wider.values()]
    gaps = " and ".join(f"{points(each)} ({model.upper()})" for model, each in wider.items())
    answer = True if True in answers else None if None in answers else False
    return answer, f"{text}; without dropout, which is to prevent it, the gap is wider by {gaps}."


def _underfitting(runs: list[Run]) -> Part:
    """Whether both losses of runs that learn little are above those of the best run."""
    dull = [run for run in runs if fitting.judge(run.rows).verdict in ("underfitting", "not learning")]
    if not dull:
        return None, "No run underfits by the rule."
    best = max(runs, key=accuracy)
    high = all(run.last[loss] > best.last[loss] for run in dull for loss in ("train/loss", "val/loss"))
    text = f"{len(dull)} of {len(runs)} runs underfit or don't learn; both losses are higher than the best run's"
    return high, f"{text} in {'all' if high else 'not all'} of them."


def _rates(e: Evidence) -> list[Part]:
    """Whether most runs of the highest learning rate look like one too high, and of the lowest like one too low."""
    rates = e.sweep("learning_rate", "model.lr")
    failed = [run for variant in e.study.experiments.get("learning_rate", []) for run in variant.failed]
    diverged = {run.point.varied["model.lr"] for run in failed if re.search(DIVERGED, run.record.reason)}
    if not rates or len(rates.keys() | diverged) < 2:
        e.miss("learning_rate at several rates")
        return [(None, ""), (None, "")]
    means = {rate: fmean(map(accuracy, runs)) for rate, runs in rates.items()}
    best = max(means, key=means.__getitem__)
    parts: list[Part] = []
    for rate, sign in ((max(rates.keys() | diverged), TOO_HIGH), (min(rates), TOO_LOW)):
        if rate in diverged:
            parts.append((True, f"At a learning rate of {rate:g} the loss did not stay finite."))
            continue
        seen = Counter(fitting.judge(run.rows).verdict for run in rates[rate])
        said = ", ".join(f"{verdict} ({n} of {seen.total()})" for verdict, n in sorted(seen.items()))
        answer = True if 2 * sum(seen[verdict] for verdict in sign) > seen.total() else False if rate == best else None
        text = f"At a learning rate of {rate:g} it is: {said}; the accuracy is {means[rate]:.4f}"
        parts.append((answer, f"{text} ({means[best]:.4f} at {best:g})."))
    return parts
