"""Accuracy against batch size, dropout rate and learning rate."""

from collections.abc import Callable, Mapping
from math import ceil

from cifar_lightning.report.blocks import Block, Figure, Heading, Paragraph, Section, Text, listed, text
from cifar_lightning.report.claims import claims
from cifar_lightning.report.figures.curves import loss_top
from cifar_lightning.report.figures.sweeps import Line, accuracies, losses
from cifar_lightning.report.noise import value_of
from cifar_lightning.report.sections import differences
from cifar_lightning.report.sections.others import others
from cifar_lightning.report.words import (
    METRICS,
    NOTHING,
    is_synthetic,
    measured,
    number,
    plain,
    sample,
    title,
    variants,
)
from cifar_lightning.results.study_results import Run, Study, Variant

METRIC = "best_val/acc"
BATCH_SIZES = {"batch_size": "equal epochs", "batch_size_updates": "equal updates", "batch_size_scaled": "scaled rate"}
DROPOUT = {"dropout": "here"}
LEARNING_RATE = {"learning_rate": "here"}
# What the other values of a sweep are compared with: the recipe's, and no dropout.
STANDARD = {"data.batch_size": 100, "model.dropout": 0.0, "model.lr": 1e-3}
BATCH_CAPTION = (
    "Best validation accuracy of the CNN against batch size, on a logarithmic axis. Equal epochs: as the original"
    " report did it, so that ten times the batch makes a tenth of the updates. Equal updates: every size makes as"
    " many as the largest. Scaled rate: equal epochs, and the learning rate grows with the square root of the "
    "batch size. Dotted: chance."
)
DROPOUT_CAPTION = "Best validation accuracy of the CNN against dropout rate. Dotted: chance."
DIAMONDS = " Hollow diamonds: the original report."
NOTE = (
    "Differences are to the standard value of the same line: the recipe's batch size and learning rate, and no dropout."
    " They are taken seed by seed; with one seed, the interval and the answer that it gives are borrowed."
)
RATE_CAPTION = (
    "First: best validation accuracy of the MLP against learning rate, on a logarithmic axis. Second: the "
    "training loss over the epochs (lowest seed), a line a learning rate. A rate that is too low sinks slowly to "
    "the end, one that is too high stays up or jumps."
)


def sweeps(study: Study) -> Section:
    """The three sweeps, and every experiment that the report does not know."""
    ours = [*_batch_size(study), *_dropout(study), *_learning_rate(study)]
    blocks: list[Block] = [Paragraph(text(NOTE)), *ours, *others(study)]
    return Section(5, "Sweeps", "sweeps", blocks)


def _batch_size(study: Study) -> list[Block]:
    setting = "data.batch_size"
    claimed = _claimed(study, "batch_size", setting)
    lines = _lines(study, setting, BATCH_SIZES)
    rows = []
    for experiment, name in BATCH_SIZES.items():
        for x, variant, against in _compared(study, experiment, setting):
            original = claimed.get(x) if experiment == "batch_size" else None
            cells = (name, _of_first(variant, _rate), _of_first(variant, _updates))
            rows.append((x, [text(f"{x:,}"), *map(text, cells), *_measures(variant), *against, text(number(original))]))
    head = ("batch size", "", "learning rate", "updates", *_head(setting), "original report")
    by_size = [row for _, row in sorted(rows, key=lambda row: row[0])]
    table = listed("Best validation accuracy by batch size", head, "ntnnnnnntn", by_size)
    return [
        Heading("5.1", "Batch size", "batch-size"),
        *_figure("batch_size", "batch size", lines, claimed, BATCH_CAPTION, log=True),
        *table,
        *_missing(study, BATCH_SIZES),
    ]


def _dropout(study: Study) -> list[Block]:
    setting = "model.dropout"
    claimed = _claimed(study, "dropout", setting)
    lines = _lines(study, setting, DROPOUT)
    rows = [
        [text(plain(x)), *_measures(variant), *against, text(number(claimed.get(x)))]
        for x, variant, against in _compared(study, "dropout", setting)
    ]
    head = ("dropout rate", *_head(setting), "original report")
    table = listed("Best validation accuracy by dropout rate", head, "nnnnntn", rows)
    return [
        Heading("5.2", "Dropout rate", "dropout-rate"),
        *_figure("dropout", "dropout rate", lines, claimed, DROPOUT_CAPTION, log=False),
        *table,
        *_missing(study, DROPOUT),
    ]


