"""What came out, in three sentences."""

from collections.abc import Mapping, Sequence

from cifar_lightning.report.blocks import Paragraph, Section, Span, Text, text
from cifar_lightning.report.claims import Comparison, claims
from cifar_lightning.report.sections.ablations import ABLATIONS, effect
from cifar_lightning.report.statements import Verdict
from cifar_lightning.report.words import is_synthetic, measured, names, number, signed, title, trained
from cifar_lightning.results.study_results import Study

METRIC = "best_val/acc"


def summary(study: Study, comparisons: Sequence[Comparison], verdicts: Sequence[Verdict]) -> Section:
    """The first section: numbers, accuracies, statements."""
    sentences = (_numbers(comparisons), _accuracies(study), _statements(verdicts))
    return Section(1, "Summary", "summary", [Paragraph(sentence) for sentence in sentences])


def _numbers(comparisons: Sequence[Comparison]) -> Text:
    found = [comparison.reproduced for comparison in comparisons if comparison.claim.metric != "seconds"]
    counts = {"reproduced": found.count(True), "not reproduced": found.count(False), "open": found.count(None)}
    words = f"Of the original report's {len(found)} numbers, durations aside, {_counted(counts)} ("
    return text(words, Span("table and rule", "#results"), ").")


def _counted(counts: Mapping[str, int]) -> str:
    """`3 are supported and 1 is open`; what there is none of is left out."""
    return names([f"{n} {'is' if n == 1 else 'are'} {what}" for what, n in counts.items() if n])


def _accuracies(study: Study) -> Text:
    parts = [_accuracy(study, experiment) for experiment in ("cnn", "mlp") if trained(study, experiment)]
    if not parts:
        return text("Neither the CNN nor the MLP has been trained yet.")
    joined = text(*parts[:1], *(text(" and ", part) for part in parts[1:]))
    return text("Of the best validation accuracies, ", joined, _worth(study), ".")


def _accuracy(study: Study, experiment: str) -> Text:
    runs = trained(study, experiment)
    (claimed,) = (claim.value for claim in claims() if (claim.experiment, claim.metric) == (experiment, METRIC))
    beside = "" if is_synthetic(study) else f"; the original report: {number(claimed)}"
    return text(f"the {title(experiment)}'s is ", measured(runs, METRIC), f" (n = {len(runs)}{beside})")


def _worth(study: Study) -> Text:
    """What batch norm and dropout add, as far as it is known."""
    gains: dict[str, list[str]] = {}
    for ablation in ABLATIONS:
        if found := effect(study, ablation, METRIC):
            gains.setdefault(ablation.part, []).append(f"{ablation.model} {signed(found.mean)}")
    words = [f"by {part}: {', '.join(those)}" for part, those in gains.items()]
    return text("; ", Span("gain", "#ablations"), f" {'; '.join(words)}") if words else ()


def _statements(verdicts: Sequence[Verdict]) -> Text:
    parts: list[Text] = []
    for verdict in ("supported", "not supported", "open"):
        ids = [Span(each.statement.id, f"#{each.statement.id}") for each in verdicts if each.verdict == verdict]
        if ids:
            listed = text(*ids[:1], *(text(", ", each) for each in ids[1:]))
            parts.append(text(f"{_counted({verdict: len(ids)})} (", listed, ")"))
    joined = text(*parts[:1], *(text("; ", part) for part in parts[1:]))
    return text(f"Of its {len(verdicts)} ", Span("statements", "#statements"), ", ", joined, ".")
