"""Figures that decide a statement: where they come from, which are missing, and how they read."""

import math
from collections.abc import Sequence
from dataclasses import replace

from cifar_lightning.report.claims import comparable
from cifar_lightning.report.noise import Figure, noise_of
from cifar_lightning.report.statistics import Difference, paired
from cifar_lightning.report.words import number
from cifar_lightning.results.study_results import Run, Study

POINT = 0.01  # of accuracy; an effect that is certainly smaller is none

SHORTER = "Runs with other numbers of epochs or images than the report's don't count."

# What a statement comes down to: whether the records bear it out, None if they don't tell, and the figures in words.
Part = tuple[bool | None, str]


class Evidence:
    """Finds runs that may be compared with the report's, and remembers which there were and which not.

    Args:
        study: Where to look.

    Attributes:
        missing: What was needed and is not there, in words.
        remarks: What else is worth saying, in sentences.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.missing: list[str] = []
        self.remarks: list[str] = []
        self._found: dict[int, Run] = {}

    @property
    def runs(self) -> tuple[Run, ...]:
        """Those found so far."""
        return tuple(self._found.values())

    def find(self, experiment: str, *, needed: bool = True) -> list[Run]:
        """The runs of an experiment."""
        done = [run for variant in self.study.experiments.get(experiment, []) for run in variant.runs]
        runs = [run for run in done if run.rows and comparable(run)]
        if len(runs) < len(done) and SHORTER not in self.remarks:
            self.remarks.append(SHORTER)
        self._found |= {id(run): run for run in runs}
        if needed and not runs:
            self.miss(experiment)
        return runs

    def sweep(self, experiment: str, setting: str, needed: Sequence[float] = ()) -> dict[float, list[Run]]:
        """The runs of each value of a setting, in ascending order; those needed are all there, some with no run."""
        found: dict[float, list[Run]] = {value: [] for value in needed}
        for run in self.find(experiment, needed=False):
            if setting in run.point.varied:
                found.setdefault(run.point.varied[setting], []).append(run)
        for value, runs in found.items():
            if not runs:
                self.miss(f"{experiment} at {value:g}")
        return dict(sorted(found.items()))

    def difference(self, a: Sequence[Run], b: Sequence[Run], figure: Figure | None = None) -> Difference | None:
        """What `a` has over `b` in a figure, seed by seed; in the best validation accuracy if none is named."""
        figure = figure or accuracy
        found = paired(_by_seed(a, figure), _by_seed(b, figure), noise_of(self.study, figure))
        if a and b and found is None:
            self.miss(f"a seed that {a[0].point.experiment} and {b[0].point.experiment} have in common")
        if found and found.low is None:
            self.miss("a main run or ablation with several seeds, which would tell the noise")
        return found

    def miss(self, what: str) -> None:
        """Notes what is missing, once."""
        if what not in self.missing:
            self.missing.append(what)


def accuracy(run: Run) -> float:
    """The best validation accuracy."""
    return run.best["val/acc"]


def _by_seed(runs: Sequence[Run], figure: Figure) -> dict[int, float]:
    return {run.point.seed: value for run in runs if (value := figure(run)) is not None}


def less(a: Difference, b: Difference) -> Difference:
    """The difference of two differences of other networks: their intervals add in quadrature."""
    n, mean, borrowed = min(a.n, b.n), a.mean - b.mean, a.borrowed or b.borrowed
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Difference(n, mean, None, None, None, borrowed)
    half = math.hypot(a.high - a.low, b.high - b.low) / 2
    return Difference(n, mean, None, mean - half, mean + half, borrowed)


def exceeds(difference: Difference | None, least: float, floor: float = 0.0) -> bool | None:
    """Whether there is a difference of any weight, as far as its interval tells.

    Returns:
        False if all of the interval is below `least`: such an effect is none, even if it is certain. Otherwise True if
        all of it is above `floor`. None if it tells neither.
    """
    if difference is None or difference.low is None or difference.high is None:
        return None
    return False if difference.high < least else True if difference.low > floor else None


def points(difference: Difference) -> str:
    """`2.10 points (0.90 to 3.30, n = 3)`, of accuracies."""
    interval = f"n = {difference.n}"
    if difference.low is not None and difference.high is not None:
        interval = f"{number(100 * difference.low, 2)} to {number(100 * difference.high, 2)}, {interval}"
    return f"{number(100 * difference.mean, 2)} points ({interval}{', noise borrowed' if difference.borrowed else ''})"


def moved(difference: Difference, up: str, down: str) -> str:
    """`gains 2.10 points (0.90 to 3.30, n = 3)`, or of a negative difference what it loses, as a positive number.

    Args:
        difference: Of accuracies.
        up: What is said of a positive one, with `{}` for the points.
        down: What is said of a negative one.
    """
    if difference.mean >= 0:
        return up.format(points(difference))
    low, high = difference.high, difference.low  # whose signs change below
    turned = replace(difference, mean=-difference.mean, low=low and -low, high=high and -high)
    return down.format(points(turned))
