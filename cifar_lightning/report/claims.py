"""What the original report states, and whether its numbers came out again."""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from cifar_lightning.report.noise import seed_noise, value_of
from cifar_lightning.report.statistics import UPPER, Noise, Summary, summary, t_quantile
from cifar_lightning.results.study_results import Run, Study

RULE = """\
Each number of the report comes from one run. It counts as reproduced if it lies where one more run of ours may be \
expected: in the 95 % prediction interval of our runs, mean ± t · sd · √(1 + 1/n), where sd is the standard deviation \
of our n seeds and t the 97.5 % quantile of Student's distribution. Of a single seed (n = 1) the sd is borrowed: it is \
that of the same figure over the seeds of those main runs and ablations that have several, MLP and CNN pooled. An \
accuracy p on 10,000 validation images is also a sample of what it would be on all images, with a standard deviation \
of √(p(1 - p)/10,000). The report's validation images are others than ours, so √2 times 1.96 times that is added in \
quadrature. It is not for test accuracies, as both are of the same 10,000 images; nor is there such a term for losses. \
The wider 'expected within' is, the less a yes says. The accuracies of sweeps are compared with our best validation \
epoch, as the report does not say of which epoch they are. A comparison is open where nothing tells the sd, where our \
runs had fewer or more epochs or images than the report's, where the images are synthetic, or where digits of the \
report's run are garbled. Seconds are never judged: the hardware is another.\
"""

IMAGES = 10_000  # of the validation set
NORMAL = 1.96  # the 97.5 % quantile where the standard deviation is known
# How often the sampling of images counts, in variances: the report's and ours.
SAMPLED = {"val/acc": 2, "best_val/acc": 2}


@dataclass(frozen=True)
class Claim:
    """A number of the report.

    Attributes:
        experiment: The experiment that does it again.
        varied: Which of its variants, dotted: `{"data.batch_size": 10}`; nothing where there is one.
        metric: As `value_of` takes it.
        value: What the report says.
    """

    experiment: str
    varied: dict[str, Any]
    metric: str
    value: float


@dataclass(frozen=True)
class Statement:
    """A conclusion of the report, in words."""

    id: str
    text: str


@dataclass(frozen=True)
class Comparison:
    """A number of the report beside ours.

    Attributes:
        claim: The report's.
        runs: Ours, those that have this figure.
        ours: What they came to; None without any.
        low: Lower end of the interval in which the claim is expected; None where it is open.
        high: Upper end.
        borrowed: Whether the interval was made with the noise of other runs.
        reproduced: Whether the claim lies in it; None where it is open.
    """

    claim: Claim
    runs: tuple[Run, ...]
    ours: Summary | None
    low: float | None
    high: float | None
    borrowed: bool
    reproduced: bool | None

    @property
    def difference(self) -> float | None:
        """Ours less the report's."""
        return self.ours.mean - self.claim.value if self.ours else None


@cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("claims.yaml").read_text())
    return content


def claims() -> list[Claim]:
    """All numbers of the report: its runs, then its sweeps."""
    runs = [
        Claim(name, {}, metric, value)
        for name, figures in _content()["runs"].items()
        for metric, value in figures.items()
    ]
    sweeps = [
        Claim(sweep["experiment"], {sweep["varies"]: at}, sweep["metric"], value)
        for sweep in _content()["sweeps"]
        for at, value in sweep["values"].items()
    ]
    return runs + sweeps


def statements() -> list[Statement]:
    """All conclusions of the report, in its order."""
    return [Statement(id, text) for id, text in _content()["statements"].items()]


def garbled(experiment: str) -> bool:
    """Whether some digits of its run are illegible in the report, and nothing tells which."""
    return experiment in _content()["garbled"]


def comparable(run: Run) -> bool:
    """Whether it saw CIFAR-10, and as many images and epochs as the report's run, if there is one, did."""
    recipe, sweeps = _content()["recipe"], [sweep["experiment"] for sweep in _content()["sweeps"]]
    name = run.point.experiment
    if name in sweeps or name in _content()["runs"]:
        epochs = recipe["sweep_epochs" if name in sweeps else "epochs"]
        if (len(run.rows), run.record.images_per_epoch) != (epochs, recipe["images"]):
            return False
    return run.record.source == "cifar10"


def compare(study: Study) -> list[Comparison]:
    """Every number of the report beside ours, judged by `RULE`."""
    return [_compare(claim, study) for claim in claims()]


def _compare(claim: Claim, study: Study) -> Comparison:
    found = [(run, value) for run in _runs(claim, study) if (value := value_of(run, claim.metric)) is not None]
    runs, ours = tuple(run for run, _ in found), summary([value for _, value in found]) if found else None
    if ours and claim.metric != "seconds" and not garbled(claim.experiment) and all(map(comparable, runs)):
        noise = seed_noise(study, claim.metric) if ours.sd is None else Noise(ours.sd, ours.n - 1)
        if noise:
            half = _half(ours, noise, claim.metric)
            low, high = ours.mean - half, ours.mean + half
            return Comparison(claim, runs, ours, low, high, ours.sd is None, low <= claim.value <= high)
    return Comparison(claim, runs, ours, None, None, borrowed=False, reproduced=None)


def _runs(claim: Claim, study: Study) -> tuple[Run, ...]:
    variants = study.experiments.get(claim.experiment, [])
    if claim.varied:
        variants = [variant for variant in variants if claim.varied.items() <= variant.varied.items()]
    return variants[0].runs if len(variants) == 1 else ()


def _half(ours: Summary, noise: Noise, metric: str) -> float:
    """Half the interval in which one more run, on other images, is expected."""
    p = min(max(ours.mean, 0.0), 1.0)
    sampling = math.sqrt(SAMPLED.get(metric, 0) * p * (1 - p) / IMAGES)
    return math.hypot(t_quantile(UPPER, noise.df) * noise.sd * math.sqrt(1 + 1 / ours.n), NORMAL * sampling)
