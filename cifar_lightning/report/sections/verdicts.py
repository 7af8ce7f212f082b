"""What became of the original report's statements."""

from collections.abc import Sequence

from cifar_lightning.report.blocks import Card, Cards, Paragraph, Section, Span, Text, Tone, text
from cifar_lightning.report.statements import RULES, Verdict
from cifar_lightning.report.words import folder, prose, title, variant_name, variant_title
from cifar_lightning.results.study_results import Run

TONES: dict[str, Tone] = {"supported": "good", "not supported": "bad", "open": "open"}


def statements(verdicts: Sequence[Verdict]) -> Section:
    """The rules, and a card for each, with the figures that decide it and the runs that these come from."""
    cards = [
        Card(
            each.statement.id,
            Span(each.verdict, tone=TONES[each.verdict]),
            text(each.statement.text),
            prose(each.why),
            _evidence(each.runs),
        )
        for each in verdicts
    ]
    rules = text(Span("Rules. ", tone="strong"), RULES, " Over- and underfitting have ", Span("rules", "#fitting"), ".")
    return Section(7, "Statements", "statements", [Paragraph(rules), Cards(cards)])


def _evidence(runs: Sequence[Run]) -> Text:
    """Links to the runs: experiments, in them variants, in them seeds."""
    found: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        experiment, variant = run.point.experiment, run.point.variant
        own = "" if variant_title(experiment, variant) == title(experiment) else variant_name(variant)
        found.setdefault(title(experiment), {}).setdefault(own, []).append(run)
    parts: list[str | Span] = []
    for experiment, variants in found.items():
        parts.append(f"{'; ' if parts else 'Runs: '}{experiment}")
        for i, (own, those) in enumerate(variants.items()):
            parts.append(f"{', ' if i else ': '}{own}" if own else "")
            for run in those:
                parts += [" ", Span(f"s{run.point.seed}", folder(run), "small")]
    return text(*parts)
