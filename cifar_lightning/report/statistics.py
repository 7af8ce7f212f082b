"""Means, spreads and intervals of a few runs. All intervals are of 95 %."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

UPPER = 0.975  # the quantile at the upper end of an interval of 95 %


@dataclass(frozen=True)
class Summary:
    """What several runs of one setting came to.

    Attributes:
        n: How many.
        mean: Their mean.
        sd: Sample standard deviation (n - 1); None of a single run.
    """

    n: int
    mean: float
    sd: float | None


@dataclass(frozen=True)
class Noise:
    """How much runs differ by their seed alone.

    Attributes:
        sd: Standard deviation of one run.
        df: Degrees of freedom it was estimated with.
    """

    sd: float
    df: int


@dataclass(frozen=True)
class Difference:
    """What one setting has over another, seed by seed.

    Attributes:
        n: Seeds that both have.
        mean: Mean difference.
        sd: Sample standard deviation of the differences; None of a single one.
        low: Lower end of the interval of the mean; None where nothing tells the noise.
        high: Upper end.
        borrowed: Whether the noise is that of other settings, there being one seed only.
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    borrowed: bool

    @property
    def larger_than_noise(self) -> bool | None:
        """Whether the interval excludes 0; None where there is no interval."""
        return None if self.low is None or self.high is None else self.low > 0 or self.high < 0


def summary(values: Sequence[float]) -> Summary:
    """Number, mean and standard deviation of at least one value."""
    return Summary(len(values), statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def pooled(groups: Iterable[Sequence[float]]) -> Noise | None:
    """The standard deviation that groups have in common; None if none of them has two values or more.

    Each group varies around its own mean. Variances are averaged with the degrees of freedom as weights.
    """
    several = [group for group in groups if len(group) > 1]
    df = sum(len(group) - 1 for group in several)
    if not df:
        return None
    return Noise(math.sqrt(sum(statistics.variance(group) * (len(group) - 1) for group in several) / df), df)


def paired(a: Mapping[int, float], b: Mapping[int, float], noise: Noise | None) -> Difference | None:
    """What `a` has over `b`, by the seeds that both have.

    With two seeds or more the interval is that of Student's t. With one it is made of the noise of single runs, of
    which a difference has two.

    Args:
        a: A figure by seed.
        b: The same figure of the other setting.
        noise: Of single runs, for when there is one seed.

    Returns:
        a - b; None if no seed is in both.
    """
    differences = [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]
    if not differences:
        return None
    found = summary(differences)
    half = _half(found, noise)
    low, high = (None, None) if half is None else (found.mean - half, found.mean + half)
    return Difference(found.n, found.mean, found.sd, low, high, borrowed=found.sd is None and noise is not None)


def _half(differences: Summary, noise: Noise | None) -> float | None:
    """Half the interval of the mean difference."""
    if differences.sd is not None:
        return t_quantile(UPPER, differences.n - 1) * differences.sd / math.sqrt(differences.n)
    return t_quantile(UPPER, noise.df) * noise.sd * math.sqrt(2) if noise else None


def t_quantile(probability: float, df: int) -> float:
    """Quantile of Student's t distribution, to about 1e-9 of its value between 0.0001 and 0.9999.

    Args:
        probability: Between 0 and 1, without them.
        df: Degrees of freedom, 1 or more.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4: with t = sqrt(df) * tan(angle), the
    probability is a finite sum of powers of the angle's cosine. It grows with the angle, so the angle is bisected.
    """
    inside = abs(2 * probability - 1)  # the probability of -t to t
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        low, high = (angle, high) if _inside(angle, df) < inside else (low, angle)
    return math.copysign(math.sqrt(df) * math.tan(low), probability - 0.5)


def _inside(angle: float, df: int) -> float:
    odd = df % 2
    term, total = math.cos(angle) if odd else 1.0, 0.0
    for i in range(1 + odd, df, 2):
        total += term
        term *= i / (i + 1) * math.cos(angle) ** 2
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
