"""A verdict on each conclusion of the original report, from the records."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

from cifar_lightning.report.claims import Statement, statements
from cifar_lightning.report.evidence import POINT, Evidence, Part, accuracy, exceeds, less, points
from cifar_lightning.report.noise import value_of
from cifar_lightning.report.signs import signs
from cifar_lightning.study.results import Run, Study

LEAD = 0.0439 - 0.0264  # what batch norm does more for the CNN, in the report's words
DROP = 0.0185  # the smaller of the two drops that the report calls insignificant
SMALL, MIDDLE, LARGE = 100, 1000, 10_000  # batch sizes: the recipe's, where it is to begin, and beyond
HARDLY = 0.10  # of accuracy; what is lost at least where a network can hardly learn
CHANCE = 0.12  # accuracy; guessing has 0.1
FAR = 3.0  # times as long


@dataclass(frozen=True)
class Verdict:
    """What the records say to a statement.

    Attributes:
        statement: The report's.
        verdict: `open` where they don't decide it.
        why: The figures that decide it, and what is missing.
        runs: Where they come from.
    """

    statement: Statement
    verdict: Literal["supported", "not supported", "open"]
    why: str
    runs: tuple[Run, ...]


def judge(study: Study) -> list[Verdict]:
    """One verdict on each statement of the report, in its order.

    A statement has parts. It is not supported if one of them is not, and supported if all are and nothing is missing.
    """
    return [_judge(statement, study) for statement in statements()]


def _judge(statement: Statement, study: Study) -> Verdict:
    if any(record.source != "cifar10" for record in study.records.values()):
        return Verdict(statement, "open", "The images are synthetic, NOT CIFAR-10: they say nothing about it.", ())
    evidence = Evidence(study)
    parts = PARTS[statement.id](evidence)
    answers = [answer for answer, _ in parts]
    missing = [f"Missing: {', '.join(evidence.missing)}."] if evidence.missing else []
    why = " ".join(filter(None, [*(text for _, text in parts), *evidence.remarks, *missing]))
    if False in answers:
        return Verdict(statement, "not supported", why, evidence.runs)
    return Verdict(statement, "open" if None in answers or missing else "supported", why, evidence.runs)


def _batch_norm(e: Evidence) -> list[Part]:
    cnn = e.difference(e.find("cnn"), e.find("cnn_no_batch_norm"))
    mlp = e.difference(e.find("mlp"), e.find("mlp_no_batch_norm"))
    if not cnn or not mlp:
        return [(None, "")]
    lead = less(cnn, mlp)
    text = f"Without batch norm the CNN drops by {points(cnn)}, the MLP by {points(mlp)}."
    return [(exceeds(cnn, POINT), text), (exceeds(lead, LEAD), f"The CNN drops by {points(lead)} more.")]


def _dropout(e: Evidence) -> list[Part]:
    parts: list[Part] = []
    for model in ("cnn", "mlp"):
        drop = e.difference(e.find(model), e.find(f"{model}_no_dropout"))
        if not drop or drop.low is None or drop.high is None:
            parts.append((None, ""))
            continue
        # That there is none is told only by an interval in which a drop like the report's would have shown.
        change = True if drop.larger_than_noise else False if drop.high - drop.low < 2 * DROP else None
        words = {True: "larger than the noise", False: "within the noise", None: "too noisy to tell"}
        text = f"Without dropout the {model.upper()} drops by {points(drop)}: {words[change]}."
        parts.append((None if change is None else not change, text))
    return parts


def _large_batch(e: Evidence) -> list[Part]:
    epochs = e.sweep("batch_size", "data.batch_size", (SMALL, LARGE))
    updates = e.sweep("batch_size_updates", "data.batch_size", (SMALL, LARGE))
    scaled = e.sweep("batch_size_scaled", "data.batch_size")
    fall = e.difference(epochs[SMALL], epochs[LARGE])
    ahead, behind = e.difference(updates[LARGE], updates[SMALL]), e.difference(updates[SMALL], updates[LARGE])
    if back := e.difference(scaled.get(LARGE, []), epochs[LARGE]):
        e.remarks.append(f"A learning rate scaled with the square root of the batch size brings back {points(back)}.")
    if not fall:
        return [(None, "")]
    seconds = [_epoch_seconds(epochs[size]) for size in (LARGE, SMALL)]
    e.remarks.append("An epoch takes {:.1f} s with large batches and {:.1f} s with small ones.".format(*seconds))
    if middle := e.difference(epochs[SMALL], epochs.get(MIDDLE, [])):
        e.remarks.append(f"Batches of {MIDDLE:,} lose {points(middle)} at equal epochs.")
    falls, blamed = exceeds(fall, POINT), exceeds(behind, POINT)
    words = {True: "the fall is there", False: "there is no fall", None: "that may be noise"}[falls]
    parts: list[Part] = [
        (falls, f"At equal epochs batches of {LARGE:,} lose {points(fall)} to those of {SMALL}: {words}.")
    ]
    if not falls or not ahead or not behind:
        return [*parts, (None, "")]
    cause = {
        True: f"they still lose {points(behind)}: fewer updates are not the cause, or not all of it",
        False: f"they are ahead by {points(ahead)}: the cause is fewer updates, not memory or processing speed",
        None: f"they lose {points(behind)}, which may be noise: the cause is open",
    }[blamed]
    return [*parts, (blamed, f"At an equal number of updates {cause}.")]


def _low_dropout(e: Evidence) -> list[Part]:
    rates = e.sweep("dropout", "model.dropout", (0.0, 0.2, 0.8, 1.0))
    means = {rate: fmean(map(accuracy, runs)) for rate, runs in rates.items() if runs}
    low = max((rate for rate in means if 0 < rate < 0.5), key=means.__getitem__, default=0.2)
    gain, loss = e.difference(rates[low], rates[0.0]), e.difference(rates[low], rates[0.8])
    parts: list[Part] = [(None, "")]
    if gain and loss:
        parts = [
            (exceeds(gain, POINT), f"A rate of {low:g} gains {points(gain)} over none."),
            (exceeds(loss, HARDLY, HARDLY), f"A rate of 0.8 loses {points(loss)} to it."),
        ]
    return [*parts, (means[1.0] < CHANCE, f"At 1.0 the accuracy is {means[1.0]:.4f}.") if 1.0 in means else (None, "")]


def _cnn_slower(e: Evidence) -> list[Part]:
    cnn, mlp = e.find("cnn"), e.find("mlp")
    if not cnn or not mlp:
        return [(None, "")]
    seconds = _epoch_seconds(cnn), _epoch_seconds(mlp)
    text = "An epoch takes {:.1f} s with the CNN and {:.1f} s with the MLP".format(*seconds)
    ratio = seconds[0] / seconds[1]
    return [(ratio >= FAR, f"{text}: {ratio:.1f} times as long (medians over all epochs; the report: 39.0 times).")]


def _epoch_seconds(runs: list[Run]) -> float:
    return median(row["epoch_seconds"] for run in runs for row in run.rows)


def _modes(e: Evidence) -> list[Part]:
    parts: list[Part] = []
    for model in ("cnn", "mlp"):
        runs = e.find(model)
        if norm := e.difference(runs, e.find(f"{model}_no_batch_norm", needed=False), _ahead):
            e.remarks.append(
                f"Batch norm makes that {points(norm)} more ({model.upper()}), but changes what is learnt, too."
            )
        masking = e.difference(runs, e.find(f"{model}_no_dropout"), _ahead)
        text = f"The {model.upper()} recognises its training images better in evaluation mode than as trained"
        parts.append((exceeds(masking, POINT), f"{text}; of that, {points(masking)} are dropout's." if masking else ""))
    return parts


def _ahead(run: Run) -> float | None:
    """By how much the accuracy on training images is higher in evaluation mode than as trained, at the end."""
    clean, trained = value_of(run, "train_clean/acc"), value_of(run, "train/acc")
    return None if clean is None or trained is None else clean - trained


PARTS: dict[str, Callable[[Evidence], list[Part]]] = {
    "bn-helps-cnn-more": _batch_norm,
    "dropout-helps-little": _dropout,
    "large-batch-hurts": _large_batch,
    "low-dropout-best": _low_dropout,
    "cnn-slower": _cnn_slower,
    "overfitting-shows-in-the-gap": signs,
    "train-eval-mode": _modes,
}
