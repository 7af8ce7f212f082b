"""Charts: the same bytes, fit for a page, and with words for a pointer."""

import re
from xml.etree import ElementTree

import altair as alt
import pandas as pd
import pytest

from cifar_lightning.report import charts
from cifar_lightning.report.statistics import Estimate
from tests.report.handmade import curve

SVG = "{http://www.w3.org/2000/svg}"


def drawn(chart: alt.TopLevelMixin) -> ElementTree.Element:
    return ElementTree.fromstring(charts.svg(chart))


def labels(chart: alt.TopLevelMixin) -> list[str]:
    return [each.get("aria-label", "") for each in drawn(chart).iter() if each.get("aria-label")]


def texts(chart: alt.TopLevelMixin) -> list[str | None]:
    return [each.text for each in drawn(chart).iter(f"{SVG}text")]


def seeds(**more: object) -> pd.DataFrame:
    runs = [pd.DataFrame(curve(4, val_acc=[0.5, 0.7, top, 0.6], **more)) for top in (0.60, 0.66)]  # type: ignore[arg-type]  # any course
    return pd.concat([run.assign(seed=seed) for seed, run in enumerate(runs)], ignore_index=True)


def test_the_same_chart_has_the_same_bytes_and_short_numbers() -> None:
    once, twice = (charts.svg(charts.curves(seeds(), "loss", 2.5)) for _ in range(2))
    assert once == twice
    assert not re.search(rb'="[^"a-z]*\d\.\d{3,}', once)


def test_a_row_says_mean_interval_and_the_original() -> None:
    found = Estimate(1, 0.04, None, 0.03, 0.05, pooled=True)
    row = charts.row("dropout, CNN", found, 0.0223, "best_val/acc", "gain", sign=True)
    assert row["tip"] == "dropout, CNN: +4.00 (+3.00 to +5.00 (pooled SD), n = 1), original +2.23"
    numbers = [row[name] for name in ("value", "low", "high", "original")]
    assert numbers == pytest.approx([4, 3, 5, 2.23])
    assert charts.row("CNN", None, 1.1768, "val/loss", "open")["tip"] == "CNN: \u2013, original 1.1768"
    assert charts.row("CNN", Estimate(2, 1.5, 0.1), None, "val/loss", "open")["low"] is None


def test_a_forest_has_a_dot_with_an_interval_and_a_diamond_per_row() -> None:
    rows = [
        charts.row("<b> & $x$", Estimate(3, 0.5, 0.1, 0.4, 0.6), 0.55, "acc", "reproduced"),
        charts.row("MLP", Estimate(1, 0.3, None, 0.2, 0.4, pooled=True), 0.9, "acc", "not reproduced"),
    ]
    chart = charts.forest(rows, "accuracy, %", charts.VERDICTS)
    assert sum(row["tip"] in label for row in rows for label in labels(chart)) == 4
    assert {"<b> & $x$", "accuracy, %", "reproduced", "not reproduced"} <= set(texts(chart))
    dashes = re.findall(r'stroke-dasharray="([\d,]+)"', charts.svg(chart).decode())
    assert dashes.count("4,3") == 1


def test_a_sweep_shows_every_value_and_the_original_as_diamonds() -> None:
    points = [(10, 0.7, "equal epochs"), (10_000, 0.5, "equal epochs"), (10, 0.7558, "original")]
    rows = [{"x": x, **charts.row(f"{line}, {x}", Estimate(1, y), None, "acc", line)} for x, y, line in points]
    chart = charts.sweep(rows, "batch size", log=True)
    assert {"10", "10,000", "equal epochs", "original"} <= set(texts(chart))
    assert {"equal epochs, 10000: 50.00%", "original, 10: 75.58%"} <= set(labels(chart))
    rates = [{"x": x, **charts.row("", Estimate(1, 0.5), None, "acc", "ours")} for x in (0.0001, 0.1)]
    assert {"0.0001", "0.1"} <= set(texts(charts.sweep(rates, "learning rate", log=True)))


def test_curves_have_their_mean_and_each_seed_and_the_best_epoch_of_the_mean() -> None:
    found = labels(charts.curves(seeds(), "acc", 100))
    for stage in ("as trained", "evaluation mode", "validation"):
        assert {stage, f"{stage}, seed 0", f"{stage}, seed 1"} <= set(found)
    assert "best epoch: 2, validation 70" in found
    one = seeds().query("seed == 0")
    assert "validation, seed 0" not in labels(charts.curves(one, "acc", 100))


def test_runs_without_evaluation_of_training_images_have_the_other_curves() -> None:
    bare = seeds().filter(regex="^(?!train_clean)")
    found = labels(charts.curves(bare, "loss", 2.5))
    assert "validation" in found
    assert "evaluation mode" not in found
    assert b"mark-line" in charts.svg(charts.spark(bare))


def test_a_line_can_be_read_off_its_own_axis() -> None:
    # What the page's script does for a pointer: the height of a point, on the scale that the axis names.
    root = drawn(charts.curves(seeds(train_loss=(2.0, 0.5)), "loss", 2.5))
    (path,) = (each for each in root.iter(f"{SVG}path") if each.get("aria-label") == "as trained")
    ys = [float(point.split(",")[1]) for point in path.get("d", "").strip("M").split("L")]
    (axis,) = (label for label in labels(charts.curves(seeds(), "loss", 2.5)) if label.startswith("Y-axis"))
    assert axis.endswith("from 0.0 to 2.5")
    assert [2.5 - y / 130 * 2.5 for y in ys] == pytest.approx([2.0, 1.5, 1.0, 0.5], abs=1e-3)


@pytest.mark.parametrize(
    ("highest", "top"), [(1.2, 1.5), (1.5, 1.5), (0.1, 0.5), (3.9, 4.0), (100.0, 0.5), (float("nan"), 0.5)]
)
def test_what_diverged_does_not_flatten_the_rest(highest: float, top: float) -> None:
    assert charts.loss_top(pd.DataFrame({"a": [0.3, highest]})) == top


def test_losses_that_all_diverged_have_an_axis() -> None:
    assert charts.loss_top(pd.DataFrame({"a": [50.0, float("inf")]})) == charts.DIVERGED


def test_a_confusion_matrix_shows_shares_and_nothing_where_there_is_none() -> None:
    classes = ["cat", "dog", "ship"]
    shares = pd.DataFrame([[0.625, 0.371, 0.004], [0.25, 0.75, 0.0], [0.0, 0.0, 1.0]], classes, classes)
    written = texts(charts.confusion(shares))
    assert {"62", "37", "25", "75", "100"} <= set(written)
    assert "cat taken for dog: 37.1%" in labels(charts.confusion(shares))
    assert "0" not in written
