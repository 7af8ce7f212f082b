"""Verdicts on the original's statements, on hand-made records."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest

from cifar_lightning.report.claims import Verdict, exceeds, judge
from cifar_lightning.report.markdown import MINUS
from cifar_lightning.report.statistics import POINT, Estimate, finished
from cifar_lightning.results import tables
from cifar_lightning.results.records import Record
from tests.report.handmade import NOWHERE, Course, curve, record, study

Experiments = dict[str, list[Record]]


def verdicts(experiments: Experiments, **more: Any) -> dict[str, Verdict]:
    made = study(NOWHERE, experiments, **more)
    runs = tables.runs(made)
    return {each.id: each for each in judge(finished(made), runs[runs.status == "failed"])}


def verdict(statement: str, experiments: Experiments, **more: Any) -> Verdict:
    return verdicts(experiments, **more)[statement]


@pytest.mark.parametrize(
    ("mean", "half", "floor", "expected"),
    [
        (0.02, 0.01, 0.0, True),
        (0.015, 0.006, 0.0, True),  # 0.021 at most
        (0.015, 0.004, 0.0, False),  # certain, and too small
        (-0.02, 0.01, 0.0, False),
        (0.01, 0.02, 0.0, None),
        (0.02, 0.01, 0.02, None),  # may be below the floor
        (0.025, 0.004, 0.02, True),
        (0.02, None, 0.0, None),
    ],
)
def test_an_effect_is_there_or_not_or_the_interval_does_not_tell(
    mean: float, half: float | None, floor: float, expected: bool | None
) -> None:
    assert exceeds(Estimate(3, mean, 0.01, half), 0.02, floor) is expected
    assert exceeds(None, 0.02) is None


def seeds(*accuracies: float, model: str = "CNN", **figures: Course) -> list[Record]:
    """A run of 50 epochs a seed, of which this is the validation accuracy."""
    return [record(curve(50, val_acc=acc, **figures), seed=seed, model=model) for seed, acc in enumerate(accuracies)]


def around(acc: float, **figures: Any) -> list[Record]:
    """Three seeds with a standard deviation of half a point."""
    return seeds(acc - 0.005, acc, acc + 0.005, **figures)


def swept(setting: str, accuracies: dict[float, float], **figures: Course) -> list[Record]:
    """One run of 20 epochs a value."""
    return [record(curve(20, val_acc=acc, **figures), {setting: value}) for value, acc in accuracies.items()]


def ablated(part: str, cnn: Sequence[float], mlp: Sequence[float]) -> Experiments:
    """Runs with a part, at 0.77 and 0.55, and without it, so many points lower in each seed."""
    return {
        "cnn": seeds(*[0.77] * len(cnn)),
        "mlp": seeds(*[0.55] * len(mlp), model="MLP"),
        f"cnn_no_{part}": seeds(*(0.77 - drop / 100 for drop in cnn)),
        f"mlp_no_{part}": seeds(*(0.55 - drop / 100 for drop in mlp), model="MLP"),
    }


NORM, DROPOUT = "bn-helps-cnn-more", "dropout-helps-little"


# Drops that seeds agree on are known as well as 10,000 images allow: the CNN's to 1.20 points, the MLP's to 1.38, one
# against the other to 1.83.
@pytest.mark.parametrize(
    ("statement", "cnn", "mlp", "expected"),
    [
        (NORM, (3.9, 4.0, 4.1), (1.9, 2.0, 2.1), "supported"),  # 2.00 more
        (NORM, (3.7, 3.8, 3.9), (1.9, 2.0, 2.1), "open"),  # 1.80 more
        (NORM, (1.8, 1.9, 2.0), (1.9, 2.0, 2.1), "not supported"),  # 0.10 less, so 1.73 more at most; original: 1.75
        (NORM, (2.0, 2.1, 2.2), (1.9, 2.0, 2.1), "open"),  # 0.10 more, so 1.93 at most
        (NORM, (1.9, 2.0, 2.1), (3.9, 4.0, 4.1), "not supported"),
        (NORM, (-0.4, -0.3, -0.2), (-4.1, -4.0, -3.9), "not supported"),  # more, but it is no drop
        (NORM, (1.0, 3.0, 5.0), (1.9, 2.0, 2.1), "open"),  # +- 5
        (DROPOUT, (-0.1, 0.1, 0.2), (-0.2, 0.0, 0.1), "supported"),
        (DROPOUT, (2.1, 2.2, 2.4), (-0.2, 0.0, 0.1), "not supported"),
        (DROPOUT, (-0.1, 0.1, 0.2), (-2.2, -2.0, -2.1), "not supported"),  # a gain is a change, too
        (DROPOUT, (2.1, 2.2, 2.4), (1.7, 1.8, 1.9), "not supported"),
        (DROPOUT, (-0.1, 0.1, 0.2), (-1.0, 1.5, 4.0), "open"),  # +- 6 would hide the report's drop
    ],
)
def test_what_a_part_is_worth(statement: str, cnn: Sequence[float], mlp: Sequence[float], expected: str) -> None:
    part = {NORM: "batch_norm", DROPOUT: "dropout"}[statement]
    assert verdict(statement, ablated(part, cnn, mlp)).verdict == expected


@pytest.mark.parametrize(
    ("cnn", "drop", "more"),
    [
        ((3.9, 4.0, 4.1), "drops by 4.00 points (2.80 to 5.20, n = 3)", "larger by 2.00 points (0.17 to 3.83, n = 3)"),
        # What is gained is a positive number.
        ((-0.9, -1, -1.1), "gains 1.00 points (-0.16 to 2.16, n = 3)", "smaller by 3.00 points (1.20 to 4.80, n = 3)"),
    ],
)
def test_the_numbers_stand_in_the_reason(cnn: Sequence[float], drop: str, more: str) -> None:
    why = verdict(NORM, ablated("batch_norm", cnn, (1.9, 2.0, 2.1))).why.replace(MINUS, "-")
    assert why == (
        f"Without batch norm the CNN {drop}, the MLP drops by 2.00 points (0.62 to 3.38, n = 3). "
        f"The CNN's drop is {more}."
    )


@pytest.mark.parametrize(("statement", "part"), [(NORM, "batch_norm"), (DROPOUT, "dropout")])
def test_one_seed_each_and_no_noise_is_open(statement: str, part: str) -> None:
    found = verdict(statement, ablated(part, (4.0,), (2.0,)))
    assert found.verdict == "open"
    assert "Missing: a main run or ablation with several seeds" in found.why


def test_one_network_may_refute_what_is_said_of_both() -> None:
    experiments = ablated("dropout", (2.1, 2.2, 2.4), ())
    found = verdict(DROPOUT, experiments)
    assert found.verdict == "not supported"
    assert "Missing: mlp, mlp_no_dropout." in found.why


def batches(epochs: float, updates: float | None) -> Experiments:
    """Batches of 100 reach 0.77 at equal epochs and 0.30 at equal updates; this is what batches of 10,000 reach."""
    made = {
        "cnn": around(0.77),
        "batch_size": swept("data.batch_size", {100: 0.77, 1000: 0.67, 10_000: epochs}, seconds=20),
        "batch_size_scaled": [record(curve(20, val_acc=0.6), {"data.batch_size": 10_000, "model.lr": 0.01})],
    }
    if updates is not None:
        made["batch_size_updates"] = swept("data.batch_size", {100: 0.3, 10_000: updates})
    return made


# Half an interval of single runs is 4.303 * 0.5 * sqrt(2) = 3.04 points.
@pytest.mark.parametrize(
    ("epochs", "updates", "expected", "words"),
    [
        (0.5, 0.5, "not supported", "the fall is there. At an equal number of updates they are ahead by 20.00 points"),
        (0.5, 0.5, "not supported", "the cause is fewer updates, not memory or processing speed"),
        (0.5, 0.2, "open", "At an equal number of updates they still lose 10.00 points"),
        (0.5, 0.2, "open", "fewer updates are not all of it, and what else it is these runs do not tell."),
        (0.8, 0.5, "not supported", "there is no fall"),
        (0.76, 0.5, "open", "that may be noise"),
        (0.8, None, "not supported", "there is no fall"),
        (0.5, 0.31, "open", "they are ahead by 1.00 points (\u22122.04 to 4.04, n = 1, pooled SD): that may be noise"),
        (0.5, 0.29, "open", "they still lose 1.00 points (\u22122.04 to 4.04, n = 1, pooled SD): that may be noise"),
        (0.5, None, "open", "Missing: batch_size_updates at 100, batch_size_updates at 10000."),
    ],
)
def test_large_batches(epochs: float, updates: float | None, expected: str, words: str) -> None:
    found = verdict("large-batch-hurts", batches(epochs, updates))
    assert found.verdict == expected
    assert words in found.why
    if epochs == updates:
        assert "brings back 10.00 points" in found.why
        assert "An epoch takes 20.0 s with large batches and 20.0 s with small ones." in found.why
        assert "Batches of 1,000 lose 10.00 points" in found.why


RATES = {0.0: 0.70, 0.2: 0.77, 0.4: 0.76, 0.6: 0.70, 0.8: 0.52, 1.0: 0.1}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "supported"),
        ({0.2: 0.60}, "not supported"),  # although 0.4 helps: the rate is not chosen after the runs
        ({0.4: 0.90}, "supported"),
        ({0.0: 0.80}, "not supported"),  # 0.2 is worse than none
        ({0.8: 0.75}, "not supported"),
        ({1.0: 0.3}, "not supported"),
        ({0.0: 0.76}, "open"),
        ({0.8: 0.66}, "open"),  # 11 points, +- 3: that may be fewer than 10
    ],
)
def test_dropout_rates(change: dict[float, float], expected: str) -> None:
    experiments = {"cnn": around(0.77), "dropout": swept("model.dropout", RATES | change)}
    assert verdict("low-dropout-best", experiments).verdict == expected


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.8, 1.0])
def test_a_dropout_rate_that_is_missing_is_named(rate: float) -> None:
    left = {each: acc for each, acc in RATES.items() if each != rate}
    found = verdict("low-dropout-best", {"cnn": around(0.77), "dropout": swept("model.dropout", left)})
    assert found.verdict == "open"
    assert f"Missing: dropout at {rate:g}." in found.why


@pytest.mark.parametrize(("seconds", "expected"), [(60.0, "supported"), (15.0, "supported"), (10.0, "not supported")])
def test_the_cnn_is_slower(seconds: float, expected: str) -> None:
    pauses = [seconds] * 48 + [5000.0, 1.0]  # a machine that slept: a median minds neither
    experiments = {"cnn": seeds(0.77, seconds=pauses), "mlp": seeds(0.55, model="MLP", seconds=5.0)}
    found = verdict("cnn-slower", experiments)
    assert found.verdict == expected
    assert f"{seconds / 5:.1f} times as long" in found.why
    assert verdict("cnn-slower", {"cnn": experiments["cnn"]}).verdict == "open"


def clean_ahead(model: str, *leads: float) -> list[Record]:
    """Runs whose training images are better recognised in evaluation mode by so many points."""
    figures = [{"train_acc": 0.7, "clean_acc": 0.7 + lead / 100} for lead in leads]
    return [record(curve(50, **each), seed=seed, model=model) for seed, each in enumerate(figures)]


@pytest.mark.parametrize(
    ("whole", "without", "expected"),
    [
        ((13.9, 14.0, 14.1), (2.9, 3.0, 3.1), "supported"),
        ((1.0, 1.1, 1.2), (3.1, 3.0, 3.0), "not supported"),
        ((1.0, 7.0, 9.0), (3.0, 3.0, 3.0), "open"),
        ((14.0,), (3.0,), "open"),  # nothing tells the noise
        ((14.0,), (), "open"),
    ],
)
def test_the_two_modes(whole: Sequence[float], without: Sequence[float], expected: str) -> None:
    experiments = {
        name: clean_ahead(model.upper(), *leads)
        for model in ("cnn", "mlp")
        for name, leads in ((model, whole), (f"{model}_no_dropout", without))
    }
    assert verdict("train-eval-mode", experiments).verdict == expected


SETTLED: dict[str, Any] = {"val_loss": 0.8, "clean_loss": 0.4, "train_loss": 0.4, "clean_acc": 0.9}
TURNING: dict[str, Any] = dict.fromkeys(("train_loss", "clean_loss"), (1.2, 0.1))
TURNING |= {"val_loss": (0.8, 1.6), "clean_acc": 0.99}
JUMPING: dict[str, Any] = {"train_loss": [1.5, 2.0] * 10, "clean_loss": 1.9, "val_loss": 1.9}
SINKING: dict[str, Any] = dict.fromkeys(("train_loss", "clean_loss", "val_loss"), (2.2, 1.6)) | {"clean_acc": 0.44}
HIGH: dict[str, Any] = dict.fromkeys(("train_loss", "clean_loss", "val_loss"), 2.3)
LR = "model.lr"


def four_signs() -> Experiments:
    """Overfitting without dropout, underfitting at a rate of 1, learning rates too low and too high."""
    return {
        "cnn": around(0.77, **SETTLED),
        "cnn_no_dropout": around(0.72, **TURNING),
        "dropout": swept("model.dropout", {0.2: 0.76}, **SETTLED) + swept("model.dropout", {1.0: 0.1}, **HIGH),
        "learning_rate": [
            *swept(LR, {1e-4: 0.43}, **SINKING),
            *swept(LR, {1e-3: 0.54}, **SETTLED),
            *swept(LR, {1e-1: 0.3}, **JUMPING),
        ],
    }


def test_four_signs_of_four_causes() -> None:
    found = verdict("overfitting-shows-in-the-gap", four_signs())
    assert found.verdict == "supported"
    assert found.why == (
        "3 of 6 main runs and ablations overfit by the rule; without dropout, which is to prevent it, the gap is wider "
        "by 14.00 points (12.51 to 15.49, n = 3) (CNN). 1 of 8 runs underfit or don't learn; both losses are higher "
        "than the best run's in all of them. At a learning rate of 0.1 it is: learning rate too high (1 of 1); the "
        "accuracy is 30% (54% at 0.001). At a learning rate of 0.0001 it is: still learning (1 of 1); the "
        "accuracy is 43% (54% at 0.001)."
    )


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"cnn_no_dropout": around(0.72, **{**TURNING, "clean_acc": 0.8})}, "not supported"),  # a narrower gap
        ({"cnn_no_dropout": seeds(0.62, 0.72, 0.82, **TURNING)}, "open"),  # wider by 14 points, +- 25
        ({"cnn_no_dropout": around(0.72, **SETTLED)}, "open"),  # none overfits
        ({"cnn_no_dropout": []}, "open"),
        ({"dropout": []}, "open"),  # none underfits
        ({"dropout": swept("model.dropout", {1.0: 0.1}, **{**HIGH, "val_loss": 0.7})}, "not supported"),
        ({"learning_rate": []}, "open"),
        ({"learning_rate": swept(LR, {1e-3: 0.5}, **SETTLED)}, "open"),  # one rate
        ({"learning_rate": swept(LR, {1e-4: 0.4}, **SINKING) + swept(LR, {1e-1: 0.5}, **SETTLED)}, "not supported"),
        ({"learning_rate": swept(LR, {1e-4: 0.5}, **SETTLED) + swept(LR, {1e-1: 0.3}, **JUMPING)}, "not supported"),
    ],
)
def test_a_sign_that_is_missing_or_wrong(changed: Experiments, expected: str) -> None:
    assert verdict("overfitting-shows-in-the-gap", four_signs() | changed).verdict == expected


@pytest.mark.parametrize(("jumping", "expected"), [(2, "supported"), (1, "open")])
def test_a_learning_rate_is_judged_by_most_of_its_seeds(jumping: int, expected: str) -> None:
    highest = [
        record(curve(20, val_acc=0.3, **(JUMPING if seed < jumping else SETTLED)), {LR: 0.1}, seed=seed)
        for seed in range(3)
    ]
    rates = [*swept(LR, {1e-4: 0.43}, **SINKING), *swept(LR, {1e-3: 0.54}, **SETTLED), *highest]
    found = verdict("overfitting-shows-in-the-gap", four_signs() | {"learning_rate": rates})
    assert found.verdict == expected
    assert f"learning rate too high ({jumping} of 3)" in found.why


@pytest.mark.parametrize(
    ("reason", "diverged"),
    [
        ("train/loss: nan at step 12 of epoch 3, learning rate 10", True),
        ("weights: not finite after step 400, in epoch 1, learning rate 10", True),
        ("out of memory on finan and nancy", False),
    ],
)
def test_a_rate_at_which_the_loss_is_not_finite_is_too_high(reason: str, diverged: bool) -> None:
    rates = [*swept(LR, {1e-4: 0.43}, **SINKING), *swept(LR, {1e-3: 0.54}, **SETTLED)]
    experiments = four_signs() | {"learning_rate": [*rates, record((), {LR: 10.0}, failed=reason)]}
    found = verdict("overfitting-shows-in-the-gap", experiments)
    assert ("At a learning rate of 10 the loss did not stay finite." in found.why) is diverged
    assert found.verdict == ("supported" if diverged else "not supported")  # else the highest that ran is the best


def everything() -> Experiments:
    ablations = ablated("batch_norm", (3.9, 4.0, 4.1), (1.9, 2.0, 2.1)) | ablated("dropout", (0.1, 0.0), (0.1, 0.0))
    return ablations | batches(0.5, 0.5) | four_signs()


@pytest.mark.parametrize(
    "experiments",
    [
        {},
        {"cnn": [], "another": []},
        {"learning_rate": [record()], "batch_size_updates": [record()]},
        {"cnn": [record(failed="no memory")], "dropout": [record(failed="no memory")]},
    ],
)
def test_with_no_run_every_statement_is_open_and_says_what_is_missing(experiments: Experiments) -> None:
    found = verdicts(experiments, pending={"mlp": [0, 1, 2]}).values()
    assert len(found) == 7
    assert all((each.verdict, len(each.runs)) == ("open", 0) and "Missing: " in each.why for each in found)


@pytest.mark.parametrize(("epochs", "source"), [(5, "cifar10"), (50, "synthetic")])
def test_other_runs_than_the_originals_decide_nothing(epochs: int, source: str) -> None:
    others = {
        name: [record(each.rows[:epochs], each.settings, seed=each.seed, source=source) for each in those]
        for name, those in everything().items()
    }
    assert all(each.verdict == "open" and "Missing: " in each.why for each in verdicts(others).values())


def test_every_verdict_names_the_runs_it_comes_from() -> None:
    found = verdicts(everything())
    assert set(found["cnn-slower"].runs.experiment) == {"cnn", "mlp"}
    experiments = {"batch_size", "batch_size_updates", "batch_size_scaled"}
    assert set(found["large-batch-hurts"].runs.experiment) == experiments
    assert not any(pd.DataFrame(each.runs).duplicated(POINT).any() for each in found.values())
