"""Accuracy against a setting, and the losses behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from cifar_lightning.report.figures.axes import accuracy_axis, chance_label, epoch_axis, label_ends, log_ticks
from cifar_lightning.report.style import BLUE, GREEN, INK, ORANGE, PURPLE, SKY, VERMILLION, Drawing, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT = 290
MARKERS = (("o", BLUE, "-"), ("s", VERMILLION, (0, (5, 1.5))), ("^", GREEN, (0, (1.2, 1.2))))


@dataclass(frozen=True)
class Line:
    """One way to sweep.

    Attributes:
        name: In the figure.
        points: DryRun and what each seed came to there, in the order of the setting.
    """

    name: str
    points: Sequence[tuple[float, Sequence[float]]]


def accuracies(name: str, label: str, lines: Sequence[Line], claimed: Mapping[float, float], *, log: bool) -> Drawing:
    """Validation accuracy against a setting.

    Args:
        name: Of the drawing.
        label: Of the setting.
        lines: At most three, each with a point.
        claimed: The original report's points, by setting.
        log: Whether the setting's axis is logarithmic.
    """
    settings = sorted({x for line in lines for x, _ in line.points} | claimed.keys())

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        accuracy_axis(axes)
        if log and settings and settings[0] > 0:
            log_ticks(axes, settings)
        else:
            axes.set_xticks(settings)
        for line, style in zip(lines, MARKERS, strict=False):
            _draw_line(axes, line, *style)
        if claimed:
            axes.plot(
                list(claimed),
                list(claimed.values()),
                "D",
                color=INK,
                markerfacecolor="none",
                markersize=9,
                markeredgewidth=1.3,
                label="original report",
            )
        chance_label(axes, 0.01)
        axes.set_xlabel(label)
        axes.set_ylabel("best validation accuracy")
        if claimed or len(lines) > 1:
            figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=9, handlelength=2.6)

    return draw(name, _alt(label, lines, claimed), HEIGHT, paint)


def _draw_line(axes: "Axes", line: Line, marker: str, colour: str, dashes: object) -> None:
    for x, values in line.points:
        if len(values) > 1:
            axes.plot([x] * len(values), values, marker, color=colour, alpha=0.35, markersize=4)
    means = [fmean(values) for _, values in line.points]
    # A line between two lines' markers would hide them: they have a hollow centre.
    axes.plot([x for x, _ in line.points], means, color=colour, linestyle=dashes, marker=marker, label=line.name)


def _alt(label: str, lines: Sequence[Line], claimed: Mapping[float, float]) -> str:
    parts = [f"{line.name}: {_listed([(x, fmean(values)) for x, values in line.points])}" for line in lines]
    if claimed:
        parts.append(f"original report: {_listed(list(claimed.items()))}")
    return f"Best validation accuracy against {label}. {'; '.join(parts)}."


def _listed(points: Sequence[tuple[float, float]]) -> str:
    return ", ".join(f"{y:.4f} at {x:,.12g}" for x, y in points)


def losses(name: str, title: str, runs: Sequence[tuple[str, Sequence[Mapping[str, float]]]], top: float) -> Drawing:
    """The training loss over the epochs, a line a setting.

    Args:
        name: Of the drawing.
        title: Of the panel.
        runs: What was set, and the rows; in the order of the setting.
        top: Of the loss axis; what is higher is cut off.
    """
    styles = [
        (colour, dashes) for dashes in ("-", (0, (5, 1.5))) for colour in (SKY, BLUE, GREEN, ORANGE, VERMILLION, PURPLE)
    ]

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        ends = []
        for (words, rows), (colour, dashes) in zip(runs, styles, strict=False):
            values = [row["train/loss"] for row in rows]
            axes.plot([row["epoch"] for row in rows], values, color=colour, linestyle=dashes)
            ends.append((min(values[-1], top), words, colour))
        epoch_axis(axes, [rows for _, rows in runs])
        axes.set_ylim(0, top)
        axes.set_ylabel("train loss (nats)")
        axes.set_title(title)
        label_ends(axes, ends, gap=0.06)

    ends = ", ".join(f"{rows[-1]['train/loss']:.2f} at {words}" for words, rows in runs)
    return draw(name, f"{title} over the epochs. At the end: {ends}.", HEIGHT, paint)
