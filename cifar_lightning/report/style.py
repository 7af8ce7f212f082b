"""How figures look, and how a drawing becomes files and part of a page.

A figure is as wide as a phone: on a wider screen several stand beside each other. Colours are those of Okabe and Ito
(https://jfly.uni-koeln.de/color/), which people tell apart however they see colours; lines differ in dashes and markers
as well. In the page, colours are CSS variables, so that a figure is legible in the light and in the dark.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cifar_lightning.report.svg import inline, standalone, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, GREY = "#1f2328", "#6e7781"
BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#a8507f", "#56b4e9"
COLOURS = {  # in a page: report.css has a pair of values for each
    INK: "currentColor",
    GREY: "var(--grey)",
    BLUE: "var(--blue)",
    VERMILLION: "var(--vermillion)",
    GREEN: "var(--green)",
    ORANGE: "var(--orange)",
    PURPLE: "var(--purple)",
    SKY: "var(--sky)",
}

WIDTH = 360  # of a figure, in CSS pixels: what a phone leaves beside its margins
POINTS_PER_INCH = 72
PNG_DPI = 2 * POINTS_PER_INCH
SETTINGS: dict[Any, Any] = {
    "figure.dpi": POINTS_PER_INCH,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    # Comes with matplotlib, and is wider than what browsers have: what fits in it fits in theirs.
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.7,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "lines.linewidth": 1.7,
    "lines.markersize": 5,
    "svg.fonttype": "none",  # text stays text: it can be selected, and takes the page's font
}


_note: ContextVar[str] = ContextVar("note", default="")


@contextmanager
def marked(note: str) -> Iterator[None]:
    """Has every figure that is drawn meanwhile say so; nothing if it is empty."""
    token = _note.set(note)
    try:
        yield
    finally:
        _note.reset(token)


@dataclass(frozen=True)
class Drawing:
    """A finished figure.

    Attributes:
        name: Of its files.
        alt: What it shows, in words and numbers.
        svg: A file of its own, on white.
        png: The same.
        inline: An `<svg>` for a page, in the page's colours.
    """

    name: str
    alt: str
    svg: bytes
    png: bytes
    inline: str


def draw(name: str, alt: str, height: float, paint: Callable[["Figure"], None]) -> Drawing:
    """Has a figure painted, always with the same bytes.

    Args:
        name: Of its files; letters, digits, `-` and `_`.
        alt: What it shows, in words and numbers.
        height: In CSS pixels.
        paint: Draws into the empty figure it is given.
    """
    import matplotlib  # here, because those who want no figure need not wait for it
    from matplotlib.figure import Figure

    note = _note.get()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever a matplotlibrc on this machine says
        matplotlib.rcParams.update(SETTINGS | {"svg.hashsalt": name})
        figure = Figure(figsize=(WIDTH / POINTS_PER_INCH, height / POINTS_PER_INCH), layout="constrained")
        paint(figure)
        if note:
            figure.supxlabel(note, fontsize=8.5, color=VERMILLION, weight="bold")
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg")
        figure.set_layout_engine(None)  # all is in its place by now: a quarter less to do
        figure.savefig(png, format="png", dpi=PNG_DPI, facecolor="white", metadata={"Software": None})
    alt = f"{note}: {alt}" if note else alt
    tidied = tidy(svg.getvalue().decode())
    return Drawing(name, alt, standalone(tidied, alt).encode(), png.getvalue(), inline(tidied, name, alt, COLOURS))
