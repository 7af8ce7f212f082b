"""The original report's statements, and a verdict on each by the rules of report.md.j2."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pandas as pd

from cifar_lightning.report.claims import by_value, comparable, original
from cifar_lightning.report.statistics import ACC, MAIN, POINT, SEVERAL, Estimate, estimate

LEAST = 0.01  # of accuracy; an effect that is certainly smaller is none
LEAD = 0.0155  # what batch norm does more for the CNN: 4.19 - 2.64 points in the original's numbers, 4.39 in its words
DROP = 0.0185  # the smaller of the two drops that the original calls insignificant
SMALL, MIDDLE, LARGE = 100, 1000, 10_000  # batch sizes: the recipe's, where the fall is to begin, and beyond
LOW, HIGH = 0.2, 0.8  # dropout rates: the original's best, fixed beforehand, and where it can hardly learn
HARDLY = 0.10  # of accuracy; what is lost at least where a network can hardly learn
CHANCE = 0.12  # accuracy; guessing has 0.1
FAR = 3.0  # times as long
CHANGE = ("drops by {}", "gains {}")  # see `moved`
DIVERGED = r"\b(?:nan|inf|not finite)\b"  # in the reason of a run whose loss or weights were no longer finite

# What a statement comes down to: whether the records support it, None if they don't tell, and the sentence.
Parts = Iterator[tuple[bool | None, str]]


class Verdict(NamedTuple):
    """The records' answer to a statement of the original: `why`, with its numbers, and the runs they come from."""

    id: str
    text: str
    verdict: str  # supported, not supported or open
    why: str
    runs: pd.DataFrame


@dataclass
class Evidence:
    """Runs that may be compared with the original's, as `finished` has them; collects what is used, or missing."""

    table: pd.DataFrame
    failed: pd.DataFrame
    used: list[pd.DataFrame] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def find(self, experiment: str, *, needed: bool = True) -> pd.DataFrame:
        rows = self.table[self.table.experiment == experiment]
        self.used.append(rows)
        self.missing += [experiment] if needed and rows.empty else []
        return rows

    def sweep(self, experiment: str, setting: str, needed: Sequence[float] = ()) -> dict[float, pd.DataFrame]:
        """Return the runs of each value of a setting in ascending order; values that are needed are all there."""
        rows = self.find(experiment, needed=False)
        found = dict.fromkeys(needed, rows[:0]) | by_value(rows, setting)
        self.missing += [f"{experiment} at {value:g}" for value, those in found.items() if those.empty]
        return dict(sorted(found.items()))

    def gain(self, model: str, part: str, metric: str = ACC, *, needed: bool = True) -> Estimate | None:
        return self.difference(self.find(model), self.find(f"{model}_no_{part}", needed=needed), metric)

    def difference(self, a: pd.DataFrame | None, b: pd.DataFrame | None, metric: str = ACC) -> Estimate | None:
        if a is None or b is None or a.empty or b.empty:
            return None
        found = estimate(a, metric, self.table, minus=b)
        if found is None:
            self.missing.append(f"a seed that {a.experiment.iloc[0]} and {b.experiment.iloc[0]} have in common")
        elif found.half is None:
            self.missing.append("a main run or ablation with several seeds, which would tell the noise")
        return found


def judge(table: pd.DataFrame, failed: pd.DataFrame) -> list[Verdict]:
    """Return a verdict on each statement of the original, from the runs that are finished and those that failed."""
    verdicts, table = [], table[comparable(table)]
    rules = {rule.__name__.strip("_").replace("_", "-"): rule for rule in RULES}
    for id, text in original()["statements"].items():
        e = Evidence(table, failed)
        parts = list(rules[id](e))
        answers, sentences = [answer for answer, _ in parts], [sentence for _, sentence in parts]
        if e.missing:
            sentences.append(f"Missing: {', '.join(dict.fromkeys(e.missing))}.")
        verdict = "not supported" if False in answers else "open" if None in answers or e.missing else "supported"
        runs = pd.concat([*e.used, table[:0]]).drop_duplicates(POINT)
        verdicts.append(Verdict(id, text, verdict, " ".join(sentences), runs))
    return verdicts


def exceeds(found: Estimate | None, least: float, floor: float = 0.0) -> bool | None:
    """Return whether there is a difference of any weight, as far as its interval tells; None if it doesn't.

    If all of it is below `least`, the effect is none, even if it is certain; else it is to be above `floor`.
    """
    if found is None or found.half is None:
        return None
    return False if found.mean + found.half < least else True if found.mean - found.half > floor else None


def points(found: Estimate, digits: int = 2) -> str:
    """Return `2.10 points (0.90 to 3.30, n = 3)`, of accuracies."""
    ends = [f"{100 * end:.{digits}f}" for end in found.ends]
    words = filter(None, [" to ".join(ends), f"n = {found.n}", "pooled SD" if found.pooled else ""])
    return f"{100 * found.mean:.{digits}f} points ({', '.join(words)})".replace("-", "\u2212")


