"""A verdict on each conclusion of the original report, from the records."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

from cifar_lightning.report.claims import Statement, statements
from cifar_lightning.report.evidence import POINT, Evidence, Part, accuracy, exceeds, less, moved, points
from cifar_lightning.report.noise import value_of
from cifar_lightning.report.signs import signs
from cifar_lightning.results.study_results import Run, Study

LEAD = 0.0439 - 0.0264  # what batch norm does more for the CNN, in the report's words
DROP = 0.0185  # the smaller of the two drops that the report calls insignificant
SMALL, MIDDLE, LARGE = 100, 1000, 10_000  # batch sizes: the recipe's, where it is to begin, and beyond
LOW, HIGH = 0.2, 0.8  # dropout rates: the report's best, fixed beforehand, and where it can hardly learn
HARDLY = 0.10  # of accuracy; what is lost at least where a network can hardly learn
CHANCE = 0.12  # accuracy; guessing has 0.1
CHANGE = ("drops by {}", "gains {}")  # see `moved`
FAR = 3.0  # times as long

RULES = f"""\
A statement has parts. It is supported if all parts hold and no run is missing, not supported if one of them is \
refuted, and open otherwise. A figure in brackets is a 95 % interval over seeds. An effect is none if all of its \
interval is below the least that would count, and is there if, otherwise, all of it is above 0. The least is \
{100 * POINT:g} point of accuracy; of what batch norm does more for the CNN, {100 * LEAD:.2f} points as in the \
report. Dropout changes nothing if \
the interval has 0 in it and is narrower than {200 * DROP:.1f} points, so that a drop of {100 * DROP:.2f} would have \
shown. A low dropout rate is {LOW:g}; a network can hardly learn where all of the interval of what it loses to that is \
above {100 * HARDLY:g} points, and does not learn at all below an accuracy of {CHANCE:g}. Far longer is {FAR:g} times \
as long or more. A learning rate shows a sign if most of its runs do. Large batches are those of \
{LARGE:,}, small ones those of {SMALL:,}; if they are not behind at equal updates, memory and processing speed are \
not the cause.\
"""


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
    text = f"Without batch norm the CNN {moved(cnn, *CHANGE)}, the MLP {moved(mlp, *CHANGE)}."
    return [
        (exceeds(cnn, POINT), text),
        (exceeds(lead, LEAD), f"The CNN's drop is {moved(lead, 'larger by {}', 'smaller by {}')}."),
    ]


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
        text = f"Without dropout the {model.upper()} {moved(drop, *CHANGE)}: {words[change]}."
        parts.append((None if change is None else not change, text))
    return parts


def _large_batch(e: Evidence) -> list[Part]:
    epochs = e.sweep("batch_size", "data.batch_size", (SMALL, LARGE))
    updates = e.sweep("batch_size_updates", "data.batch_size", (SMALL, LARGE))
    scaled = e.sweep("batch_size_scaled", "data.batch_size")
    fall = e.difference(epochs[SMALL], epochs[LARGE])
    ahead, behind = e.difference(updates[LARGE], updates[SMALL]), e.difference(updates[SMALL], updates[LARGE])
    if back := e.difference(scaled.get(LARGE, []), epochs[LARGE]):
        change = moved(back, "brings back {}", "costs {} more")
        e.remarks.append(f"A learning rate scaled with the square root of the batch size {change}.")
    if not fall:
        return [(None, "")]
    seconds = [_epoch_seconds(epochs[size]) for size in (LARGE, SMALL)]
    e.remarks.append("An epoch takes {:.1f} s with large batches and {:.1f} s with small ones.".format(*seconds))
    if middle := e.difference(epochs[SMALL], epochs.get(MIDDLE, [])):
        e.remarks.append(f"Batches of {MIDDLE:,} {moved(middle, 'lose {}', 'gain {}')} at equal epochs.")
    falls, blamed = exceeds(fall, POINT), exceeds(behind, POINT)
    beside = moved(fall, "lose {} to", "gain {} over")
    words = {True: "the fall is there", False: "there is no fall", None: "that may be noise"}[falls]
    parts: list[Part] = [(falls, f"At equal epochs batches of {LARGE:,} {beside} those of {SMALL}: {words}.")]
    if not falls or not ahead or not behind:
        return [*parts, (None, "")]
    cause = {
        True: f"they still lose {points(behind)}: fewer updates are not all of it, and what else it is these runs do "
        "not tell",
        False: f"they are ahead by {points(ahead)}: the cause is fewer updates, not memory or processing speed",
        None: f"they {moved(behind, 'lose {}', 'gain {}')}, which may be noise: the cause is open",
    }[blamed]
    # What they lose beyond that may be due to much else: it says nothing for memory and processing speed.
    return [*parts, (False if blamed is False else None, f"At an equal number of updates {cause}.")]


def _low_dropout(e: Evidence) -> list[Part]:
    rates = e.sweep("dropout", "model.dropout", (0.0, LOW, HIGH, 1.0))
    gain, loss = e.difference(rates[LOW], rates[0.0]), e.difference(rates[LOW], rates[HIGH])
    parts: list[Part] = [(None, "")]
    if gain and loss:
        parts = [
            (exceeds(gain, POINT), f"A rate of {LOW:g} {moved(gain, 'gains {} over', 'loses {} to')} none."),
            (exceeds(loss, HARDLY, HARDLY), f"A rate of {HIGH:g} {moved(loss, 'loses {} to', 'gains {} over')} it."),
        ]
    if not rates[1.0]:
        return [*parts, (None, "")]
    mean = fmean(map(accuracy, rates[1.0]))
    return [*parts, (mean < CHANCE, f"At 1.0 the accuracy is {mean:.4f}.")]


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
            more = moved(norm, "{} more", "{} less")
            e.remarks.append(f"Batch norm makes that {more} ({model.upper()}), but changes what is learnt, too.")
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
