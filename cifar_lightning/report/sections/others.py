"""Experiments that the report has no section for."""

from cifar_lightning.report.blocks import Block, Group, Heading, Table, Text, text
from cifar_lightning.report.noise import value_of
from cifar_lightning.report.words import METRICS, TITLES, measured, sample, variant_name
from cifar_lightning.results.study_results import Study, Variant

METRIC = "best_val/acc"
HEAD = ("", METRICS[METRIC], "n", METRICS["test/acc"])


def others(study: Study) -> list[Block]:
    """A table of what they came to; nothing if there are none."""
    groups = [
        Group(text(name), [_row(variant) for variant in those])
        for name, those in study.experiments.items()
        if name not in TITLES
    ]
    table = Table("Other experiments", HEAD, "tnnn", groups)
    return [Heading("5.4", "Other experiments", "others"), table] if groups else []


def _row(variant: Variant) -> list[Text]:
    n = sum(value_of(run, METRIC) is not None for run in variant.runs)
    return [
        text(variant_name(variant.name)),
        measured(variant.runs, METRIC),
        sample(n),
        measured(variant.runs, "test/acc"),
    ]