def moved(found: Estimate, up: str, down: str, digits: int = 2) -> str:
    """Return `gains 2.10 points (0.90 to 3.30, n = 3)`; what is lost comes as a positive number, in other words."""
    return (up if found.mean >= 0 else down).format(points(replace(found, mean=abs(found.mean)), digits))


def _bn_helps_cnn_more(e: Evidence) -> Parts:
    cnn, mlp = e.gain("cnn", "batch_norm"), e.gain("mlp", "batch_norm")
    if cnn and mlp:
        lead = cnn.minus(mlp)
        yield exceeds(cnn, LEAST), f"Without batch norm the CNN {moved(cnn, *CHANGE)}, the MLP {moved(mlp, *CHANGE)}."
        yield exceeds(lead, LEAD), f"The CNN's drop is {moved(lead, 'larger by {}', 'smaller by {}')}."


def _dropout_helps_little(e: Evidence) -> Parts:
    for model in ("cnn", "mlp"):
        drop = e.gain(model, "dropout")
        if drop and drop.half is not None:
            # That there is none is told only by an interval in which a drop like the original's would have shown.
            none = False if drop.excludes_zero else True if drop.half < DROP else None
            words = {False: "larger than the noise", True: "within the noise", None: "too noisy to tell"}[none]
            yield none, f"Without dropout the {model.upper()} {moved(drop, *CHANGE)}: {words}."


def _large_batch_hurts(e: Evidence) -> Parts:
    epochs = e.sweep("batch_size", "data.batch_size", (SMALL, LARGE))
    updates = e.sweep("batch_size_updates", "data.batch_size", (SMALL, LARGE))
    scaled = e.sweep("batch_size_scaled", "data.batch_size")
    fall, behind = e.difference(epochs[SMALL], epochs[LARGE]), e.difference(updates[SMALL], updates[LARGE])
    if fall:
        words = {True: "the fall is there", False: "there is no fall", None: "that may be noise"}[exceeds(fall, LEAST)]
        beside = moved(fall, "lose {} to", "gain {} over")
        yield exceeds(fall, LEAST), f"At equal epochs batches of {LARGE:,} {beside} those of {SMALL}: {words}."
    if behind and exceeds(fall, LEAST):
        cause = {
            True: "fewer updates are not all of it, and what else it is these runs do not tell",
            False: "the cause is fewer updates, not memory or processing speed",
            None: "that may be noise: the cause is open",
        }[exceeds(behind, LEAST)]
        text = f"At an equal number of updates they {moved(behind, 'still lose {}', 'are ahead by {}')}: {cause}."
        # What they lose beyond that may be due to much else: it says nothing for memory and processing speed.
        yield False if exceeds(behind, LEAST) is False else None, text
    if back := e.difference(scaled.get(LARGE), epochs[LARGE]):
        gained = moved(back, "brings back {}", "costs {} more")
        yield True, f"A learning rate scaled with the square root of the batch size {gained}."
    if fall and (times := epoch_seconds_beside(epochs[LARGE], epochs[SMALL])):
        yield True, "An epoch takes {:.1f} s with large batches and {:.1f} s with small ones.".format(*times)
    if middle := e.difference(epochs[SMALL], epochs.get(MIDDLE)):
        yield True, f"Batches of {MIDDLE:,} {moved(middle, 'lose {}', 'gain {}')} at equal epochs."


def _low_dropout_best(e: Evidence) -> Parts:
    rates = e.sweep("dropout", "model.dropout", (0.0, LOW, HIGH, 1.0))
    gain, loss = e.difference(rates[LOW], rates[0.0]), e.difference(rates[LOW], rates[HIGH])
    if gain and loss:
        yield exceeds(gain, LEAST), f"A rate of {LOW:g} {moved(gain, 'gains {} over', 'loses {} to')} none."
        lost = moved(loss, "loses {} to", "gains {} over")
        yield exceeds(loss, HARDLY, HARDLY), f"A rate of {HIGH:g} {lost} one of {LOW:g}."
    if len(rates[1.0]):
        mean = float(rates[1.0][ACC].mean())
        yield mean < CHANCE, f"At 1.0 the accuracy is {mean:.0%}."


def _cnn_slower(e: Evidence) -> Parts:
    cnn, mlp = e.find("cnn"), e.find("mlp")
    if times := epoch_seconds_beside(cnn, mlp):
        (slow, fast), runs = times, original()["runs"]
        theirs = runs["cnn"]["seconds"] / runs["mlp"]["seconds"]
        ratio = f"{slow / fast:.1f} times as long (medians over all epochs; the original: {theirs:.1f} times)"
        yield slow / fast >= FAR, f"An epoch takes {slow:.1f} s with the CNN and {fast:.1f} s with the MLP: {ratio}."
    elif len(cnn) and len(mlp):
        yield None, "No hardware has timed both; the command benchmark does."


