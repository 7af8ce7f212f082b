"""Verdicts on curves of every kind, drawn by hand."""

import math
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from cifar_lightning.report import curve_diagnosis
from cifar_lightning.report.curve_diagnosis import Diagnosis, diagnose, summarize
from tests.report.handmade import Course, curve

CONFIGS = Path(__file__).parents[2] / "configs"
TEMPLATE = Path(curve_diagnosis.__file__).with_name("report.md.j2")
Rows = list[dict[str, float]]


def judge(rows: Rows) -> Diagnosis:
    return diagnose(pd.DataFrame(rows))


def advice(*seeds: Rows) -> str:
    return summarize([judge(rows) for rows in seeds])[1]


def settling(
    epochs: int, start: float, end: float, pace: float
) -> list[float]:  # e times nearer to `end` every `pace` epochs
    return [end + (start - end) * math.exp(-epoch / pace) for epoch in range(epochs)]


def wavy(values: list[float], height: float) -> list[float]:
    return [value + (height if i % 2 else -height) for i, value in enumerate(values)]


def turning(epochs: int, low: float, at: int, end: float) -> list[float]:
    """Falls from 1.6 to `low` in epoch `at`, then rises to `end`, straight."""
    down = [1.6 + (low - 1.6) * i / (at - 1) for i in range(at)]
    return down + [low + (end - low) * (i + 1) / (epochs - at) for i in range(epochs - at)]


def alike(losses: Course, **more: Course) -> Rows:
    return curve(20, train_loss=losses, clean_loss=losses, val_loss=losses, **more)


KINDS: dict[str, tuple[Rows, str]] = {
    "guessing": (alike(2.31, val_acc=0.1), "not learning"),
    "guessing, and its loss jumps": (alike(wavy([4.0] * 20, 1), val_acc=0.11), "not learning"),
    "one epoch": (curve(1), "too short"),
    "three epochs": (curve(3, val_loss=(1.6, 1.1)), "too short"),
    "four epochs": (curve(4, val_loss=(1.6, 1.1)), "still learning"),
    "up and down": (alike(wavy([1.9] * 20, 0.1), val_acc=0.3), "learning rate too high"),
    # As the MLP at a rate of 0.1: the mean over an epoch hides the jumps, evaluation after it shows them.
    "up and down after the epochs only": (
        curve(20, train_loss=2.03, clean_loss=wavy([1.9] * 20, 0.02), val_loss=1.92, val_acc=0.3),
        "learning rate too high",
    ),
    "down, but with jumps": (
        curve(20, train_loss=wavy(settling(20, 2.0, 0.6, 8), 0.2), clean_loss=(2.0, 0.6), val_loss=1.0, val_acc=0.6),
        "learning rate too high",
    ),
    # As the CNN with batches of 10,000: it starts with jumps, and sinks all the same.
    "down in spite of jumps": (
        curve(
            20,
            train_loss=(2.3, 1.7),
            clean_loss=[2.5, 2.8, 2.2, 2.3, *wavy(settling(16, 2.0, 1.6, 6), 0.02)],
            val_loss=(2.3, 1.7),
            val_acc=0.4,
        ),
        "still learning",
    ),
    # As the CNN with batches of 10,000 at a rate of 0.01: most of its fall is above what guessing has.
    "down from far above": (
        curve(
            20,
            train_loss=[55, 88, *settling(18, 54, 1.8, 3)],
            clean_loss=settling(20, 78, 1.96, 2),
            val_loss=[*settling(12, 77, 2.2, 2), 2.15, 2.10, 2.05, 2.06, 2.01, 2.03, 2.0, 1.98],
            val_acc=0.3,
        ),
        "still learning",
    ),
    "validation turns": (
        curve(50, train_loss=(1.7, 0.4), clean_loss=(1.5, 0.2), clean_acc=0.95, val_loss=turning(50, 1.1, 15, 1.9)),
        "overfitting",
    ),
    # As the MLP in 50 epochs: by a twentieth only, but for long.
    "validation turns a little": (
        curve(50, train_loss=(1.7, 0.87), clean_loss=(1.5, 0.57), clean_acc=0.83, val_loss=turning(50, 1.32, 24, 1.39)),
        "overfitting",
    ),
    "sinking steadily": (alike((2.2, 1.7), clean_acc=0.4, val_acc=0.39), "still learning"),
    "not yet settled": (
        curve(20, train_loss=(1.7, 0.5), clean_loss=(1.5, 0.6), clean_acc=0.86, val_loss=settling(20, 1.5, 0.8, 8)),
        "still learning",
    ),
    # As the CNN in 50 epochs: validation and training go up and down together, by a few hundredths.
    "settled with a wide gap": (
        curve(
            50,
            train_loss=settling(50, 1.7, 0.32, 10),
            clean_loss=wavy(settling(50, 1.4, 0.39, 10), 0.012),
            clean_acc=0.93,
            val_loss=wavy(settling(50, 1.5, 0.73, 10), 0.012),
            val_acc=0.76,
        ),
        "overfitting begins",
    ),
    "settled high": (
        curve(
            50,
            train_loss=wavy(settling(50, 2.2, 1.7, 5), 0.003),
            train_acc=0.43,
            clean_loss=wavy(settling(50, 2.1, 1.6, 5), 0.003),
            clean_acc=0.45,
            val_loss=settling(50, 2.1, 1.62, 5),
            val_acc=0.44,
        ),
        "underfitting",
    ),
    "settled low": (
        curve(
            40, clean_loss=settling(40, 1.5, 0.3, 5), clean_acc=0.9, val_loss=settling(40, 1.5, 0.4, 5), val_acc=0.88
        ),
        "balanced",
    ),
    # Converged: it rises in every other epoch, by a third of its height, which is little of what was learnt.
    "settled low, restless": (
        curve(50, train_loss=wavy([0.1] * 50, 0.015), clean_loss=0.05, clean_acc=0.99, val_loss=0.3, val_acc=0.92),
        "balanced",
    ),
}

