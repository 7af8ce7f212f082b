"""Figures: the same bytes, fit for a page, and saying what they show."""

import struct
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import matplotlib
import pytest

from cifar_lightning.report import document
from cifar_lightning.report.figures.axes import spread
from cifar_lightning.report.figures.classes import confusion, per_class
from cifar_lightning.report.figures.curves import learning_curves, loss_top
from cifar_lightning.report.figures.differences import Effect, forest
from cifar_lightning.report.figures.sweeps import Line, accuracies, losses
from cifar_lightning.report.statistics import Difference
from cifar_lightning.report.style import COLOURS, draw, marked
from tests.report.handmade import curve
from tests.report.pages import Page

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def line(figure: "Figure") -> None:
    axes = figure.subplots()
    axes.plot([1, 2], [1, 2], "o", color="#0072b2")
    axes.set_xlabel("<b> $x$ & more")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.5, 0.1, 0.9], [0.5, 0.1, 0.9]),
        ([0.0, 0.0, 0.0], [0.0, 0.1, 0.2]),
        ([1.0, 0.95], [1.0, 0.9]),
        ([-5.0, 7.0], [0.0, 1.0]),
        ([0.4, 0.45, 0.41], [0.4, 0.6, 0.5]),
        ([], []),
    ],
)
def test_labels_are_moved_apart_in_their_order(values: list[float], expected: list[float]) -> None:
    assert spread(values, 0.1, 0.0, 1.0) == pytest.approx(expected)


def test_the_same_figure_has_the_same_bytes_whatever_matplotlib_is_set_to() -> None:
    one = draw("figure", "alt", 200, line)
    with matplotlib.rc_context({"font.size": 30, "axes.labelsize": 30, "lines.markeredgewidth": 9}):
        assert draw("figure", "alt", 200, line) == one
    assert draw("figure", "alt", 210, line) != one


