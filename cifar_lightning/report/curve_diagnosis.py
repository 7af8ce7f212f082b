"""A verdict on a run's curves: over- or underfitting, a learning rate too high or low, and what to try next."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

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
EARLY = 0.8  # of the epochs: where the best accuracy comes later, stopping earlier saves little and may cost some

REGULARISE = "more dropout (`--model.dropout`), weight decay (`--model.weight_decay 1e-4`), `--data.augment flip-shift`"
LESS = "less dropout, if there is any (`--model.dropout`)"
LARGER = "a larger network (`--model.channels` of a CNN, `--model.width` of an MLP)"


class Diagnosis(NamedTuple):
    """A run's curves, diagnosed. Gaps are in accuracy, training minus validation images, both in evaluation mode."""

    verdict: str  # of the first rule of report.md.j2 that holds
    why: str  # what in the curves decides it
    best_epoch: int  # of the highest validation accuracy, the first of equals
    gap_at_best: float  # there
    gap_at_end: float  # in the last epoch
    val_loss_rise: float  # from its lowest to the last epoch, in nats
    epochs: int
    lr: float  # the highest
    jumps: int  # epochs in which the loss on training images jumps


def diagnose(curve: pd.DataFrame) -> Diagnosis:
    """Return the verdict on a run's curves: a row per epoch, at least one, as in metrics.csv.

    Where `train_clean/*` is missing, `train/*` stands in, which dropout makes worse than it is.
    """
    curve = curve.reset_index(drop=True)
    for name, worst in (("loss", math.inf), ("acc", 0.0)):  # what is not a number was not learnt
        trained = curve[f"train/{name}"].fillna(worst)
        curve[f"clean/{name}"] = curve.get(f"train_clean/{name}", trained).fillna(trained)
        curve[f"val/{name}"] = curve[f"val/{name}"].fillna(worst)
    losses = curve[["train/loss", "clean/loss"]]
    learnt, steps = (GUESSING - losses.cummin().shift()).clip(lower=0), losses.diff()
    jumps = int((steps > JUMP * learnt).any(axis=1).sum())  # of either loss
    restless = steps.clip(lower=0).sum() > TAKEN_BACK * -steps.clip(upper=0).sum()
    val, epochs = curve["val/loss"], len(curve)
    best, lowest, last = curve.iloc[int(curve["val/acc"].argmax())], curve.iloc[int(val.argmin())], curve.iloc[-1]
    fifth = max(2, epochs // 5)
    fall = float(val.iloc[-2 * fifth : -fifth].mean()) - float(val.iloc[-fifth:].mean())
    if epochs < SHORTEST:
        verdict, why = "too short", f"Epochs: {epochs}."
    elif (highest := max(best["val/acc"], curve["clean/acc"].max())) < DULL:
        verdict, why = "not learning", f"The best accuracy is {highest:.1%}; guessing has 10%."
    elif jumps >= max(TWICE, OFTEN * (epochs - 1)) and restless.any():
        verdict = "learning rate too high"
        why = f"The loss on training images jumps in {jumps} of {epochs - 1} epochs."
    elif last["val/loss"] > (1 + RISE) * lowest["val/loss"] and last["clean/loss"] < lowest["clean/loss"]:
        verdict = "overfitting"
        why = (
            f"The validation loss rose from {lowest['val/loss']:.2f} in epoch {lowest.epoch:.0f}, its lowest, to "
            f"{last['val/loss']:.2f}, while the loss on training images fell from {lowest['clean/loss']:.2f} to "
            f"{last['clean/loss']:.2f}."
        )
    elif fall > max(STILL * (min(val[0], GUESSING) - val.min()), SLIGHT * last["val/loss"]):
        verdict = "still learning"
        why = f"The last fifth of the epochs lowered the validation loss by {fall:.3f} more."
    else:
        train, known = last["clean/acc"], last["val/acc"]
        verdict = "overfitting begins" if train - known > WIDE else "underfitting" if train < KNOWN else "balanced"
        why = f"{train:.1%} of training and {known:.1%} of validation images are recognised."
        why = f"The validation loss is flat; {why}"
    at_best, at_end = (float(row["clean/acc"] - row["val/acc"]) for row in (best, last))
    rise, lr = float(last["val/loss"]) - float(val.min()), float(curve.lr.max())
    return Diagnosis(verdict, why, int(best.epoch), at_best, at_end, rise, epochs, lr, jumps)


def summarize(seeds: Sequence[Diagnosis]) -> tuple[str, str]:
    """Return a setting's verdict, with how many seeds have which, and what to try next for the commonest, in Markdown.

    It costs no accuracy: fewer epochs are named only where every seed's best came early, and then no fewer than that.
    """
    counts = Counter(each.verdict for each in seeds).most_common()
    verdict = counts[0][0]
    epochs, latest, lr = (max(getattr(each, name) for each in seeds) for name in ("epochs", "best_epoch", "lr"))
    jumps = any(each.jumps for each in seeds if each.verdict == verdict)
    slower, faster = (f"the learning rate (`--model.lr {factor * lr:.1g}`)" for factor in (1 / 3, 3))
    shorter = f", or as good in less time: `--trainer.max_epochs {latest}`" if latest <= EARLY * epochs else ""
    more = f"more epochs (`--trainer.max_epochs {2 * epochs}`)"
    advice = {
        "too short": more,
        "not learning": f"{LESS}, or a third of {slower}",
        "learning rate too high": f"a third of {slower}",
        "overfitting": REGULARISE + shorter,
        "still learning": more if jumps else f"{more}, or three times {faster}",
        "overfitting begins": REGULARISE,
        "underfitting": f"{LESS}, {LARGER}, {f'a third of {slower}' if jumps else more}",
        "balanced": f"{LARGER} together with `--data.augment flip-shift`",
    }[verdict]
    return verdict if len(counts) == 1 else ", ".join(f"{name} ({n} of {len(seeds)})" for name, n in counts), advice
