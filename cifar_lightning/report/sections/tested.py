"""What the test set says of the main runs: classes, confusions, mistakes; and how long they took."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from cifar_lightning.report.blocks import (
    Block,
    Figure,
    Gallery,
    Heading,
    Paragraph,
    Picture,
    Section,
    Text,
    listed,
    text,
)
from cifar_lightning.report.claims import claims
from cifar_lightning.report.figures.classes import confusion, per_class
from cifar_lightning.report.statistics import summary
from cifar_lightning.report.words import NOTHING, linked, measured, number, sample, spread, title, trained
from cifar_lightning.results.records import Test
from cifar_lightning.results.study_results import Run, Study

MODELS = ("cnn", "mlp")
MISTAKES = 12
REPORT_IMAGES, REPORT_EPOCHS = 40_000, 50  # which its durations are of
CLASSES_CAPTION = "Test accuracy by class, means over seeds, in the order of the first network's. Dotted: chance."
MATRIX_CAPTION = (
    "Of 100 test images of a class (row), how many were taken for which (column), all seeds together; empty is "
    "less than half of one. Blue: recognised. Orange: mistaken; both shades deepen with the number, alike for all "
    "networks."
)
TIME_HEAD = ("", "seconds", "n", "seconds an epoch", "images/s", "original: seconds", "original: images/s")
TIME_NOTE = (
    "Seconds are those of all epochs, validation included. The original report's are of an Apple M1; ours are of "
    "the hardware under Provenance, and of whatever else it was busy with."
)


def tested(study: Study) -> Section:
    """Classes, mistakes and time of the main runs."""
    runs = {name: [run for run in trained(study, name) if run.test] for name in MODELS}
    runs = {name: those for name, those in runs.items() if those}
    blocks: list[Block] = [Heading("8.1", "Classes", "classes"), *_classes(runs)]
    blocks += [Heading("8.2", "Surest mistakes", "mistakes"), *_mistakes(runs), *_time(study)]
    return Section(8, "Classes, mistakes and time", "tested", blocks)


def _tests(runs: Sequence[Run]) -> list[Test]:
    """Those that know the same classes as the first."""
    found = [run.test for run in runs if run.test]
    return [test for test in found if test.classes == found[0].classes]


def _classes(runs: Mapping[str, Sequence[Run]]) -> list[Block]:
    if not runs:
        return [Paragraph(text("No main run has been tested yet."))]
    accuracies = [
        text(f"{title(name)} ", measured(those, "test/acc"), f" (n = {len(those)})") for name, those in runs.items()
    ]
    intro = text("Test accuracy: ", accuracies[0], *(text("; ", each) for each in accuracies[1:]), ".")
    models, matrices = {}, []
    for name, those in runs.items():
        tests = _tests(those)
        words, classes = f"{title(name)}, n = {len(tests)}", tests[0].classes
        models[words] = {each: fmean(test.per_class_acc[each] for test in tests) for each in classes}
        matrices.append(confusion(f"confusion_{name}", words, classes, _summed(tests)))
    dots = Figure([per_class("per_class", models)], CLASSES_CAPTION)
    return [Paragraph(intro), dots, Figure(matrices, MATRIX_CAPTION)]


def _summed(tests: Sequence[Test]) -> list[list[int]]:
    """Their confusion matrices, cell by cell."""
    matrices = [test.confusion_matrix for test in tests]
    return [[sum(cells) for cells in zip(*rows, strict=True)] for rows in zip(*matrices, strict=True)]


def _mistakes(runs: Mapping[str, Sequence[Run]]) -> list[Block]:
    blocks: list[Block] = []
    for name, those in runs.items():
        run = next((run for run in those if run.test and run.test.mistakes), None)
        if run is None or run.test is None:
            continue
        pictures = [
            Picture(
                f"mistake_{name}_{rank}",
                mistake.png,
                f"test image {mistake.image}: {mistake.true}, taken for {mistake.predicted}",
                text(f"{mistake.true} \u2192 {mistake.predicted}, {mistake.probability:.3f}"),
            )
            for rank, mistake in enumerate(run.test.mistakes[:MISTAKES], start=1)
        ]
        blocks.append(Paragraph(linked(f"{title(name)}, seed {run.point.seed}", [run])))
        caption = (
            f"Test images that the {title(name)} was surest of and wrong: true class \u2192 predicted, probability."
        )
        blocks.append(Gallery(pictures, caption))
    return blocks or [Paragraph(text("None are recorded."))]


def _time(study: Study) -> list[Block]:
    claimed = {claim.experiment: claim.value for claim in claims() if claim.metric == "seconds"}
    rows = [_time_row(name, [run for run in trained(study, name) if run.seconds], claimed.get(name)) for name in MODELS]
    return [Heading("8.3", "Time", "time"), Paragraph(text(TIME_NOTE)), *listed("Time", TIME_HEAD, "tnnnnnn", rows)]


def _time_row(name: str, runs: Sequence[Run], claimed: float | None) -> list[Text]:
    per_epoch = [run.seconds / len(run.rows) for run in runs]
    speeds = [run.record.images_per_epoch / seconds for run, seconds in zip(runs, per_epoch, strict=True)]
    return [
        text(title(name)),
        measured(runs, "seconds", 1),
        sample(len(runs)),
        *(
            linked(spread(summary(each), digits), runs) if runs else text(NOTHING)
            for each, digits in ((per_epoch, 2), (speeds, 0))
        ),
        text(number(claimed, 1)),
        text(number(claimed and REPORT_EPOCHS * REPORT_IMAGES / claimed, 0)),
    ]
