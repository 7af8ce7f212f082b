"""The learning curves of the main runs and of the ablations."""

from cifar_lightning.report.blocks import Block, Figure, Paragraph, Section, text
from cifar_lightning.report.figures.curves import learning_curves, loss_top
from cifar_lightning.report.words import MAIN, names, title, trained
from cifar_lightning.results.study_results import Study

CAPTION = (
    "Loss above, accuracy below, over the epochs; all panels share their axes. Dotted green: training images as "
    "trained, averaged while the weights move and with dropout on. Dashed blue: training images after each epoch "
    "in evaluation mode, without dropout. Solid orange: validation images, likewise. Only the last two compare like "
    "with like: the distance between them is the gap. Strong lines are means over seeds, faint ones the seeds. "
    "Chance is 0.1, one class in ten."
)


def curves(study: Study) -> Section:
    """A panel for each of the six experiments that has a finished run."""
    runs = {name: [run.rows for run in trained(study, name)] for name in MAIN}
    done = {name: rows for name, rows in runs.items() if rows}
    blocks: list[Block] = []
    if done:
        top = loss_top(list(done.values()))
        drawings = [learning_curves(f"curves_{name}", title(name), rows, top) for name, rows in done.items()]
        blocks.append(Figure(drawings, CAPTION))
    missing = [title(name) for name in MAIN if name not in done]
    if missing:
        blocks.append(Paragraph(text(f"No curves yet of {names(missing)}.")))
    return Section(3, "Learning curves", "curves", blocks)
