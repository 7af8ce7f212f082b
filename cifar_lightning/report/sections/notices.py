"""What must be known before any number is read."""

from collections.abc import Iterator

from cifar_lightning.report.blocks import Paragraph, Span, text
from cifar_lightning.report.words import is_synthetic, names
from cifar_lightning.results.study_results import Study

SYNTHETIC = "NOT CIFAR-10: synthetic images"
IMAGES = 40_000  # that the original report trained on


def notices(study: Study) -> Iterator[Paragraph]:
    """Other images, fewer images, runs that are missing."""
    if is_synthetic(study):
        drawn = sum(record.source != "cifar10" for record in study.records.values())
        which = "Every run" if drawn == len(study.records) else f"{drawn} of {len(study.records)} runs"
        warning = f" {which} learnt drawn stand-ins. No number here says anything about the original report."
        yield Paragraph(text(Span(f"{SYNTHETIC}.", tone="strong"), warning), loud=True)
    variants = [variant for those in study.experiments.values() for variant in those]
    # Equal updates are made of fewer images: that is what they are for.
    runs = [run for variant in variants if variant.experiment != "batch_size_updates" for run in variant.runs]
    sizes = sorted({run.record.images_per_epoch for run in runs} - {IMAGES})
    if sizes:
        counts = names([f"{size:,}" for size in sizes])
        yield Paragraph(text(f"Some runs trained on another number of images an epoch than {IMAGES:,}: {counts}."))
    failed, pending = (sum(len(getattr(variant, name)) for variant in variants) for name in ("failed", "pending"))
    if failed or pending:
        total = sum(len(variant.runs) for variant in variants) + failed + pending
        parts = [
            f"{failed} failed" if failed else "",
            f"{pending} {'has' if pending == 1 else 'have'} not been made" if pending else "",
        ]
        words = f"Of {total} runs that the study asks for, {names(list(filter(None, parts)))} ("
        yield Paragraph(text(words, Span("which", "#missing"), ")."))
    if not variants:
        yield Paragraph(text("The plan asks for no runs."))
