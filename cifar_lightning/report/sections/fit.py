"""Over- and underfitting, run by run."""

from cifar_lightning.report.blocks import Block, Group, Paragraph, Section, Span, Table, Text, listed, text
from cifar_lightning.report.fitting import RULES, judge
from cifar_lightning.report.words import linked, prose, run_name, signed, title, variants
from cifar_lightning.results.study_results import Run, Study

HEAD = ("", "verdict", "best epoch", "gap there", "gap at the end", "rise of validation loss", "why, and what to try")
INTRO = (
    "The gap is the accuracy on training images less that on validation images, both in evaluation mode. The rise"
    " is that of the validation loss from its lowest to the last epoch, in nats. The best epoch is that of the "
    "highest validation accuracy."
)


def fit(study: Study) -> Section:
    """A verdict on every finished run, and the rules that make it."""
    groups = [Group(text(title(name)), rows) for name in study.experiments if (rows := _rows(study, name))]
    rules = [[text(Span(verdict, tone="strong")), prose(rule)] for verdict, rule in RULES]
    blocks: list[Block] = [Paragraph(text(INTRO))]
    if groups:
        blocks.append(Table("Verdict on every run", HEAD, "ttnnnnp", groups))
    else:
        blocks.append(Paragraph(text("No run has finished yet.")))
    blocks += listed("The rules, in the order in which they are tried", ("verdict", "rule"), "tp", rules)
    return Section(6, "Over- and underfitting", "fitting", blocks)


def _rows(study: Study, experiment: str) -> list[list[Text]]:
    return [_row(run) for variant in variants(study, experiment) for run in variant.runs if run.rows]


def _row(run: Run) -> list[Text]:
    found = judge(run.rows)
    return [
        linked(run_name(run), [run]),
        text(Span(found.verdict, tone="strong")),
        text(str(found.best_epoch)),
        *(text(signed(value)) for value in (found.gap_at_best, found.gap_at_end, found.val_loss_rise)),
        text(found.why, " To try: ", prose(found.advice), "."),
    ]