def test_a_file_of_its_own_is_svg_on_white_and_png_without_stamps() -> None:
    drawing = draw("figure", 'a "b" <c>', 200, line)
    root = ElementTree.fromstring(drawing.svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert [child.tag.rpartition("}")[2] for child in root][:2] == ["title", "rect"]
    assert root[0].text == 'a "b" <c>'
    assert root[1].get("fill") == "#ffffff"
    assert "<b> $x$ & more" in "".join(root.itertext())
    assert struct.unpack(">II", drawing.png[16:24]) == (720, 400)
    assert chunks(drawing.png) <= {b"IHDR", b"pHYs", b"IDAT", b"IEND"}


def chunks(png: bytes) -> set[bytes]:
    found, at = set(), 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        found.add(png[at + 4 : at + 8])
        at += length + 12
    return found


def test_in_a_page_ids_are_the_figures_own_and_colours_the_pages() -> None:
    page = Page(draw("one", "a <b>", 200, line).inline + draw("two", "a", 200, line).inline)
    assert not page.unclosed
    ids = page.values("id")
    assert ids
    assert len(set(ids)) == len(ids)
    assert all(id.startswith(("one-", "two-")) for id in ids)
    assert {href.removeprefix("#") for href in page.values("href")} <= set(ids)
    assert page.values("aria-label") == ["a <b>", "a"]
    assert not any(colour in style for colour in COLOURS for style in page.values("style"))
    assert any("var(--blue)" in style for style in page.values("style"))
    assert not any("http" in value for _, _, value in page.attributes)


def test_every_colour_has_a_light_and_a_dark_value() -> None:
    css = (document.TEMPLATES / "report.css").read_text()
    for variable in COLOURS.values():
        name = "ink" if variable == "currentColor" else variable.removeprefix("var(--").removesuffix(")")
        assert css.count(f"--{name}: #") == 2, name


def test_a_mark_is_in_picture_and_words() -> None:
    with marked("NOT CIFAR-10"):
        drawing = draw("figure", "alt", 200, line)
    assert drawing.alt == "NOT CIFAR-10: alt"
    assert b"NOT CIFAR-10</text>" in drawing.svg
    assert "NOT CIFAR-10" not in draw("figure", "alt", 200, line).inline


def test_curves_say_where_they_begin_and_end_and_share_their_top() -> None:
    runs = [curve(3, train_loss=(2.0, 0.5), val_loss=(1.5, top), clean_acc=(0.4, 0.8)) for top in (1.0, 1.2)]
    alt = learning_curves("curves", "MLP", runs, loss_top([runs])).alt
    assert alt.startswith("Learning curves of MLP, n = 2, first to last epoch. as trained: loss 2.00 to 0.50, ")
    assert "evaluation mode: loss 0.90 to 0.90, accuracy 0.40 to 0.80; " in alt
    assert "validation: loss 1.50 to 1.10, accuracy 0.55 to 0.55." in alt


@pytest.mark.parametrize(
    ("highest", "top"), [(1.2, 1.5), (1.5, 1.5), (0.1, 1.5), (3.9, 4.0), (100.0, 1.5), (float("nan"), 1.5)]
)
def test_what_diverged_does_not_flatten_the_rest(highest: float, top: float) -> None:
    assert loss_top([[curve(2, train_loss=(1.3, highest))]]) == top


def test_runs_without_clean_figures_have_the_other_curves() -> None:
    rows = [{name: value for name, value in row.items() if "clean" not in name} for row in curve(1)]
    drawing = learning_curves("curves", "CNN", [rows], 2.0)
    assert "evaluation mode" not in drawing.alt
    assert b"validation" in drawing.svg


def test_effects_say_mean_interval_and_the_original() -> None:
    alone, several = (
        Difference(1, 0.04, None, 0.03, 0.05, borrowed=True),
        Difference(3, -0.005, 0.01, None, None, False),
    )
    alt = forest("f", "gain", [Effect("Dropout, CNN", alone, 0.0223), Effect("Dropout, MLP", several, None)]).alt
    assert "CNN: +0.0400, n = 1, 95 % interval +0.0300\u00a0to\u00a0+0.0500, the original report +0.0223; " in alt
    assert alt.endswith("MLP: \u22120.0050, n = 3, no interval.")


def test_a_sweep_says_its_points() -> None:
    lines = [Line("equal epochs", [(10, [0.7, 0.8]), (10_000, [0.5])])]
    drawing = accuracies("s", "batch size", lines, {10: 0.7558}, log=True)
    assert "equal epochs: 0.7500 at 10, 0.5000 at 10,000; original report: 0.7558 at 10." in drawing.alt
    assert b">10,000</text>" in drawing.svg


def test_losses_say_their_ends() -> None:
    alt = losses("l", "Training loss", [("0.1", curve(2, train_loss=(2.0, 9.0)))], 4.0).alt
    assert alt.endswith("At the end: 9.00 at 0.1.")


def test_classes_are_in_the_order_of_the_first_network() -> None:
    alt = per_class("p", {"CNN": {"cat": 0.5, "ship": 0.9}, "MLP": {"cat": 0.4, "ship": 0.3}}).alt
    assert alt == "Test accuracy by class. CNN: ship 0.900, cat 0.500; MLP: ship 0.300, cat 0.400."


def test_a_confusion_matrix_names_the_commonest_mistake() -> None:
    drawing = confusion("c", "CNN", ["cat", "dog"], [[5, 3], [3, 9]])
    assert drawing.alt == "Confusion matrix, CNN: 70.0 % are recognised; most often cat is taken for dog (37.5 %)."
    root = ElementTree.fromstring(drawing.svg)
    written = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"62", "38", "25", "75"} <= set(written)


def test_no_figure_needs_pyplot() -> None:
    for path in Path(document.__file__).parent.rglob("*.py"):
        assert "pyplot" not in path.read_text(), path
