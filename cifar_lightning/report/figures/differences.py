"""What a part of the network is worth: a dot and an interval each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cifar_lightning.report.statistics import Difference
from cifar_lightning.report.style import BLUE, GREY, VERMILLION, Drawing, draw
from cifar_lightning.report.words import interval, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW_HEIGHT = 46


@dataclass(frozen=True)
class Effect:
    """A row of the figure.

    Attributes:
        name: What is taken away, and where.
        difference: With less without, of an accuracy.
        claimed: The original report's, if it has one.
    """

    name: str
    difference: Difference
    claimed: float | None


def forest(name: str, label: str, effects: Sequence[Effect]) -> Drawing:
    """Differences with their intervals, the original report's beside them.

    Args:
        name: Of the drawing.
        label: What the axis counts.
        effects: At least one, from top to bottom.
    """

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.set_ylim(len(effects) - 0.4, -0.7)
        axes.grid(visible=False)
        for y, effect in enumerate(effects):
            _row(axes, y, effect)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(label)
        axes.margins(x=0.08)
        axes.locator_params(axis="x", nbins=6)

    return draw(name, _alt(effects), 75 + ROW_HEIGHT * len(effects), paint)


def _row(axes: "Axes", y: int, effect: Effect) -> None:
    found = effect.difference
    axes.vlines(0, y - 0.16, y + 0.24, color=GREY, linewidth=1)  # it would run through the words above
    axes.text(0, y - 0.34, effect.name, transform=axes.get_yaxis_transform(), va="center", fontsize=9.5)
    values = f"{signed(found.mean)}, n = {found.n}"
    axes.text(1, y - 0.34, values, transform=axes.get_yaxis_transform(), va="center", ha="right", fontsize=9)
    if found.low is not None and found.high is not None:
        dashes = (0, (3, 2)) if found.borrowed else "-"
        axes.plot([found.low, found.high], [y, y], color=BLUE, linestyle=dashes, linewidth=2)
    axes.plot([found.mean], [y], "o", color=BLUE, markersize=7)
    if effect.claimed is not None:
        axes.plot(
            [effect.claimed], [y], "D", color=VERMILLION, markerfacecolor="none", markersize=6, markeredgewidth=1.4
        )


def _alt(effects: Sequence[Effect]) -> str:
    parts = []
    for effect in effects:
        found = effect.difference
        known = "no interval" if found.low is None else f"95 % interval {interval(found.low, found.high)}"
        claimed = "" if effect.claimed is None else f", the original report {signed(effect.claimed)}"
        parts.append(f"{effect.name}: {signed(found.mean)}, n = {found.n}, {known}{claimed}")
    return f"Differences in best validation accuracy. {'; '.join(parts)}."
