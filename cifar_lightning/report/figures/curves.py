"""Learning curves, a panel a variant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean
from typing import TYPE_CHECKING

from cifar_lightning.report.figures.axes import accuracy_axis, chance_label, epoch_axis, label_ends
from cifar_lightning.report.style import BLUE, GREEN, VERMILLION, Drawing, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MultipleLocator

Rows = Sequence[Mapping[str, float]]

HEIGHT = 400
FAINT = 0.35
HIGH = 4.0  # nats; guessing costs 2.3, so what is higher has diverged, and would flatten all else


@dataclass(frozen=True)
class Curve:
    """One of the lines of a panel."""

    prefix: str
    name: str
    words: str
    colour: str
    dashes: tuple[float, ...]


CURVES = (
    Curve("train", "train", "as trained", GREEN, (1.2, 1.2)),
    Curve("train_clean", "train, eval", "train, evaluation mode", BLUE, (5, 1.5)),
    Curve("val", "validation", "validation", VERMILLION, ()),
)


def loss_top(panels: Sequence[Sequence[Rows]]) -> float:
    """The top of the loss axes that all panels share: the highest loss, rounded up to a half, but no more than HIGH."""
    columns = [f"{curve.prefix}/loss" for curve in CURVES]
    values = [row[column] for panel in panels for rows in panel for row in rows for column in columns if column in row]
    highest = max((value for value in values if value <= HIGH), default=HIGH)
    return max(0.5, ceil(2 * highest) / 2)


def learning_curves(name: str, title: str, runs: Sequence[Rows], top: float) -> Drawing:
    """Loss above, accuracy below.

    Args:
        name: Of the drawing.
        title: Of the panel.
        runs: Rows of each seed.
        top: Of the loss axis.
    """

    def paint(figure: "Figure") -> None:
        loss, acc = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1))
        for axes, metric in ((loss, "loss"), (acc, "acc")):
            if metric == "loss":
                axes.set_ylim(0, top)
                axes.yaxis.set_major_locator(_every(0.5 if top <= 3 else 1))
            else:
                accuracy_axis(axes)
            label_ends(axes, [_lines(axes, runs, curve, metric) for curve in CURVES if _has(runs, curve, metric)])
        loss.set_title(f"{title}, n = {len(runs)}")
        loss.set_ylabel("loss (nats)")
        acc.set_ylabel("accuracy")
        epoch_axis(acc, runs)
        chance_label(acc, 0.02)
        figure.align_ylabels()

    return draw(name, _alt(title, runs), HEIGHT, paint)


def _every(step: float) -> "MultipleLocator":
    from matplotlib.ticker import MultipleLocator

    return MultipleLocator(step)


def _has(runs: Sequence[Rows], curve: Curve, metric: str) -> bool:
    return all(f"{curve.prefix}/{metric}" in row for rows in runs for row in rows)


def _lines(axes: "Axes", runs: Sequence[Rows], curve: Curve, metric: str) -> tuple[float, str, str]:
    """Draws seeds and mean; returns where the mean ends, and how to name it."""
    column = f"{curve.prefix}/{metric}"
    seeds = [[row[column] for row in rows] for rows in runs]
    epochs = [row["epoch"] for row in min(runs, key=len)]
    mean = [fmean(values) for values in zip(*seeds, strict=False)]
    if len(runs) > 1:
        for rows, values in zip(runs, seeds, strict=True):
            axes.plot([row["epoch"] for row in rows], values, color=curve.colour, alpha=FAINT, linewidth=0.8)
    alone = "o" if len(epochs) == 1 else ""  # a line of one point would not be seen
    axes.plot(epochs, mean, color=curve.colour, linestyle=(0, curve.dashes) if curve.dashes else "-", marker=alone)
    return mean[-1], curve.name, curve.colour


def _alt(title: str, runs: Sequence[Rows]) -> str:
    parts = []
    for curve in CURVES:
        if _has(runs, curve, "loss") and _has(runs, curve, "acc"):
            first, last = (
                [fmean(rows[i][f"{curve.prefix}/{metric}"] for rows in runs) for metric in ("loss", "acc")]
                for i in (0, -1)
            )
            parts.append(
                f"{curve.words}: loss {first[0]:.2f} to {last[0]:.2f}, accuracy {first[1]:.2f} to {last[1]:.2f}"
            )
    return f"Learning curves of {title}, n = {len(runs)}, first to last epoch. {'; '.join(parts)}."
