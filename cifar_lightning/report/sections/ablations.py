"""What batch norm and dropout are worth, and a CNN instead of an MLP, seed by seed."""

from dataclasses import dataclass

from cifar_lightning.report.blocks import Block, Figure, Group, Paragraph, Section, Table, Text, text
from cifar_lightning.report.claims import claims
from cifar_lightning.report.figures.differences import Effect, forest
from cifar_lightning.report.noise import value_of
from cifar_lightning.report.sections import differences
from cifar_lightning.report.statistics import Difference
from cifar_lightning.report.words import METRICS, is_synthetic, linked, number, sample, signed, trained
from cifar_lightning.results.study_results import Run, Study


@dataclass(frozen=True)
class Ablation:
    """A part of a network, and the experiments with it and without it."""

    part: str
    model: str
    whole: str
    without: str

    @property
    def name(self) -> str:
        """Of its row."""
        return f"{self.part}, {self.model}" if self.model else self.part


ABLATIONS = tuple(
    Ablation(part.replace("_", " "), model.upper(), model, f"{model}_no_{part}")
    for part in ("batch_norm", "dropout")
    for model in ("cnn", "mlp")
)
# Many times what a part is worth: in the figure it would leave the others no room.
TABLED = (*ABLATIONS, Ablation("CNN instead of MLP", "", "cnn", "mlp"))
SHOWN = ("best_val/acc", "test/acc")
HEAD = ("", "gain", "sd", "n", *differences.HEAD, "original report", "with", "without")
CAPTION = (
    "Best validation accuracy of the whole network less that of the network without the part, so that what helps "
    "lies to the right of 0. Dot: mean over the seeds that both have. Line: its 95 % interval; a dashed one is "
    "borrowed, that is, made of the seed noise of other settings because there is one seed."
)
NOTE = (
    "Differences are taken seed by seed: gain is their mean, sd their sample standard deviation. With one seed, the "
    "interval and the answer that it gives are borrowed. Of CNN instead of MLP, 'with' is the CNN."
)
DIAMOND = " Hollow diamond: the original report, from one run each."


def effect(study: Study, ablation: Ablation, metric: str) -> Difference | None:
    """With less without; None unless both have a seed in common."""
    return differences.difference(study, trained(study, ablation.whole), trained(study, ablation.without), metric)


def ablations(study: Study) -> Section:
    """The figure and its table."""
    effects = [
        Effect(f"{ablation.part.capitalize()}, {ablation.model}", found, gain_claimed(study, ablation, SHOWN[0]))
        for ablation in ABLATIONS
        if (found := effect(study, ablation, SHOWN[0]))
    ]
    blocks: list[Block] = []
    if effects:
        label = "gain in best validation accuracy"
        caption = CAPTION + ("" if is_synthetic(study) else DIAMOND)
        blocks.append(Figure([forest("ablations", label, effects)], caption))
    else:
        blocks.append(Paragraph(text("Nothing to compare yet: no network has a seed with and without a part.")))
    groups = [
        Group(text(METRICS[metric].capitalize()), [_row(study, ablation, metric) for ablation in TABLED])
        for metric in SHOWN
    ]
    blocks += [Table("Gain by batch norm, dropout and the CNN", HEAD, "tnnnntnnn", groups), Paragraph(text(NOTE))]
    return Section(4, "Ablations", "ablations", blocks)


def gain_claimed(study: Study, ablation: Ablation, metric: str) -> float | None:
    """What the original report's two numbers differ by; None without both, and beside images of another kind."""
    values = {claim.experiment: claim.value for claim in claims() if claim.metric == metric and not claim.varied}
    whole, without = values.get(ablation.whole), values.get(ablation.without)
    return None if whole is None or without is None or is_synthetic(study) else whole - without


def _row(study: Study, ablation: Ablation, metric: str) -> list[Text]:
    found = effect(study, ablation, metric)
    gain, interval, larger = differences.cells(found)
    return [
        text(ablation.name),
        gain,
        text(number(found.sd if found else None)),
        sample(found.n if found else 0),
        interval,
        larger,
        text(signed(gain_claimed(study, ablation, metric))),
        *(_values(trained(study, name), metric) for name in (ablation.whole, ablation.without)),
    ]


def _values(runs: list[Run], metric: str) -> Text:
    """Each seed's figure, a link to its run."""
    values = [(run, value) for run in runs if (value := value_of(run, metric)) is not None]
    parts = [text(" " if i else "", linked(number(value), [run])) for i, (run, value) in enumerate(values)]
    return text(*parts) if parts else text(number(None))
