"""What several figures share: scales, labels beside lines, and the level of guessing."""

from collections.abc import Iterable, Mapping, Sequence
from math import inf, isfinite, log
from typing import TYPE_CHECKING

from cifar_lightning.report.style import GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHANCE = 0.1  # of ten classes
LABEL_GAP = 0.085  # between labels, as a fraction of the axes' height of a panel
LABEL_SIZE = 9
AXIS_WIDTH, DIGIT_WIDTH = 300, 6.5  # CSS pixels, roughly


def accuracy_axis(axes: "Axes", top: float = 1.0) -> None:
    """From 0, so that lengths compare, with the level of guessing."""
    axes.set_ylim(0, top)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0] if top == 1 else axes.get_yticks())
    axes.set_ylim(0, top)
    axes.axhline(CHANCE, color=GREY, linewidth=1, linestyle=(0, (1, 2)))


def chance_label(axes: "Axes", x: float, ha: str = "left") -> None:
    """Says what the dotted line is; `x` is a fraction of the width."""
    axes.annotate(
        "chance",
        (x, CHANCE),
        xycoords=axes.get_yaxis_transform(),
        xytext=(0, 2),
        textcoords="offset points",
        ha=ha,
        fontsize=8,
        color=GREY,
    )


def label_ends(axes: "Axes", ends: Sequence[tuple[float, str, str]], gap: float = LABEL_GAP) -> None:
    """Names lines at the right-hand side, where they end.

    Args:
        axes: Their scale must be final.
        ends: For each its last y, its name and its colour.
        gap: Between names, as a fraction of the height.
    """
    ends = [end for end in ends if isfinite(end[0])]
    low, high = axes.get_ylim()
    height = high - low
    places = spread([y for y, _, _ in ends], gap * height, low + 0.03 * height, high - 0.03 * height)
    for (_, name, colour), y in zip(ends, places, strict=True):
        axes.text(
            1.02, y, name, transform=axes.get_yaxis_transform(), color=colour, va="center_baseline", fontsize=LABEL_SIZE
        )


def epoch_axis(axes: "Axes", runs: Iterable[Sequence[Mapping[str, float]]]) -> None:
    """As long as the longest run."""
    axes.set_xlim(0, max(row["epoch"] for rows in runs for row in rows))
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("epoch")


def log_ticks(axes: "Axes", values: Sequence[float]) -> None:
    """A logarithmic x axis whose ticks are the values that were tried: ascending, above 0, those labelled that fit."""
    labels, last = [f"{value:,.12g}" for value in values], -inf
    for i, value in enumerate(values):
        place = AXIS_WIDTH * log(value / values[0]) / (log(values[-1] / values[0]) or 1)
        if place - last < DIGIT_WIDTH * len(labels[i]):
            labels[i] = ""
        else:
            last = place
    axes.set_xscale("log")
    axes.set_xticks(values, labels)
    axes.minorticks_off()


def spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places for labels beside `values`: in their order, at least `gap` apart, from `low` to `high` if they fit."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    places = dict.fromkeys(order, 0.0)
    floor = low
    for i in order:
        places[i] = max(values[i], floor)
        floor = places[i] + gap
    ceiling = high
    for i in reversed(order):
        places[i] = min(places[i], ceiling)
        ceiling = places[i] - gap
    return [places[i] for i in range(len(values))]
