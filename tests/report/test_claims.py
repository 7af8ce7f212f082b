"""The report's numbers, and when one counts as reproduced."""

import math
from pathlib import Path
from typing import Any

import pytest

from cifar_lightning.report.claims import Comparison, claims, compare, statements
from cifar_lightning.report.noise import seed_noise, value_of
from cifar_lightning.results.records import Record
from cifar_lightning.results.study_results import Study
from tests.report.handmade import curve, outcome, record, study

NOWHERE = Path("nowhere")  # nothing is written


def main(experiments: dict[str, list[Record]], **more: Any) -> Study:
    return study(NOWHERE, experiments, **more)


def found(made: Study, experiment: str, metric: str, varied: dict[str, Any] | None = None) -> Comparison:
    (one,) = [
        each
        for each in compare(made)
        if (each.claim.experiment, each.claim.metric, each.claim.varied) == (experiment, metric, varied or {})
    ]
    return one


def cnn(**figures: float) -> list[Record]:
    return [record(curve(50, **figures), seed=seed, test=outcome(0.75)) for seed in range(3)]


def losses(*values: float) -> list[Record]:
    return [record(curve(50, val_loss=value), seed=seed) for seed, value in enumerate(values)]


def test_all_numbers_of_the_report_are_claims() -> None:
    all_claims = claims()
    assert len(all_claims) == 8 + 8 + 7 + 7 + 7 + 1 + 4 + 6
    named = {(each.experiment, *each.varied.values(), each.metric): each.value for each in all_claims}
    assert len(named) == len(all_claims)
    assert named["cnn", "test/acc"] == 0.7692
    assert named["mlp", "seconds"] == 125
    assert named["mlp_no_dropout", "best_val/acc"] == 0.5397
    assert named["batch_size", 10_000, "best_val/acc"] == 0.5083
    assert named["dropout", 1.0, "best_val/acc"] == 0.1009
    assert [each.experiment for each in all_claims if each.varied] == ["batch_size"] * 4 + ["dropout"] * 6


def test_all_statements_of_the_report_are_there() -> None:
    assert [each.id for each in statements()] == [
        "bn-helps-cnn-more",
        "dropout-helps-little",
        "large-batch-hurts",
        "low-dropout-best",
        "cnn-slower",
        "overfitting-shows-in-the-gap",
        "train-eval-mode",
    ]
    assert all(each.text.endswith(".") and "\n" not in each.text for each in statements())


def test_a_runs_figures() -> None:
    rows = curve(3, val_acc=[0.5, 0.7, 0.6], train_loss=(1.0, 0.4), seconds=[10, 11, 12])
    made = main({"cnn": [record(rows, test=outcome(0.76, loss=1.1))]})
    (run,) = made.experiments["cnn"][0].runs
    metrics = ("best_val/acc", "val/acc", "train/loss", "test/acc", "test/loss", "seconds", "other")
    assert [value_of(run, metric) for metric in metrics] == [0.7, 0.6, 0.4, 0.76, 1.1, 33, None]


def test_a_run_without_rows_or_test_has_no_figures() -> None:
    made = main({"cnn": [record()]})
    (run,) = made.experiments["cnn"][0].runs
    assert [value_of(run, metric) for metric in ("best_val/acc", "val/acc", "test/acc", "seconds")] == [None] * 4


def test_the_test_of_a_run_that_went_on_is_not_that_of_its_first_epochs() -> None:
    made = main({"cnn": [record(curve(50), test=outcome(0.76))]}, epochs={"cnn": 20})
    (run,) = made.experiments["cnn"][0].runs
    assert value_of(run, "test/acc") is None


def test_seed_noise_is_that_of_main_runs_and_ablations_pooled() -> None:
    made = main(
        {
            "mlp": [record(curve(50, val_loss=value), seed=seed) for seed, value in enumerate((1.0, 3.0))],
            "cnn": losses(7.0),
            "mlp_no_dropout": losses(2.0, 4.0, 6.0),
            "dropout": [record(curve(20, val_loss=9.0 * seed), {"model.dropout": 0.2}, seed=seed) for seed in (0, 1)],
        }
    )
    noise = seed_noise(made, "val/loss")
    assert noise is not None
    assert (noise.sd, noise.df) == pytest.approx((math.sqrt(10 / 3), 3))
    assert seed_noise(made, "test/acc") is None


@pytest.mark.parametrize(
    ("shift", "reproduced"), [(0.0, True), (0.49, True), (-0.49, True), (0.5, False), (-0.5, False)]
)
def test_a_loss_is_reproduced_within_the_prediction_interval(shift: float, reproduced: bool) -> None:
    ours = 1.1768 + shift  # what the report has, and so much more
    each = found(main({"cnn": losses(ours - 0.1, ours, ours + 0.1)}), "cnn", "val/loss")
    half = 4.302653 * 0.1 * math.sqrt(4 / 3)  # 0.4968
    assert (each.low, each.high) == pytest.approx((ours - half, ours + half))
    assert (each.reproduced, each.borrowed) == (reproduced, False)
    assert each.difference == pytest.approx(shift)
    assert each.ours is not None
    assert (each.ours.n, len(each.runs)) == (3, 3)


