"""The original report's numbers beside ours."""

from collections.abc import Sequence

from cifar_lightning.report.blocks import Group, Paragraph, Section, Span, Table, Text, text
from cifar_lightning.report.claims import RULE, Comparison, garbled
from cifar_lightning.report.words import METRICS, NOTHING, between, linked, number, plain, sample, signed, spread, title

HEAD = ("", "original", "ours", "reproduced?", "n", "difference", "expected within")
INTRO = (
    "Ours is the mean over seeds, with the sample standard deviation where there are several, and a link to each "
    "run. Training figures are those of the last epoch, as trained; losses are in nats, accuracies are fractions."
    " The original number counts as reproduced if it lies within what the rule below the table expects."
)


def results(comparisons: Sequence[Comparison]) -> Section:
    """Every number of the original report, what came out here, and whether that is the same."""
    groups: dict[str, list[list[Text]]] = {}
    for each in comparisons:
        metric = f": {_metric(each)}" if each.claim.varied else ""
        doubt = " (digits partly garbled in the original)" if garbled(each.claim.experiment) else ""
        groups.setdefault(f"{title(each.claim.experiment)}{metric}{doubt}", []).append(_row(each))
    table = Table(
        "The original report's numbers and ours",
        HEAD,
        "tnntnnn",
        [Group(text(name), rows) for name, rows in groups.items()],
    )
    return Section(
        2, "Results", "results", [Paragraph(text(INTRO)), table, Paragraph(text(Span("Rule. ", tone="strong"), RULE))]
    )


def _row(comparison: Comparison) -> list[Text]:
    claim = comparison.claim
    digits = 1 if claim.metric == "seconds" else 4
    ours = linked(spread(comparison.ours, digits), comparison.runs if comparison.ours else ())
    return [
        text(_name(comparison)),
        text(number(claim.value, digits)),
        ours,
        text(NOTHING if claim.metric == "seconds" else reproduced(comparison.reproduced)),
        sample(comparison.ours.n if comparison.ours else 0),
        text(signed(comparison.difference, digits)),
        text(between(comparison.low, comparison.high, digits), borrowed(comparison.borrowed)),
    ]


def _name(comparison: Comparison) -> str:
    varied = [f"{name.rpartition('.')[2]} {plain(value)}" for name, value in comparison.claim.varied.items()]
    return ", ".join(varied).replace("_", " ") or _metric(comparison)


def _metric(comparison: Comparison) -> str:
    return METRICS.get(comparison.claim.metric, comparison.claim.metric)


def reproduced(verdict: bool | None) -> Span:
    """A badge."""
    return (
        Span("open", tone="open")
        if verdict is None
        else Span("yes", tone="good")
        if verdict
        else Span("no", tone="bad")
    )


def borrowed(is_so: bool) -> Text:
    """Marks an interval whose noise is that of other settings."""
    return (Span(" "), Span("borrowed", tone="note")) if is_so else ()