def epoch_seconds(rows: pd.DataFrame) -> float:
    """Return the median time of an epoch, over all epochs of all runs: a pause of the machine does not count."""
    return float(rows.epoch_times.explode().astype(float).median())


def epoch_seconds_beside(*settings: pd.DataFrame) -> list[float] | None:
    """Return the median time of an epoch of each setting, on the hardware that most runs of all share, if there is one.

    Times of different hardware say nothing of the settings.
    """
    shared = set.intersection(*(set(rows.hardware) for rows in settings)) - {SEVERAL}
    if not shared:
        return None
    most = max(sorted(shared), key=lambda name: min((rows.hardware == name).sum() for rows in settings))
    times = [epoch_seconds(rows[rows.hardware == most]) for rows in settings]
    return times if all(time > 0 for time in times) else None


def _overfitting_shows_in_the_gap(e: Evidence) -> Parts:
    runs = pd.concat([e.find(name, needed=False) for name in MAIN])
    if runs.empty:
        e.missing.append("a main run or ablation")
        return
    over = int((runs.verdict == "overfitting").sum())
    text = f"{over} of {len(runs)} main runs and ablations overfit by the rule"
    # Where nothing prevents overfitting, without dropout, the gap is to be wider.
    named = dict(list(runs.groupby("experiment")))
    pairs = {m: e.difference(named.get(f"{m}_no_dropout"), named.get(m), "gap/acc") for m in ("cnn", "mlp")}
    wider = {model: found for model, found in pairs.items() if found}
    answers = [exceeds(each, LEAST) for each in wider.values()] if over else []
    gaps = " and ".join(f"{points(each)} ({model.upper()})" for model, each in wider.items())
    text += f"; without dropout, which is to prevent it, the gap is wider by {gaps}." if answers else "."
    yield True if True in answers else None if None in answers or not answers else False, text
    runs = pd.concat([runs, e.find("dropout", needed=False)])
    # Both losses of runs that learn little are to be above those of the best run.
    dull, losses = runs.verdict.isin(["underfitting", "not learning"]), ["train/loss", "val/loss"]
    high = bool((runs.loc[dull, losses] > runs[losses].iloc[int(runs[ACC].argmax())]).all(axis=None))
    text = f"{sum(dull)} of {len(runs)} runs underfit or don't learn; both losses are higher than the best run's in"
    yield (high, f"{text} {'all' if high else 'not all'} of them.") if dull.any() else (None, "No run underfits.")
    yield from _rates(e)


def _rates(e: Evidence) -> Parts:
    """Whether most runs of the highest learning rate look like one too high, and of the lowest like one too low."""
    rates, failed = e.sweep("learning_rate", "model.lr"), e.failed[e.failed.experiment == "learning_rate"]
    diverged = set(by_value(failed[failed.reason.str.contains(DIVERGED)], "model.lr"))
    if not rates or len(rates.keys() | diverged) < 2:
        e.missing.append("learning_rate at several rates")
        return
    means = {rate: rows[ACC].mean() for rate, rows in rates.items()}
    best, highest = max(means, key=means.__getitem__), max(rates.keys() | diverged)
    for rate, sign in ((highest, {"learning rate too high", "not learning"}), (min(rates), {"still learning"})):
        if rate in diverged:
            yield True, f"At a learning rate of {rate:g} the loss did not stay finite."
            continue
        seen = Counter(rates[rate].verdict)
        words = ", ".join(f"{verdict} ({n} of {seen.total()})" for verdict, n in sorted(seen.items()))
        text = f"At a learning rate of {rate:g} the verdict is {words}; the accuracy is {means[rate]:.0%}"
        answer = True if 2 * sum(seen[verdict] for verdict in sign) > seen.total() else False if rate == best else None
        yield answer, f"{text} ({means[best]:.0%} at {best:g})."


def _train_eval_mode(e: Evidence) -> Parts:
    for model in ("cnn", "mlp"):
        text = f"The {model.upper()} recognises its training images better in evaluation mode than as trained"
        if masking := e.gain(model, "dropout", "eval_lead"):
            yield exceeds(masking, LEAST), f"{text}; of that, {points(masking)} are dropout's."
        if norm := e.gain(model, "batch_norm", "eval_lead", needed=False):
            more = moved(norm, "{} larger", "{} smaller")
            yield True, f"With batch norm, which changes what is learnt, too, it is {more} ({model.upper()})."


RULES = [_bn_helps_cnn_more, _dropout_helps_little, _large_batch_hurts, _low_dropout_best, _cnn_slower]
RULES += [_overfitting_shows_in_the_gap, _train_eval_mode]
