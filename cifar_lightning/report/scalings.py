"""Which scaling of dropout explains the numbers of the original's CNN, by the rule of report.md.j2."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from scipy import stats

from cifar_lightning.report.claims import SCALINGS, Claim, compare


def predict(table: pd.DataFrame, claims: Sequence[Claim]) -> dict[str, list[tuple[Claim, ...]]]:
    """Return by model the numbers that all `SCALINGS` predict, with the claim of each; `claims` are those of stock."""
    found = dict[str, list[tuple[Claim, ...]]](cnn=[], mlp=[])
    for each in zip(claims, *(compare(table, scaling) for scaling in SCALINGS[1:]), strict=True):
        if all(claim.verdict != "open" for claim in each):
            found["mlp" if each[0].experiment.startswith("mlp") else "cnn"].append(each)
    return found


class Fit(NamedTuple):
    """How well networks predict some numbers of the original."""

    n: int  # numbers
    reproduced: int  # of them, by the rule of `compare`
    likelihood: float  # its logarithm, as if the numbers were independent


def _fit(claims: Sequence[Claim]) -> Fit:
    # The broad tails of n - 1 degrees of freedom, so that a number that nothing predicts does not decide it all.
    found = [(claim.ours.student(max(1, claim.ours.n - 1)), claim.value) for claim in claims if claim.ours]
    likelihood = sum(float(distribution.logpdf(value)) for distribution, value in found)
    return Fit(len(claims), sum(claim.verdict == "reproduced" for claim in claims), likelihood)


def explain(predicted: dict[str, list[tuple[Claim, ...]]]) -> dict[str, tuple[Fit, Fit, str]]:
    """Return by scaling how well it predicts the original's CNN and its MLP, and whether it explains the CNN."""
    fits = [[_fit([each[i] for each in those]) for those in predicted.values()] for i in range(len(SCALINGS))]
    (stock, control), found = fits[0], dict[str, tuple[Fit, Fit, str]]()
    for scaling, (cnn, mlp) in zip(SCALINGS, fits, strict=True):
        better = cnn.reproduced > stock.reproduced and mlp.reproduced < control.reproduced
        enough = cnn.reproduced >= fewest(cnn.n) > stock.reproduced
        verdict = "does not explain it" if not better else "explains it" if enough else "explains it in part"
        found[scaling] = cnn, mlp, verdict if cnn.n and mlp.n else "leaves it open"
    return found


def fewest(n: int) -> int:
    """Return how many of n numbers 95% intervals hold at least, in 97.5% of all cases."""
    return int(stats.binom.ppf(0.025, n, 0.95))
