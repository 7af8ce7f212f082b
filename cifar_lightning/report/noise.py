"""A run's figures, and how much they differ by the seed alone."""

import math
from collections.abc import Callable

from cifar_lightning.report.statistics import Noise, pooled
from cifar_lightning.results.study_results import Run, Study

# Those that are run with several seeds, if any are.
SEEDED = ("cnn", "mlp", "cnn_no_batch_norm", "mlp_no_batch_norm", "cnn_no_dropout", "mlp_no_dropout")

Figure = Callable[[Run], float | None]


def value_of(run: Run, metric: str) -> float | None:
    """A run's figure, or None where it has none.

    Args:
        run: Any.
        metric: A column of metrics.csv, of which the last epoch counts; `best_val/acc`, the highest `val/acc`;
            `test/loss` or `test/acc`, of the best checkpoint; `seconds`, of all epochs together.
    """
    value: float | None
    if metric in ("test/loss", "test/acc"):
        value = getattr(run.test, metric.removeprefix("test/"), None)
    elif not run.rows:
        value = None
    elif metric == "best_val/acc":
        value = run.best["val/acc"]
    else:
        value = run.seconds if metric == "seconds" else run.last.get(metric)
    return value if value is not None and math.isfinite(value) else None


def seed_noise(study: Study, metric: str) -> Noise | None:
    """The standard deviation of a figure over seeds, pooled over the variants that have several; None if none has.

    What is measured on one network is lent to the other: with three seeds of the MLP and one of the CNN, the CNN's
    noise is taken to be the MLP's.
    """
    return noise_of(study, lambda run: value_of(run, metric))


def noise_of(study: Study, figure: Figure) -> Noise | None:
    """The same of whatever `figure` makes of a run."""
    variants = [variant for name in SEEDED for variant in study.experiments.get(name, [])]
    values = [[figure(run) for run in variant.runs] for variant in variants]
    return pooled([value for value in those if value is not None] for those in values)