def _learning_rate(study: Study) -> list[Block]:
    heading, setting = Heading("5.3", "Learning rate", "learning-rate"), "model.lr"
    lines = _lines(study, setting, LEARNING_RATE)
    if not lines:
        return [heading, *_missing(study, LEARNING_RATE)]
    steps = _steps(study, "learning_rate", setting)
    drawings = [accuracies("learning_rate", "learning rate", lines, {}, log=True)]
    runs = [(plain(x), variant.runs[0].rows) for x, variant in steps if variant.runs and variant.runs[0].rows]
    drawings.append(losses("learning_rate_loss", "Training loss", runs, loss_top([[rows] for _, rows in runs])))
    rows = [
        [text(plain(x)), *_measures(variant), *against, measured(variant.runs, "train/loss")]
        for x, variant, against in _compared(study, "learning_rate", setting)
    ]
    head = ("learning rate", *_head(setting), "train loss at the end")
    table = listed("Best validation accuracy by learning rate", head, "nnnnntn", rows)
    return [heading, Figure(drawings, RATE_CAPTION), *table, *_missing(study, LEARNING_RATE)]


def _steps(study: Study, experiment: str, setting: str) -> list[tuple[float, Variant]]:
    """The variants of a sweep with what was set, in its order."""
    found = [(variant.varied.get(setting), variant) for variant in variants(study, experiment)]
    return sorted(((x, variant) for x, variant in found if isinstance(x, int | float)), key=lambda step: step[0])


def _head(setting: str) -> tuple[str, ...]:
    """Of what `_measures` and `_compared` make of a variant."""
    return METRICS[METRIC], "n", f"less that of {plain(STANDARD[setting])}", *differences.HEAD


def _compared(study: Study, experiment: str, setting: str) -> list[tuple[float, Variant, tuple[Text, Text, Text]]]:
    """The steps of a sweep, each with what it has over the standard one of the same sweep."""
    steps = _steps(study, experiment, setting)
    standard = [run for x, variant in steps if x == STANDARD[setting] for run in variant.runs]
    itself = (text(NOTHING), text(NOTHING), text(NOTHING))
    return [
        (x, variant, itself)
        if x == STANDARD[setting]
        else (x, variant, differences.cells(differences.difference(study, variant.runs, standard, METRIC)))
        for x, variant in steps
    ]


def _values(variant: Variant) -> list[float]:
    return [value for run in variant.runs if (value := value_of(run, METRIC)) is not None]


def _measures(variant: Variant) -> tuple[Text, Text]:
    return measured(variant.runs, METRIC), sample(len(_values(variant)))


def _lines(study: Study, setting: str, ways: Mapping[str, str]) -> list[Line]:
    """A line for every way of which there is a point."""
    lines = []
    for experiment, name in ways.items():
        points = [(x, values) for x, variant in _steps(study, experiment, setting) if (values := _values(variant))]
        lines += [Line(name, points)] if points else []
    return lines


def _figure(
    name: str, label: str, lines: list[Line], claimed: dict[float, float], caption: str, *, log: bool
) -> list[Figure]:
    """Ours beside the original report's; none where there is neither."""
    if not lines and not claimed:
        return []
    return [Figure([accuracies(name, label, lines, claimed, log=log)], caption + (DIAMONDS if claimed else ""))]


def _claimed(study: Study, experiment: str, setting: str) -> dict[float, float]:
    """The original report's points; none beside images of another kind."""
    if is_synthetic(study):
        return {}
    found = (claim for claim in claims() if claim.experiment == experiment and claim.metric == METRIC)
    return {claim.varied[setting]: claim.value for claim in found if setting in claim.varied}


def _missing(study: Study, ways: Mapping[str, str]) -> list[Block]:
    absent = [title(name) for name in ways if not any(_values(variant) for variant in variants(study, name))]
    return [Paragraph(text(f"Not run yet: {'; '.join(absent)}."))] if absent else []


def _of_first(variant: Variant, figure: Callable[[Run], str]) -> str:
    """What is the same for all seeds of a variant."""
    return figure(variant.runs[0]) if variant.runs else NOTHING


def _rate(run: Run) -> str:
    return plain(run.record.settings.get("model.lr", NOTHING))


def _updates(run: Run) -> str:
    size = run.record.settings.get("data.batch_size")
    if not size:
        return NOTHING
    most = run.record.settings.get("trainer.limit_train_batches")
    an_epoch = ceil(run.record.images_per_epoch / size)
    return f"{len(run.rows) * (min(an_epoch, most) if isinstance(most, int) else an_epoch):,}"
