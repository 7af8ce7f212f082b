"""Verdicts on curves of every kind, drawn by hand."""

import math
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from cifar_lightning.report import curve_diagnosis
from cifar_lightning.report.curve_diagnosis import Diagnosis, diagnose, summarize
from tests.conftest import CONFIGS
from tests.report.handmade import Course, curve

TEMPLATE = Path(curve_diagnosis.__file__).with_name("report.md.j2")
Rows = list[dict[str, float]]


def judge(rows: Rows) -> Diagnosis:
    return diagnose(pd.DataFrame(rows))


def advice(*seeds: Rows) -> str:
    return summarize([judge(rows) for rows in seeds])[1].replace("`", "")


def settling(epochs: int, start: float, end: float, pace: float) -> list[float]:
    """Comes e times nearer to `end` every `pace` epochs."""
    return [end + (start - end) * math.exp(-epoch / pace) for epoch in range(epochs)]


def wavy(values: list[float], height: float) -> list[float]:
    return [value + (height if i % 2 else -height) for i, value in enumerate(values)]


def turning(epochs: int, low: float, at: int, end: float) -> list[float]:
    """Falls from 1.6 to `low` in epoch `at`, then rises to `end`, straight."""
    down = [1.6 + (low - 1.6) * i / (at - 1) for i in range(at)]
    return down + [low + (end - low) * (i + 1) / (epochs - at) for i in range(epochs - at)]


def made(epochs: int, train: Course, clean: Course, val: Course, **accuracies: Course) -> Rows:
    """Curves with these losses."""
    return curve(epochs, train_loss=train, clean_loss=clean, val_loss=val, **accuracies)


def alike(losses: Course, **accuracies: Course) -> Rows:
    return made(20, losses, losses, losses, **accuracies)


def restless(losses: list[float]) -> Rows:
    """Nothing but the training loss moves."""
    return made(len(losses), losses, 1.5, 1.6, clean_acc=0.5, val_acc=0.45)


def jumping(jumps: int) -> Rows:
    """What was learnt is 0.8: a jump is more than 0.024. The other rises are smaller."""
    losses = [1.502585] * 21
    for i in range(1, 20, 2):
        losses[i] += 0.026 if i < 2 * jumps else 0.022
    return restless(losses)


def taking_back(rise: float) -> Rows:
    """Falls by 0.04 in every other epoch, and rises in the others."""
    losses = [2.3]
    for _ in range(10):
        losses += [losses[-1] - 0.04, losses[-1] - 0.04 + rise]
    return restless(losses)


def rising_at_last(rise: float) -> Rows:
    return made(20, 1.0, (1.5, 0.5), [2.0] + [1.0] * 18 + [1 + rise], clean_acc=0.9)


def from_zero(end: float) -> Rows:
    return made(4, 1.0, (0.5, 0.1), [0.0, 0.0, 0.0, end], clean_acc=0.99, val_acc=0.99)


