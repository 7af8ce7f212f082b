"""A verdict on a run's curves: over- or underfitting, and what to try next."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

Rows = Sequence[Mapping[str, float]]

GUESSING = math.log(10)  # the loss of giving all ten classes the same probability, in nats
DULL = 0.15  # accuracy; guessing has 0.1
SHORTEST = 4  # epochs: two fifths of two each; fewer have a direction, but no shape
# A share of what had been learnt. With Adam and learning rates up to 0.01, no epoch of the MLP with dropout took back
# as much, nor did one of the CNN; at 0.03 one in ten did, at 0.1 more than a third.
JUMP, OFTEN, TWICE = 0.03, 0.25, 2
# Of what the epochs that fall gain. The MLP at 0.1 takes back all of it, the CNN in 80 updates with batches of 100 and
# more, which sinks in spite of its jumps, not half.
TAKEN_BACK = 0.5
RISE = 0.03  # of the lowest validation loss: a CNN that has converged goes up as far, but in training, too
# Shares of the whole fall, of which the last fifth of the epochs brings 0.2 on a straight line, 0.03 in 50 of the CNN.
STILL, SLIGHT = 0.05, 0.01
WIDE = 0.10  # of a gap in accuracy, which 5,000 and 10,000 images tell to 0.01 or so
KNOWN = 0.8  # accuracy on training images

RULES = [
    ("not learning", f"No epoch reaches a validation accuracy of {DULL:g}; guessing has 0.1."),
    ("too short", f"There are fewer than {SHORTEST} epochs: the curves have no shape yet."),
    (
        "learning rate too high",
        "The loss on training images jumps in a quarter of the epochs or more, and at least twice, and all its rises "
        f"together take back more than {TAKEN_BACK:.0%} of its falls. It jumps where it takes back more than "
        f"{JUMP:.0%} of what had been learnt; that is how far the lowest loss so far is below guessing's, 2.30. "
        "(A curve that has converged does not jump: its ups and downs are small beside that.)",
    ),
    (
        "overfitting",
        f"The validation loss ends more than {RISE:.0%} above its lowest, and the loss on training images has fallen "
        "since then.",
    ),
    (
        "still learning",
        "The validation loss is still falling: the mean of the last fifth of the epochs (at least two) is below that "
        f"of the fifth before by more than {STILL:.0%} of the whole fall, and by more than {SLIGHT:.0%} of itself. "
        "Where it begins above guessing's loss, the whole fall is that from there.",
    ),
    (
        "overfitting begins",
        f"The validation loss is flat, and the gap in accuracy is over {WIDE * 100:.0f} points at the end: what is "
        "still learnt is learnt by heart.",
    ),
    (
        "underfitting",
        "The validation loss is flat, the gap is no wider, and fewer than "
        f"{KNOWN:.0%} of the training images are recognised: both losses stay high.",
    ),
    ("balanced", "None of these: both accuracies are high, not far apart, and have come to rest."),
]


@dataclass(frozen=True)
class Fitting:
    """What a run's curves show.

    Attributes:
        verdict: One of `RULES`.
        why: What in the curves decides it.
        advice: What to try next.
        best_epoch: Of the highest validation accuracy, the first of equals.
        gap_at_best: Accuracy on training images less that on validation images there, both in evaluation mode.
        gap_at_end: The same in the last epoch.
        val_loss_rise: Of the validation loss, from its lowest to the last epoch, in nats.
    """

    verdict: str
    why: str
    advice: str
    best_epoch: int
    gap_at_best: float
    gap_at_end: float
    val_loss_rise: float


def judge(rows: Rows) -> Fitting:
    """The first of `RULES` that holds.

    Args:
        rows: The curves, a row an epoch and at least one, with `val/*` and with `train_clean/*`; where the latter is
            missing, `train/*` stands in, which dropout makes worse than it is.
    """
    best, val = max(rows, key=lambda row: row["val/acc"]), [row["val/loss"] for row in rows]
    verdict, why, advice = _verdict(rows)
    return Fitting(verdict, why, advice, int(best["epoch"]), _gap(best), _gap(rows[-1]), val[-1] - min(val))


def _verdict(rows: Rows) -> tuple[str, str, str]:
    """Verdict, reason and advice."""
    best, jumps = max(row["val/acc"] for row in rows), _jumps(rows)
    if best < DULL:
        why = f"The best validation accuracy is {best:.3f}; guessing has 0.1."
        return "not learning", why, f"another learning rate ({_rate(rows, 1 / 3)}), less dropout (--model.dropout)"
    if len(rows) < SHORTEST:
        return "too short", f"Epochs: {len(rows)}.", "more epochs (--trainer.max_epochs)"
    if jumps >= max(TWICE, OFTEN * (len(rows) - 1)) and any(map(_restless, _losses(rows))):
        why = f"The loss on training images jumps in {jumps} of {len(rows) - 1} epochs."
        return "learning rate too high", why, f"a third of the learning rate ({_rate(rows, 1 / 3)})"
    return _overfitting(rows) or _still_learning(rows, jumps) or _flat(rows, jumps)


def _overfitting(rows: Rows) -> tuple[str, str, str] | None:
    lowest, last = min(rows, key=lambda row: row["val/loss"]), rows[-1]
    low, end, before, after = lowest["val/loss"], last["val/loss"], _train(lowest, "loss"), _train(last, "loss")
    if end <= (1 + RISE) * low or after >= before:
        return None
    epoch = int(lowest["epoch"])
    why = (
        f"The validation loss rose from {low:.2f} in epoch {epoch}, its lowest, to {end:.2f}, while the loss on "
        f"training images fell from {before:.2f} to {after:.2f}."
    )
    return "overfitting", why, f"{REGULARISE}, or fewer epochs (--trainer.max_epochs {epoch})"


def _still_learning(rows: Rows, jumps: int) -> tuple[str, str, str] | None:
    val, fifth = [row["val/loss"] for row in rows], max(2, len(rows) // 5)
    fall = (sum(val[-2 * fifth : -fifth]) - sum(val[-fifth:])) / fifth
    if fall <= max(STILL * (min(val[0], GUESSING) - min(val)), SLIGHT * val[-1]):
        return None
    why = f"The last fifth of the epochs lowered the validation loss by {fall:.3f} more."
    faster = "" if jumps else f", or three times the learning rate ({_rate(rows, 3)})"
    return "still learning", why, f"more epochs (--trainer.max_epochs {2 * len(rows)}){faster}"


def _flat(rows: Rows, jumps: int) -> tuple[str, str, str]:
    train, val = _train(rows[-1], "acc"), rows[-1]["val/acc"]
    why = f"The validation loss is flat; {train:.1%} of training and {val:.1%} of validation images are recognised."
    if train - val > WIDE:
        return "overfitting begins", why, REGULARISE
    if train < KNOWN:
        rate = f"a third of the learning rate ({_rate(rows, 1 / 3)})" if jumps else "more epochs"
        return "underfitting", why, f"less dropout (--model.dropout), a larger network ({LARGER}), {rate}"
    return "balanced", why, f"a larger network ({LARGER}) together with --data.augment flip-shift"


REGULARISE = "more dropout (--model.dropout), weight decay (--model.weight_decay 1e-4), --data.augment flip-shift"
LARGER = "--model.channels of a CNN, --model.width of an MLP"


def _train(row: Mapping[str, float], figure: str) -> float:
    """On training images, in evaluation mode if there is that."""
    return row.get(f"train_clean/{figure}", row[f"train/{figure}"])


def _gap(row: Mapping[str, float]) -> float:
    return _train(row, "acc") - row["val/acc"]


def _rate(rows: Rows, factor: float) -> str:
    return f"--model.lr {factor * max(row['lr'] for row in rows):.1g}"


def _losses(rows: Rows) -> list[list[float]]:
    """On training images, as trained and in evaluation mode."""
    return [[row["train/loss"] for row in rows], [_train(row, "loss") for row in rows]]


def _restless(losses: Sequence[float]) -> bool:
    """Whether the rises take back much of what the falls gain."""
    steps = [after - before for before, after in pairwise(losses)]
    return sum(step for step in steps if step > 0) > TAKEN_BACK * -sum(step for step in steps if step < 0)


def _jumps(rows: Rows) -> int:
    """In how many epochs one of them takes back some of what was learnt."""
    found = set()
    for losses in _losses(rows):
        for i in range(1, len(losses)):
            if losses[i] - losses[i - 1] > JUMP * max(0.0, GUESSING - min(losses[:i])):
                found.add(i)
    return len(found)