@pytest.mark.parametrize(
    ("metric", "half"),
    [
        ("test/acc", 0.0),  # the same images as the report's
        ("val/acc", 1.96 * 0.00433013 * math.sqrt(2)),  # sqrt(0.75 * 0.25 / 10000)
        ("best_val/acc", 1.96 * 0.00433013 * math.sqrt(2)),
        ("train/acc", 0.0),
        ("val/loss", 0.0),
        ("test/loss", 0.0),
    ],
)
def test_accuracies_on_other_images_are_uncertain_even_without_seed_noise(metric: str, half: float) -> None:
    each = found(main({"cnn": cnn(val_acc=0.75, train_acc=0.75)}), "cnn", metric)
    assert each.ours is not None
    assert each.low is not None
    assert each.high is not None
    assert each.ours.sd == 0
    assert each.ours.mean - each.low == pytest.approx(half, abs=1e-8)
    assert each.high - each.ours.mean == pytest.approx(half, abs=1e-8)


def test_seed_noise_and_sampling_add_in_quadrature() -> None:
    runs = [record(curve(50, val_acc=acc), seed=seed) for seed, acc in enumerate((0.74, 0.75, 0.76))]
    each = found(main({"cnn": runs}), "cnn", "val/acc")
    assert each.high == pytest.approx(
        0.75 + math.hypot(4.302653 * 0.01 * math.sqrt(4 / 3), 1.96 * 0.00433013 * math.sqrt(2))
    )


def test_a_single_run_borrows_the_noise_of_others() -> None:
    mlp = [record(curve(50, val_loss=value), seed=seed, model="MLP") for seed, value in enumerate((1.3, 1.4, 1.5))]
    each = found(main({"cnn": losses(1.0), "mlp": mlp}), "cnn", "val/loss")
    half = 4.302653 * 0.1 * math.sqrt(2)  # 0.608
    assert (each.low, each.high) == pytest.approx((1.0 - half, 1.0 + half))
    assert (each.borrowed, each.reproduced) == (True, True)


@pytest.mark.parametrize(
    "runs",
    [
        losses(1.1768),  # one seed, and no other experiment
        [record(curve(49, val_loss=1.1), seed=seed) for seed in (0, 1)],
        [record(curve(51, val_loss=1.1), seed=seed) for seed in (0, 1)],
        [record(curve(50, val_loss=1.1), seed=seed, images=5000) for seed in (0, 1)],
        [record(curve(50, val_loss=1.1), seed=seed, source="synthetic") for seed in (0, 1)],
    ],
    ids=["no noise", "too short", "too long", "part of the images", "synthetic"],
)
def test_what_can_not_be_judged_is_open_but_shown(runs: list[Record]) -> None:
    each = found(main({"cnn": runs}), "cnn", "val/loss")
    assert each.ours is not None
    assert each.ours.n == len(runs)
    assert (each.low, each.high, each.reproduced, each.borrowed) == (None, None, None, False)


def test_a_run_with_garbled_digits_is_shown_and_not_judged() -> None:
    runs = losses(1.0, 1.1, 1.2)
    each = found(main({"cnn_no_dropout": runs, "cnn": runs}), "cnn_no_dropout", "val/loss")
    assert each.ours is not None
    assert each.ours.n == 3
    assert (each.low, each.high, each.reproduced) == (None, None, None)


def test_seconds_are_shown_and_never_judged() -> None:
    each = found(main({"cnn": cnn(seconds=97.43)}), "cnn", "seconds")
    assert each.ours is not None
    assert each.ours.mean == pytest.approx(4871.5)
    assert (each.low, each.high, each.reproduced) == (None, None, None)


@pytest.mark.parametrize("runs", [{}, {"cnn": []}, {"cnn": [record(failed="no memory")]}, {"cnn": [record()]}])
def test_without_finished_runs_every_claim_is_open(runs: dict[str, list[Record]]) -> None:
    every = compare(main(runs, pending={"mlp": [0, 1]}))
    assert len(every) == len(claims())
    assert {(each.ours, each.difference, each.reproduced, each.runs) for each in every} == {(None, None, None, ())}


def test_failed_and_pending_runs_leave_the_others() -> None:
    runs = [*losses(1.1, 1.2), record(failed="no memory", seed=2)]
    each = found(main({"cnn": runs}, pending={"cnn": [3]}), "cnn", "val/loss")
    assert each.ours is not None
    assert (each.ours.n, each.reproduced) == (2, True)


def test_a_sweep_is_compared_value_by_value_with_the_best_epoch() -> None:
    accuracies = {10: 0.76, 100: 0.787, 1000: 0.6}
    sweep = [
        record(curve(20, val_acc=(acc, 0.1)), {"data.batch_size": size}, seed=seed)
        for size, acc in accuracies.items()
        for seed in range(3)
    ]
    made = main({"batch_size": sweep, "batch_size_scaled": sweep})
    ours = {
        size: found(made, "batch_size", "best_val/acc", {"data.batch_size": size}) for size in (*accuracies, 10_000)
    }
    assert {size: each.ours and each.ours.mean for size, each in ours.items()} == pytest.approx(
        {**accuracies, 10_000: None}
    )
    assert [each.reproduced for each in ours.values()] == [True, True, False, None]


def test_a_sweep_may_use_the_first_epochs_of_a_longer_run() -> None:
    rows = curve(50, val_acc=[0.787] * 20 + [0.9] * 30)
    long = [record(rows, seed=seed) for seed in range(2)]
    made = main({"batch_size": long, "cnn": long}, epochs={"batch_size": 20})
    each = found(made, "batch_size", "best_val/acc", {"data.batch_size": 100})
    assert each.ours is not None
    assert each.ours.mean == pytest.approx(0.787)
    assert each.reproduced