SINKING = [2.5, 2.8, 2.2, 2.3, *wavy(settling(16, 2.0, 1.6, 6), 0.02)]
FAR = [*settling(12, 77, 2.2, 2), 2.15, 2.10, 2.05, 2.06, 2.01, 2.03, 2.0, 1.98]
HIGH = [wavy(settling(50, start, end, 5), 0.003) for start, end in ((2.2, 1.7), (2.1, 1.6))]
TOGETHER = [wavy(settling(50, start, end, 10), 0.012) for start, end in ((1.4, 0.39), (1.5, 0.73))]
BAD = [[*settling(49, 1.5, end, 6), end + 0.04] for end in (0.4, 0.7)]
KINDS: dict[str, dict[str, Rows]] = {
    "not learning": {
        "guessing": alike(2.31, clean_acc=0.1, val_acc=0.1),
        "guessing, and its loss jumps": alike(wavy([4.0] * 20, 1), clean_acc=0.1, val_acc=0.11),
    },
    "too short": {"one epoch": curve(1), "three epochs": curve(3, clean_acc=0.1, val_acc=0.1)},
    "learning rate too high": {
        "up and down": alike(wavy([1.9] * 20, 0.1), val_acc=0.3),
        # As the MLP at a rate of 0.1: the mean over an epoch hides the jumps, evaluation after it shows them.
        "after the epochs only": made(20, 2.03, wavy([1.9] * 20, 0.02), 1.92, val_acc=0.3),
        "down, but with jumps": made(20, wavy(settling(20, 2.0, 0.6, 8), 0.2), (2.0, 0.6), 1.0, val_acc=0.6),
        "a quarter of jumps": jumping(5),
        "rises of half the falls": taking_back(0.0201),
    },
    "overfitting": {
        "guessing on validation images alone": made(20, 1.0, (1.5, 0.5), (2.3, 2.5), clean_acc=0.15, val_acc=0.1),
        "validation turns": made(50, (1.7, 0.4), (1.5, 0.2), turning(50, 1.1, 15, 1.9), clean_acc=0.95),
        # As the MLP in 50 epochs: by a twentieth only, but for long.
        "turns a little": made(50, (1.7, 0.87), (1.5, 0.57), turning(50, 1.32, 24, 1.39), clean_acc=0.83),
        "over three per cent": rising_at_last(0.031),
        "from a validation loss of zero": from_zero(0.1),
    },
    "still learning": {
        "four epochs": curve(4, val_loss=(1.6, 1.1)),
        # As the CNN with batches of 10,000: it starts with jumps, and sinks all the same.
        "down in spite of jumps": made(20, (2.3, 1.7), SINKING, (2.3, 1.7), val_acc=0.4),
        # As the CNN with batches of 10,000 at a rate of 0.01: most of its fall is above what guessing has.
        "down from far above": made(
            20, [55, 88, *settling(18, 54, 1.8, 3)], settling(20, 78, 1.96, 2), FAR, val_acc=0.3
        ),
        "sinking steadily": alike((2.2, 1.7), clean_acc=0.4, val_acc=0.39),
        "not yet settled": made(20, (1.7, 0.5), (1.5, 0.6), settling(20, 1.5, 0.8, 8), clean_acc=0.86),
    },
    "overfitting begins": {
        # As the CNN in 50 epochs: validation and training go up and down together, by a few hundredths.
        "settled with a wide gap": made(50, settling(50, 1.7, 0.32, 10), *TOGETHER, clean_acc=0.93, val_acc=0.76),
        "under three per cent": rising_at_last(0.029),
        # Weights of one bad moment: worse on both kinds of images.
        "a bad last epoch": made(50, 1.0, *BAD, clean_acc=0.93),
    },
    "underfitting": {
        "settled high": made(
            50, HIGH[0], HIGH[1], settling(50, 2.1, 1.62, 5), train_acc=0.43, clean_acc=0.45, val_acc=0.44
        ),
        "a fifth of jumps": jumping(4),
        "rises of less than half the falls": taking_back(0.0199),
        "one jump, however short the run": restless([1.0, 1.5, 0.9, 0.9]),
    },
    "balanced": {
        "settled low": made(40, 1.0, settling(40, 1.5, 0.3, 5), settling(40, 1.5, 0.4, 5), clean_acc=0.9, val_acc=0.88),
        # Converged: it rises in every other epoch, by a third of its height, which is little of what was learnt.
        "settled low, restless": made(50, wavy([0.1] * 50, 0.015), 0.05, 0.3, clean_acc=0.99, val_acc=0.92),
        "a validation loss of zero": from_zero(0.0),
    },
}
ROWS = {name: rows for kinds in KINDS.values() for name, rows in kinds.items()}
CASES = [pytest.param(rows, verdict, id=name) for verdict, kinds in KINDS.items() for name, rows in kinds.items()]


@pytest.mark.parametrize(("rows", "verdict"), CASES)
def test_the_verdict_is_what_the_eye_sees(rows: Rows, verdict: str) -> None:
    assert judge(rows).verdict == verdict


