"""`runs` and `curves`: what stands in results.csv and under the report."""

import pandas as pd
import pytest
from msgspec.structs import replace

from cifar_lightning.results import tables
from tests.report.handmade import NOWHERE, curve, outcome, record, study


def test_metrics_are_of_the_last_epoch_and_the_first_best_one() -> None:
    rows = curve(4, val_acc=[0.5, 0.7, 0.7, 0.6], train_loss=(1.0, 0.4))
    table = tables.runs(study(NOWHERE, {"cnn": [record(rows, test=outcome(0.76, loss=1.1))]}))
    names = ["best_val/acc", "best_epoch", "val/acc", "train/loss", "test/acc", "test/loss", "epochs", "model"]
    assert table[names].to_numpy().tolist() == [[0.7, 2, 0.6, 0.4, 0.76, 1.1, 4, "CNN"]]


def test_a_shorter_experiment_has_the_first_epochs_and_not_the_test() -> None:
    rows = curve(50, val_acc=[0.7] * 20 + [0.9] * 30)
    made = study(NOWHERE, {"cnn": [record(rows, test=outcome(0.76))]}, epochs={"cnn": 20})
    (row,) = tables.runs(made).to_dict("records")
    assert (row["best_val/acc"], row["epochs"]) == (0.7, 20)
    assert pd.isna(row["test/acc"])
    assert len(tables.curves(made)) == 20


def test_a_point_whose_epochs_are_there_is_done_whatever_came_later() -> None:
    own = replace(record(curve(4), {"trainer.max_epochs": 4}), status="failed", reason="no test images")
    longer = replace(record(curve(4), {"trainer.max_epochs": 9}, seed=1), status="failed", reason="nan, later")
    table = tables.runs(study(NOWHERE, {"cnn": [own, longer, record(failed="nan", seed=2)]}, epochs={"cnn": 4}))
    assert table.status.tolist() == ["done", "done", "failed"]
    assert table.reason.tolist() == ["no test images", "", "nan"]
    assert table.epochs.tolist() == [4, 4, 0]
    assert table["best_val/acc"].isna().tolist() == [False, False, True]


def test_curves_have_a_row_per_point_and_epoch() -> None:
    shared = record(curve(3, val_acc=[0.5, 0.6, 0.7]))
    table = tables.curves(study(NOWHERE, {"cnn": [shared], "batch_size": [shared]}, epochs={"batch_size": 2}))
    assert table.columns[:5].tolist() == ["experiment", "variant", "seed", "address", "epoch"]
    assert table.groupby("experiment", sort=False).epoch.agg(list).to_dict() == {"cnn": [1, 2, 3], "batch_size": [1, 2]}
    assert table["val/acc"].tolist() == pytest.approx([0.5, 0.6, 0.7, 0.5, 0.6])


def test_a_plan_without_records_has_empty_tables() -> None:
    made = study(NOWHERE, {}, pending={"cnn": [0]})
    assert tables.runs(made).empty
    assert "best_val/acc" in tables.runs(made)
    assert tables.curves(made).empty