JUMPING = ("down in spite of jumps", "down from far above")  # and still learning


@pytest.mark.parametrize(("rows", "verdict"), KINDS.values(), ids=KINDS.keys())
def test_the_verdict_is_what_the_eye_sees(rows: Rows, verdict: str) -> None:
    assert judge(rows).verdict == verdict


@pytest.mark.parametrize("kind", ["up and down", "validation turns", "sinking steadily", "settled high", "one epoch"])
def test_without_evaluation_of_training_images_the_curve_as_trained_stands_in(kind: str) -> None:
    rows, verdict = KINDS[kind]
    bare = [{name: value for name, value in row.items() if "clean" not in name and "gap" not in name} for row in rows]
    found = judge(bare)
    assert found.verdict == verdict
    assert found.gap_at_end == pytest.approx(rows[-1]["train/acc"] - rows[-1]["val/acc"])


def test_every_rule_is_tried_and_every_verdict_has_a_rule() -> None:
    rules = re.findall(r"^- \*\*([a-z ]+)\*\*: ", TEMPLATE.read_text(), re.MULTILINE)
    assert {verdict for _, verdict in KINDS.values()} == set(rules)


def test_the_figures() -> None:
    rows = curve(
        5,
        clean_acc=[0.5, 0.6, 0.7, 0.8, 0.9],
        clean_loss=[1.5, 1.2, 1.0, 0.8, 0.5],
        val_acc=[0.4, 0.5, 0.56, 0.56, 0.55],
        val_loss=[1.6, 1.25, 1.3, 1.4, 1.5],
    )
    found = judge(rows)
    assert (found.verdict, found.best_epoch) == ("overfitting", 3)  # the first of the equals
    assert (found.gap_at_best, found.gap_at_end, found.val_loss_rise) == pytest.approx((0.14, 0.35, 0.25))
    assert found.why == (
        "The validation loss rose from 1.25 in epoch 2, its lowest, to 1.50, while the loss on training images fell "
        "from 1.20 to 0.50."
    )


@pytest.mark.parametrize(("end", "verdict"), [(1.029, "overfitting begins"), (1.031, "overfitting")])
def test_overfitting_starts_at_three_per_cent(end: float, verdict: str) -> None:
    rows = curve(20, clean_loss=(1.5, 0.5), clean_acc=0.9, val_loss=[2.0] + [1.0] * 18 + [end])
    assert judge(rows).verdict == verdict


def test_a_bad_last_epoch_is_no_overfitting() -> None:
    # Weights of one bad moment: worse on both kinds of images.
    clean, val = settling(50, 1.5, 0.4, 6), settling(50, 1.5, 0.7, 6)
    rows = curve(50, clean_loss=[*clean[:-1], 0.44], val_loss=[*val[:-1], 0.74], clean_acc=0.93)
    assert judge(rows).verdict == "overfitting begins"


def restless(losses: list[float], epochs: int = 21) -> str:
    rows = curve(epochs, train_loss=losses, clean_loss=1.5, clean_acc=0.5, val_loss=1.6, val_acc=0.45)
    return judge(rows).verdict