@pytest.mark.parametrize("kind", ["up and down", "validation turns", "sinking steadily", "settled high", "one epoch"])
def test_without_evaluation_of_training_images_the_curve_as_trained_stands_in(kind: str) -> None:
    bare = [{name: value for name, value in row.items() if "clean" not in name} for row in ROWS[kind]]
    found = judge(bare)
    assert found.verdict == judge(ROWS[kind]).verdict
    assert found.gap_at_end == pytest.approx(bare[-1]["train/acc"] - bare[-1]["val/acc"])


def test_every_rule_is_tried_and_every_verdict_has_a_rule() -> None:
    assert set(re.findall(r"^- \*\*([a-z ]+)\*\*: ", TEMPLATE.read_text(), re.MULTILINE)) == KINDS.keys()


def test_the_figures() -> None:
    clean, val = {"clean_acc": (0.5, 0.9), "clean_loss": [1.5, 1.2, 1.0, 0.8, 0.5]}, [1.6, 1.25, 1.3, 1.4, 1.5]
    found = judge(curve(5, **clean, val_acc=[0.4, 0.5, 0.56, 0.56, 0.55], val_loss=val))
    assert (found.verdict, found.best_epoch) == ("overfitting", 3)  # the first of the equals
    assert (found.gap_at_best, found.gap_at_end, found.val_loss_rise) == pytest.approx((0.14, 0.35, 0.25))
    assert found.why == (
        "The validation loss rose from 1.25 in epoch 2, its lowest, to 1.50, while the loss on training images fell "
        "from 1.20 to 0.50."
    )


def test_above_guessing_only_a_rise_is_a_jump() -> None:
    losses = settling(20, 60, 4, 40)  # by less than 3 % of what is above guessing's an epoch
    falling = alike(losses, val_acc=0.3)
    rising = curve(20, train_loss=[60, 88, *losses[2:]], clean_loss=losses, val_loss=losses, val_acc=0.3)
    assert ["three times the learning rate" in advice(rows) for rows in (falling, rising)] == [True, False]


REGULARISE = "more dropout (--model.dropout), weight decay (--model.weight_decay 1e-4), --data.augment flip-shift"


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("learning rate too high", "a third of the learning rate (--model.lr 0.0003)"),
        ("still learning", "three times the learning rate (--model.lr 0.003)"),
        ("overfitting", REGULARISE),
        ("overfitting begins", REGULARISE),
    ],
)
def test_the_advice_goes_the_right_way(verdict: str, words: str) -> None:
    jump = {"down in spite of jumps", "down from far above"}  # what jumps is not told to go faster
    assert all(words in advice(rows) for kind, rows in KINDS[verdict].items() if kind not in jump)
    assert not any("--model.lr" in advice(ROWS[kind]) for kind in jump)


def test_all_flags_of_the_advice_exist() -> None:
    known = {"trainer.max_epochs"}
    for name in ("cnn", "mlp"):
        config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
        known |= {f"model.{key}" for key in config["model"]["init_args"]} | {f"data.{key}" for key in config["data"]}
    flags = {flag for rows in ROWS.values() for flag in re.findall(r"--([\w.]+\w)", advice(rows))}
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
    rows = ROWS["validation turns"]
    seeds = [
        [{**row, "val/acc": 0.6 if row["epoch"] == best else row["val/acc"]} for row in rows] for best in best_epochs
    ]
    assert [judge(each).best_epoch for each in seeds] == list(best_epochs)
    assert words in advice(*seeds)
    assert words or "--trainer.max_epochs" not in advice(*seeds)


def test_a_setting_has_the_verdict_of_most_of_its_seeds() -> None:
    seeds = [judge(ROWS[name]) for name in ("settled low", "settled high", "settled low, restless")]
    assert summarize(seeds[:1])[0] == "balanced"
    words, what = summarize(seeds)
    assert words == "balanced (2 of 3), underfitting (1 of 3)"
    assert "together with `--data.augment flip-shift`" in what
