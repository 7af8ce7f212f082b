"""The original's numbers, and when one counts as reproduced."""

import math
from typing import Any

import pytest

from cifar_lightning.report.claims import Claim, compare
from cifar_lightning.report.statistics import Estimate, finished
from cifar_lightning.results.records import Record
from tests.report.handmade import NOWHERE, curve, outcome, record, study

T2 = 4.302653  # the 97.5 % quantile of Student's t


def claims(experiments: dict[str, list[Record]], **more: Any) -> dict[tuple[Any, ...], Claim]:
    found = compare(finished(study(NOWHERE, experiments, **more)))
    return {(each.experiment, *each.varied.values(), each.metric): each for each in found}


def losses(*values: float, **more: Any) -> list[Record]:
    return [record(curve(50, val_loss=value), seed=seed, **more) for seed, value in enumerate(values)]


def ours(claim: Claim) -> Estimate:
    assert claim.ours is not None
    return claim.ours


def test_all_numbers_of_the_original_are_claims() -> None:
    found = claims({})
    assert len(found) == 8 + 8 + 7 + 7 + 7 + 1 + 4 + 6
    assert found["cnn", "test/acc"].value == 0.7692
    assert found["mlp", "seconds"].value == 125
    assert found["mlp_no_dropout", "best_val/acc"].value == 0.5397
    assert found["batch_size", 10_000, "best_val/acc"].value == 0.5083
    assert found["dropout", 1.0, "best_val/acc"].value == 0.1009


def test_a_runs_metrics() -> None:
    rows = curve(3, val_acc=[0.5, 0.7, 0.6], train_loss=(1.0, 0.4), seconds=[10, 11, 12], clean_acc=(0.6, 0.8))
    (run,) = finished(study(NOWHERE, {"cnn": [record(rows, test=outcome(0.76))]})).to_dict("records")
    names = ("best_val/acc", "train/loss", "test/acc", "seconds", "gap/acc", "eval_lead", "images", "steps")
    assert [run[name] for name in names] == pytest.approx([0.7, 0.4, 0.76, 33, 0.2, 0.2, 40_000, 400])
    assert run["epoch_times"] == [10, 11, 12]


def test_what_is_not_finite_is_missing() -> None:
    found = claims({"cnn": losses(1.0, math.inf, math.nan)})["cnn", "val/loss"]
    assert (ours(found).n, len(found.rows)) == (1, 1)


@pytest.mark.parametrize(
    ("shift", "reproduced"), [(0.0, True), (0.49, True), (-0.49, True), (0.5, False), (-0.5, False)]
)
def test_a_loss_is_reproduced_within_the_prediction_interval(shift: float, reproduced: bool) -> None:
    mean = 1.1768 + shift  # what the original has, and so much more
    each = claims({"cnn": losses(mean - 0.1, mean, mean + 0.1)})["cnn", "val/loss"]
    assert (ours(each).mean, ours(each).half) == pytest.approx((mean, T2 * 0.1 * math.sqrt(4 / 3)))  # 0.4968
    assert each.verdict == ("reproduced" if reproduced else "not reproduced")
    assert (ours(each).n, ours(each).pooled) == (3, False)


def test_a_single_run_has_the_pooled_sd_of_others() -> None:
    each = claims({"cnn": losses(1.0), "mlp": losses(1.3, 1.4, 1.5, model="MLP")})["cnn", "val/loss"]
    assert (ours(each).mean, ours(each).half) == pytest.approx((1.0, T2 * 0.1 * math.sqrt(2)))  # 0.608
    assert (ours(each).pooled, each.verdict) == (True, "reproduced")


@pytest.mark.parametrize(
    "runs",
    [
        losses(1.1768),  # one seed, and no other experiment
        [record(curve(49, val_loss=1.1), seed=seed) for seed in (0, 1)],
        [record(curve(51, val_loss=1.1), seed=seed) for seed in (0, 1)],
        losses(1.1, 1.1, images=5000),
        losses(1.1, 1.1, source="synthetic"),
    ],
    ids=["no noise", "too short", "too long", "part of the images", "synthetic"],
)
def test_what_can_not_be_judged_is_open_but_shown(runs: list[Record]) -> None:
    each = claims({"cnn": runs})["cnn", "val/loss"]
    assert ours(each).n == len(runs)
    assert (ours(each).half, each.verdict) == (None, "open")


def test_garbled_digits_and_seconds_are_shown_and_not_judged() -> None:
    found = claims({"cnn_no_dropout": losses(1.0, 1.1, 1.2), "cnn": losses(1.0, 1.1, 1.2)})
    for each in (found["cnn_no_dropout", "val/loss"], found["cnn", "seconds"]):
        assert (ours(each).half, each.verdict) == (None, "open")


@pytest.mark.parametrize("runs", [{}, {"cnn": []}, {"cnn": [record(failed="no memory")]}])
def test_without_finished_runs_every_claim_is_open(runs: dict[str, list[Record]]) -> None:
    every = claims(runs, pending={"mlp": [0, 1]}).values()
    assert {(each.ours, each.verdict, len(each.rows)) for each in every} == {(None, "open", 0)}


def test_a_sweep_is_compared_value_by_value_with_the_best_epoch() -> None:
    accuracies = {10: 0.76, 100: 0.787, 1000: 0.6}
    runs = [(curve(20, val_acc=(acc, 0.1)), {"data.batch_size": size}) for size, acc in accuracies.items()]
    sweep = [record(*run, seed=seed) for run in runs for seed in range(3)]
    found = claims({"batch_size": sweep, "batch_size_scaled": sweep})
    those = [found["batch_size", size, "best_val/acc"] for size in (*accuracies, 10_000)]
    assert [each.ours and each.ours.mean for each in those] == pytest.approx([*accuracies.values(), None])
    assert [each.verdict for each in those] == ["reproduced", "reproduced", "not reproduced", "open"]


def test_the_chance_of_a_number_is_that_of_one_more_run() -> None:
    # Of all numbers judged here it is the least surprising, so its p is multiplied by 1. With 2 degrees of freedom the
    # two tails beyond t hold 1 - t / sqrt(2 + t^2).
    mean = 1.1768 + 0.4
    found = claims({"cnn": losses(mean - 0.1, mean, mean + 0.1)})
    t = 0.4 / (0.1 * math.sqrt(4 / 3))
    assert found["cnn", "val/loss"].chance == pytest.approx(1 - t / math.sqrt(2 + t * t))  # 0.074
    assert found["cnn", "train/loss"].chance < 1e-9
    assert math.isnan(found["cnn", "seconds"].chance)
    assert math.isnan(found["mlp", "val/loss"].chance)
