"""How the report names experiments, writes numbers and leads to runs."""

import re
from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any
from urllib.parse import quote

from cifar_lightning.report.blocks import Span, Text, text
from cifar_lightning.report.noise import value_of
from cifar_lightning.report.statistics import Summary, summary
from cifar_lightning.results.study_results import Run, Study, Variant

TITLES = {
    "cnn": "CNN",
    "mlp": "MLP",
    "cnn_no_batch_norm": "CNN without batch norm",
    "mlp_no_batch_norm": "MLP without batch norm",
    "cnn_no_dropout": "CNN without dropout",
    "mlp_no_dropout": "MLP without dropout",
    "batch_size": "Batch size at equal epochs",
    "batch_size_updates": "Batch size at equal updates",
    "batch_size_scaled": "Batch size with scaled learning rate",
    "dropout": "Dropout rate",
    "learning_rate": "Learning rate",
}
MAIN = ("cnn", "mlp", "cnn_no_batch_norm", "mlp_no_batch_norm", "cnn_no_dropout", "mlp_no_dropout")
METRICS = {
    "train/loss": "train loss",
    "train/acc": "train accuracy",
    "val/loss": "validation loss",
    "val/acc": "validation accuracy",
    "best_val/acc": "best validation accuracy",
    "test/loss": "test loss",
    "test/acc": "test accuracy",
    "seconds": "seconds",
}
MINUS, NOTHING = "\u2212", "\u2013"  # the latter where a number is missing
PLUS_MINUS, TO = "\u00a0\u00b1\u00a0", "\u00a0to\u00a0"  # no line breaks within


def number(value: float | None, digits: int = 4) -> str:
    """`0.7706`, `4,872`; a dash where there is none."""
    if value is None:
        return NOTHING
    if not isfinite(value):
        return str(value).replace("-", MINUS)
    return f"{value:,.{digits}f}".replace("-", MINUS)


def signed(value: float | None, digits: int = 4) -> str:
    """`+0.0012`; zero has no sign."""
    if value is None or not isfinite(value) or not round(value, digits):
        return number(value and abs(value), digits)
    return f"{value:+,.{digits}f}".replace("-", MINUS)


def between(low: float | None, high: float | None, digits: int = 4) -> str:
    """`0.7610 to 0.7790`."""
    return NOTHING if low is None or high is None else f"{number(low, digits)}{TO}{number(high, digits)}"


def interval(low: float | None, high: float | None, digits: int = 4) -> str:
    """`+0.0010 to +0.0200`, of a difference."""
    return NOTHING if low is None or high is None else f"{signed(low, digits)}{TO}{signed(high, digits)}"


def spread(of: Summary | None, digits: int = 4) -> str:
    """`0.7706 +- 0.0012`, mean and standard deviation; the mean alone where n is 1."""
    if of is None:
        return NOTHING
    return number(of.mean, digits) + ("" if of.sd is None else f"{PLUS_MINUS}{number(of.sd, digits)}")


def names(parts: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def plain(value: Any) -> str:
    """A setting as it is typed: `0.001`, `10000`, `false`."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def title(experiment: str) -> str:
    """Of an experiment; its own name where it is not one of the report's."""
    return TITLES.get(experiment, experiment)


def variant_title(experiment: str, variant: str) -> str:
    """`Dropout rate: dropout=0.2`."""
    alone = experiment in MAIN or variant == experiment
    return title(experiment) if alone else f"{title(experiment)}: {variant_name(variant)}"


def variant_name(variant: str) -> str:
    """With room for a line break, and numbers of many digits shortened: a learning rate that was calculated."""
    return re.sub(r"\d*\.\d{5,}", lambda match: f"{float(match[0]):.4g}", variant).replace(",", ", ")


def run_name(run: Run) -> str:
    """`dropout=0.2, seed 0`, within its experiment."""
    seed = f"seed {run.point.seed}"
    alone = variant_title(run.point.experiment, run.point.variant) == title(run.point.experiment)
    return seed if alone else f"{variant_name(run.point.variant)}, {seed}"


def folder(run: Run) -> str:
    """The address of a run's folder, relative to the report."""
    return quote(run.record.folder, safe="/=,") + "/"


def prose(words: str) -> Text:
    """Words in which flags stand out: `--model.dropout 0.2`."""
    parts = re.split(r"(--[a-z]\w*(?:\.\w+)*(?: (?=[\w.-]*[\d-])[\w.-]*\w)?)", words)
    return tuple(Span(part, tone="code" if i % 2 else "") for i, part in enumerate(parts) if part)


def linked(words: str, runs: Iterable[Run]) -> Text:
    """A number that leads to its run; to each of them by its seed, if it is made of several."""
    runs = list(runs)
    if len(runs) == 1:
        return (Span(words, folder(runs[0])),)
    spans: list[str | Span] = [words]
    for run in runs:
        spans += [" ", Span(f"s{run.point.seed}", folder(run), "small")]
    return text(*spans)


def sample(n: int) -> Text:
    """How many seeds; one is marked, because one run says nothing of noise."""
    return (Span("n = 1", tone="note"),) if n == 1 else (Span(str(n)),)


def measured(runs: Sequence[Run], metric: str, digits: int = 4) -> Text:
    """Mean and standard deviation of what runs came to in a metric, with links to those that have it."""
    found = [(run, value) for run in runs if (value := value_of(run, metric)) is not None]
    if not found:
        return (Span(NOTHING),)
    return linked(spread(summary([value for _, value in found]), digits), [run for run, _ in found])


def variants(study: Study, experiment: str) -> list[Variant]:
    """Those of an experiment, none if it is not in the plan."""
    return study.experiments.get(experiment, [])


def trained(study: Study, experiment: str) -> list[Run]:
    """Finished runs of an experiment that varies nothing within itself."""
    return [run for variant in variants(study, experiment)[:1] for run in variant.runs if run.rows]


def is_synthetic(study: Study) -> bool:
    """Whether any of its images are not CIFAR-10's: then nothing is compared with the original report."""
    return any(record.source != "cifar10" for record in study.records.values())
