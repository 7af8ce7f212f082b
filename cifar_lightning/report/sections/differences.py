"""One setting less another, as three cells of a table."""

from collections.abc import Sequence

from cifar_lightning.report.blocks import Span, Text, text
from cifar_lightning.report.noise import seed_noise, value_of
from cifar_lightning.report.sections.results import borrowed
from cifar_lightning.report.statistics import Difference, paired
from cifar_lightning.report.words import interval, signed
from cifar_lightning.results.study_results import Run, Study

HEAD = ("95 % interval", "larger than seed noise?")  # of the second cell and the third; the first one's is its table's


def difference(study: Study, a: Sequence[Run], b: Sequence[Run], metric: str) -> Difference | None:
    """What `a` has over `b`, seed by seed; None unless both have a seed in common."""
    return paired(_by_seed(a, metric), _by_seed(b, metric), seed_noise(study, metric))


def cells(found: Difference | None) -> tuple[Text, Text, Text]:
    """The mean difference, its interval, and whether it is larger than what seeds do alone."""
    if found is None:
        return text(signed(None)), text(interval(None, None)), text(_larger(found))
    ends = text(interval(found.low, found.high), borrowed(found.borrowed))
    return text(signed(found.mean)), ends, text(_larger(found))


def _by_seed(runs: Sequence[Run], metric: str) -> dict[int, float]:
    found = ((run.point.seed, value_of(run, metric)) for run in runs)
    return {seed: value for seed, value in found if value is not None}


def _larger(found: Difference | None) -> Span:
    if found is None or found.larger_than_noise is None:
        return Span("unknown", tone="open")
    answer = "yes" if found.larger_than_noise else "no"
    return Span(f"{answer} (borrowed)" if found.borrowed else answer, tone="strong")
