"""Charts: fit for a page, and with words for a pointer."""

import math
import re
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest

from cifar_lightning.report import charts
from cifar_lightning.report.charts import Report
from cifar_lightning.report.statistics import Estimate
from cifar_lightning.results.records import Record
from tests.report.handmade import NOWHERE, curve, outcome, record, study

SVG = "{http://www.w3.org/2000/svg}"


def seeds(*tops: float, **more: Any) -> list[Record]:
    return [record(curve(4, val_acc=[0.5, 0.7, top, 0.6], **more), seed=seed) for seed, top in enumerate(tops)]


def report(**experiments: list[Record]) -> Report:
    return Report(study(NOWHERE, experiments))


def labels(drawn: bytes) -> list[str]:
    return re.findall('aria-label="([^"]*)"', drawn.decode())


def test_a_row_has_mean_interval_and_the_original() -> None:
    found = Estimate(1, 0.04, None, 0.01, pooled=True)
    row = charts.row("dropout: CNN", found, 0.0223, "best_val/acc", "gain", sign=True)
    assert row["tip"] == "dropout: CNN: +4.00 (+3.00 to +5.00 (pooled SD), n = 1), original +2.23"
    assert [row[name] for name in ("value", "low", "high", "original")] == pytest.approx([4, 3, 5, 2.23])
    assert charts.row("CNN", None, 1.1768, "val/loss", "open")["tip"] == "CNN: \u2013, original 1.1768"
    assert math.isnan(charts.row("CNN", Estimate(2, 1.5, 0.1), math.nan, "val/loss", "open")["low"])


def test_curves_have_their_mean_and_each_seed_and_the_best_epoch_of_the_mean() -> None:
    made = report(cnn=seeds(0.60, 0.66), mlp=seeds(0.60))
    assert "val/acc 0.50 to 0.60" in made.curve_chart("cnn", "acc")
    found = labels(made.figures["acc_cnn.svg"])
    for stage in ("as trained", "evaluation mode", "validation"):
        assert {f"{stage}, mean", f"{stage}, seed 0", f"{stage}, seed 1"} <= set(found)
    assert "best epoch of the mean: 2, validation 70.00%" in found
    made.curve_chart("mlp", "acc")
    assert "validation, seed 0" not in labels(made.figures["acc_mlp.svg"])


def test_runs_without_evaluation_of_training_images_have_the_other_curves() -> None:
    rows = [{name: value for name, value in row.items() if "clean" not in name} for row in curve(4)]
    made = report(cnn=[record(rows)])
    made.curve_chart("cnn", "loss")
    made.spark("cnn", "cnn")
    found = labels(made.figures["loss_cnn.svg"])
    assert "validation" in found
    assert "evaluation mode" not in found
    assert b"mark-line" in made.figures["spark_cnn.svg"]


def test_a_line_can_be_read_off_its_own_axis() -> None:
    # What the page's script does for a pointer: the height of a point, on the scale that the axis names.
    made = report(cnn=seeds(0.6, train_loss=(2.4, 0.6)))
    made.curve_chart("cnn", "loss")
    root = ElementTree.fromstring(made.figures["loss_cnn.svg"])
    (path,) = (each for each in root.iter(f"{SVG}path") if each.get("aria-label") == "as trained")
    ys = [float(point.split(",")[1]) for point in path.get("d", "").strip("M").split("L")]
    (axis,) = (label for label in labels(made.figures["loss_cnn.svg"]) if label.startswith("Y-axis"))
    assert axis.endswith("from 0 to 2.5")
    assert [2.5 - y / 130 * 2.5 for y in ys] == pytest.approx([2.4, 1.8, 1.2, 0.6], abs=1e-3)


@pytest.mark.parametrize(
    ("losses", "top"),
    [
        *(([0.3, 1.2], 1.5), ([1.5], 1.5), ([0.1], 0.5), ([3.9], 4.0), ([4.0], 4.0), ([0.3, 4.01], 0.5)),
        *(([0.3, math.nan], 0.5), ([50, math.inf], 4.0)),  # all diverged: it has an axis
    ],
)
def test_what_diverged_does_not_flatten_the_rest(losses: list[float], top: float) -> None:
    assert charts.loss_top(pd.DataFrame({"a": losses})) == top


def test_a_confusion_matrix_has_shares_of_the_true_class() -> None:
    made = report(cnn=[record(curve(2), test=outcome(0.625))])
    shown = made.confusion_chart("cnn")
    assert "62.5% are recognised; most often airplane is predicted as automobile (37.5%)." in shown
    assert "truck predicted as airplane: 37.5%" in labels(made.figures["confusion_cnn.svg"])
    few = report(cnn=[record(curve(2), test=outcome(0.995))])
    few.confusion_chart("cnn")  # 0.5 in 100, which is written as 0
    assert b">0</text>" not in few.figures["confusion_cnn.svg"]