@pytest.mark.parametrize(("jumps", "verdict"), [(4, "underfitting"), (5, "learning rate too high")])
def test_a_quarter_of_jumps_is_too_many(jumps: int, verdict: str) -> None:
    # What was learnt is 0.8: a jump is more than 0.024. The other rises are smaller.
    losses = [1.502585] * 21
    for i in range(1, 20, 2):
        losses[i] += 0.026 if i < 2 * jumps else 0.022
    assert restless(losses) == verdict


@pytest.mark.parametrize(("rise", "verdict"), [(0.0199, "underfitting"), (0.0201, "learning rate too high")])
def test_rises_of_half_the_falls_are_too_much(rise: float, verdict: str) -> None:
    losses = [2.3]
    for _ in range(10):
        losses += [losses[-1] - 0.04, losses[-1] - 0.04 + rise]
    assert restless(losses) == verdict


def test_above_guessing_only_a_rise_is_a_jump() -> None:
    losses = settling(20, 60, 4, 40)  # by less than 3 % of what is above guessing's an epoch
    falling = alike(losses, val_acc=0.3)
    rising = curve(20, train_loss=[60, 88, *losses[2:]], clean_loss=losses, val_loss=losses, val_acc=0.3)
    assert ["three times the learning rate" in advice(rows) for rows in (falling, rising)] == [True, False]


def test_one_jump_is_no_sign_however_short_the_run() -> None:
    assert restless([1.0, 1.5, 0.9, 0.9], 4) == "underfitting"


@pytest.mark.parametrize(("end", "verdict"), [(0.0, "balanced"), (0.1, "overfitting")])
def test_a_validation_loss_may_be_zero(end: float, verdict: str) -> None:
    rows = curve(4, clean_loss=(0.5, 0.1), clean_acc=0.99, val_loss=[0.0, 0.0, 0.0, end], val_acc=0.99)
    assert judge(rows).verdict == verdict


REGULARISE = "more dropout (--model.dropout), weight decay (--model.weight_decay 1e-4), --data.augment flip-shift"
ADVICE = {
    "learning rate too high": "a third of the learning rate (--model.lr 0.0003)",
    "still learning": "three times the learning rate (--model.lr 0.003)",
    "overfitting": REGULARISE,
    "overfitting begins": REGULARISE,
}


@pytest.mark.parametrize("kind", [kind for kind, (_, verdict) in KINDS.items() if verdict in ADVICE])
def test_the_advice_goes_the_right_way(kind: str) -> None:
    rows, verdict = KINDS[kind]
    assert (ADVICE[verdict] in advice(rows)) is (kind not in JUMPING)
    assert kind not in JUMPING or "--model.lr" not in advice(rows)  # what jumps is not told to go faster


def test_all_flags_of_the_advice_exist() -> None:
    known = {"trainer.max_epochs"}
    for name in ("cnn", "mlp"):
        config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
        known |= {f"model.{key}" for key in config["model"]["init_args"]} | {f"data.{key}" for key in config["data"]}
    flags = {flag for rows, _ in KINDS.values() for flag in re.findall(r"--([\w.]+\w)", advice(rows))}
    assert len(flags) == 7
    assert flags <= known


# The validation loss turns in epoch 15, and the accuracy may still rise: 50 epochs, the best one here.
@pytest.mark.parametrize(
    ("best_epochs", "words"),
    [
        ((47, 42, 29), ""),  # as the MLP
        ((41,), ""),
        ((40,), "--trainer.max_epochs 40"),  # four fifths
        ((13, 19, 11), "--trainer.max_epochs 19"),  # as the MLP without dropout: enough for every seed
    ],
)
def test_fewer_epochs_are_named_only_where_no_seed_loses_accuracy(best_epochs: tuple[int, ...], words: str) -> None:
    rows, _ = KINDS["validation turns"]
    seeds = [
        [{**row, "val/acc": 0.6 if row["epoch"] == best else row["val/acc"]} for row in rows] for best in best_epochs
    ]
    assert [judge(each).best_epoch for each in seeds] == list(best_epochs)
    assert words in advice(*seeds)
    assert words or "--trainer.max_epochs" not in advice(*seeds)


def test_a_setting_has_the_verdict_of_most_of_its_seeds() -> None:
    seeds = [judge(KINDS[name][0]) for name in ("settled low", "settled high", "settled low, restless")]
    assert summarize(seeds[:1])[0] == "balanced"
    words, what = summarize(seeds)
    assert words == "balanced (2 of 3), underfitting (1 of 3)"
    assert "together with --data.augment flip-shift" in what
