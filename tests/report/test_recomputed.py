"""The report's numbers computed once more: from the records alone, and by its rules as it words them.

Nothing of the package is used, so that what is wrong there is not wrong here, too. That the committed report is the one
of its records is for test_render.py. Each test takes the folder of any study whose runs are done.
"""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import fmean, stdev, variance
from typing import Any, NamedTuple

import pytest
import yaml
from scipy.stats import binom
from scipy.stats import t as student

ROOT = Path(__file__).parents[2]
ORIGINAL = yaml.safe_load((ROOT / "cifar_lightning/report/claims.yaml").read_text())
PARTS = {"": "", "_no_batch_norm": " without batch norm", "_no_dropout": " without dropout"}
TITLES = {model + part: model.upper() + words for model in ("cnn", "mlp") for part, words in PARTS.items()}
WORDS = {"best_val": "best validation", "val": "validation", "acc": "accuracy", "/": " "}
IMAGES = {"train/acc": 40_000, "val/acc": 10_000, "best_val/acc": 10_000, "test/acc": 10_000}
Numbers = Sequence[float]


class Claim(NamedTuple):
    """A number of the original."""

    experiment: str
    varied: dict[str, Any]
    metric: str
    value: float
    unit: int  # 100 for percent

    def scaled(self, scaling: str) -> tuple[str, dict[str, Any], str]:
        return f"{self.experiment}_dropout_scaling", {"model.dropout_scaling": scaling, **self.varied}, self.metric

    @property
    def judged(self) -> bool:
        return self.metric != "seconds" and self.experiment not in ORIGINAL["garbled"]


CLAIMS = {}
for name, numbers in ORIGINAL["runs"].items():
    for metric, value in numbers.items():
        words = re.sub("|".join(WORDS), lambda word: WORDS[word[0]], metric)
        words += " (digits partly garbled)" * (name in ORIGINAL["garbled"])
        CLAIMS[f"{TITLES[name]}: {words}"] = Claim(name, {}, metric, value, 100 if metric in IMAGES else 1)
for title, sweep in zip(("Batch size, equal epochs", "Dropout rate"), ORIGINAL["sweeps"], strict=True):
    for x, value in sweep["values"].items():
        CLAIMS[f"{title}: {x:g}"] = Claim(sweep["experiment"], {sweep["varies"]: x}, sweep["metric"], value, 100)


def metrics(record: dict[str, Any], epochs: int) -> dict[str, float]:
    """What a run has after so many epochs; a test is of all of them."""
    rows, test = record["rows"][:epochs], record["test"] if epochs == len(record["rows"]) else None
    sums = {"best_val/acc": max(row["val/acc"] for row in rows), "seconds": sum(row["epoch_seconds"] for row in rows)}
    last: dict[str, float] = rows[-1]
    return last | sums | ({"test/loss": test["loss"], "test/acc": test["acc"]} if test else {})


class Study:
    """The runs of a folder, and its report."""

    def __init__(self, folder: Path) -> None:
        self.report = (folder / "report.md").read_text()
        self.runs = defaultdict[str, dict[int, dict[str, float]]](dict)  # metrics, by what is trained and by seed
        found = [json.loads(path.read_text()) for path in folder.glob("*/*/result.json")]
        records = {record["address"]: record for record in found}
        for point in json.loads((folder / "plan.json").read_text())["points"]:
            run = metrics(records[point["address"]], point["epochs"])
            self.runs[what(point["experiment"], point["varied"])][point["seed"]] = run

    def values(self, experiment: str, varied: dict[str, Any], metric: str) -> Numbers:
        return [run[metric] for run in self.runs[what(experiment, varied)].values()]

    def pooled(self, metric: str) -> tuple[float, int]:
        """The SD over the seeds of the main runs and ablations that have several, and its degrees of freedom."""
        several = [values for name in TITLES if len(values := self.values(name, {}, metric)) > 1]
        df = sum(len(values) - 1 for values in several)
        return math.sqrt(sum(variance(values) * (len(values) - 1) for values in several) / df), df

    def expected(self, experiment: str, varied: dict[str, Any], metric: str) -> Any:
        """The distribution of one more run of ours."""
        values = self.values(experiment, varied, metric)
        n, mean = len(values), fmean(values)
        sd, df = (stdev(values), n - 1) if n > 1 else self.pooled(metric)
        images = math.sqrt(2 * mean * (1 - mean) / IMAGES[metric]) if metric in IMAGES else 0
        return distribution(mean, sd * math.sqrt(1 + 1 / n), df, images, both="val/acc" in metric)

    def table(self, heading: str) -> dict[str, list[str]]:
        """The rows of the tables below a heading, by their first cell, without links."""
        section = self.report.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
        section = re.sub(r" \[s\d+\]\([^)]*\)|\[|\]\(#[^)]*\)", "", section)
        rows = (line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| "))
        return {name: cells for name, *cells in rows}


def what(experiment: str, varied: dict[str, Any]) -> str:
    return f"{experiment} {sorted(varied.items())}"


def distribution(mean: float, seeds: float, df: float, images: float, *, both: bool = False) -> Any:
    """That of what has these SDs over seeds and over images: the one of the wider interval, or both together."""
    half, least = student.ppf(0.975, df) * seeds, 1.96 * images
    if both:  # the degrees of freedom are those of Welch and Satterthwaite
        half, df = math.hypot(half, least), df * (1 + (images / seeds) ** 2) ** 2
    elif least > half:
        half, df = least, math.inf
    return student(df, mean, half / student.ppf(0.975, df))


def ends(found: Any, unit: int = 100) -> Numbers:
    return [unit * found.ppf(0.025), unit * found.ppf(0.975)]


def holds(found: Any, value: float) -> bool:
    return bool(found.ppf(0.025) <= value <= found.ppf(0.975))


def mean_and_sd(values: Numbers, unit: int = 100) -> Numbers:
    return [unit * fmean(values), *([unit * stdev(values)] if len(values) > 1 else [])]


def agree(cells: Sequence[str], *expected: str | Numbers) -> None:
    """Assert that a row has these texts, and these numbers to the digits that are printed."""
    for cell, those in zip(cells, expected, strict=True):
        if isinstance(those, str):
            assert cell == those, (cells, expected)
            continue
        numbers = re.findall(r"[+\u2212]?\d[\d,]*\.?\d*", cell)
        assert len(numbers) == len(those), (cells, expected)
        for number, value in zip(numbers, those, strict=True):
            shown, last = float(number.replace(",", "").replace("\u2212", "-")), 10.0 ** -len(number.partition(".")[2])
            assert abs(shown - value) <= last / 2 + 1e-9, (cells, expected)


@pytest.fixture
def folder() -> Path:
    return ROOT / "logs/reference"


def test_the_numbers_of_the_original(folder: Path) -> None:
    study, counts, chances = Study(folder), Counter[str](), dict[str, float]()
    found = {title: study.expected(*claim[:3]) for title, claim in CLAIMS.items() if claim.judged}
    tails = {title: min(each.cdf(CLAIMS[title].value), each.sf(CLAIMS[title].value)) for title, each in found.items()}
    for tried, title in enumerate(sorted(tails, key=tails.__getitem__)):  # Holm
        chances[title] = max(0, *chances.values(), min(1, 2 * tails[title] * (len(tails) - tried)))
    for title, claim in CLAIMS.items():
        if claim.metric == "seconds":  # are of the hardware, and stand elsewhere
            continue
        values, theirs = study.values(*claim[:3]), claim.unit * claim.value
        ours, yes = mean_and_sd(values, claim.unit), title in found and holds(found[title], claim.value)
        verdict = "open" if title not in found else "reproduced" if yes else "not reproduced"
        within = ends(found[title], claim.unit) if title in found else []
        p = "&lt; 0.001" if chances.get(title, 1) < 0.0005 else [chances[title]] if title in found else []
        row = study.table("The original's numbers")[title]
        agree(row, [theirs], ours, f"**{verdict}**", [len(values)], [ours[0] - theirs], p, within)
        counts[verdict] += 1
    first = study.report.partition("\n- ")[2].partition(" Its ")[0]
    certain = sum(chance < 0.05 for chance in chances.values())
    judged = [counts["reproduced"], counts.total(), counts["not reproduced"], counts["open"]]
    agree([first], [*judged, 0.05 * len(found), certain])


def test_what_each_part_is_worth(folder: Path) -> None:
    study, parts = Study(folder), {"CNN instead of MLP": ("cnn", "mlp")}
    for part, model in product(("batch norm", "dropout"), ("cnn", "mlp")):
        parts[f"{part}: {model.upper()}"] = model, f"{model}_no_{part.replace(' ', '_')}"
    for (name, pair), metric in product(parts.items(), ("best_val/acc", "test/acc")):
        whole, without = (study.runs[what(each, {})] for each in pair)
        gains = [whole[seed][metric] - without[seed][metric] for seed in whole.keys() & without.keys()]
        both = [study.values(each, {}, metric) for each in pair]  # of all seeds, as the columns 'with' and 'without'
        sd, df = study.pooled(metric)
        sd, df = (stdev(gains), len(gains) - 1) if len(gains) > 1 else (math.sqrt(2) * sd, df)
        binomial = math.sqrt(sum(fmean(values) * (1 - fmean(values)) for values in both) / IMAGES[metric])
        found = distribution(fmean(gains), sd / math.sqrt(len(gains)), df, binomial)
        noise, seen = "no" if holds(found, 0) else "**yes**", [100 * (found.ppf(0.8) - found.ppf(0.025))]
        theirs = [100 * ORIGINAL["runs"][each][metric] for each in pair if metric in ORIGINAL["runs"][each]]
        original, (gain, *its_sd) = [theirs[0] - theirs[1]] if len(theirs) > 1 else [], mean_and_sd(gains)
        row = study.table("What each part is worth")[f"{name}, {'test' if metric == 'test/acc' else 'validation'}"]
        agree(row, [gain], ends(found), noise, seen, its_sd, [len(gains)], original, *map(mean_and_sd, both))


def test_which_scaling_explains_the_original_s_cnn(folder: Path) -> None:
    study, scalings = Study(folder), ("stock", "never", "always")
    rows, numbers = study.table("Why the original's CNN differs"), Counter[str]()
    held, likelihood = Counter[tuple[str, str]](), defaultdict[tuple[str, str], float](float)
    for title, claim in CLAIMS.items():
        scaled = any(name.startswith(f"{claim.experiment}_dropout_scaling ") for name in study.runs)
        if not (scaled and claim.judged) or claim.varied.get("model.dropout") in (0.0, 1.0):
            continue
        predicted, model = list[Numbers | str](), "MLP" if "MLP" in title else "CNN"
        for scaling in scalings:
            where = claim[:3] if scaling == "stock" else claim.scaled(scaling)
            found, df = study.expected(*where), max(1, len(study.values(*where)) - 1)  # of one seed 1
            scale = (found.ppf(0.975) - found.median()) / student.ppf(0.975, df)
            likelihood[model, scaling] += student.logpdf(claim.value, df, found.median(), scale)
            held[model, scaling] += holds(found, claim.value)
            predicted += [ends(found, claim.unit), "**yes**" if holds(found, claim.value) else "no"]
        agree(rows[title], [claim.unit * claim.value], *predicted)
        numbers[model] += 1
    assert bool(numbers) == bool(rows)
    for scaling in scalings if rows else ():
        cnn, mlp, stock, control = (held[model, each] for each, model in product((scaling, "stock"), ("CNN", "MLP")))
        verdict = "explains it" if cnn >= binom.ppf(0.025, numbers["CNN"], 0.95) > stock else "explains it in part"
        verdict = f"**{verdict if cnn > stock and mlp < control else 'does not explain it'}**"
        ratios = ([likelihood[model, scaling] - likelihood[model, "stock"]] for model in ("CNN", "MLP"))
        (first, second), last = ratios, "\u2013" if scaling == "stock" else verdict
        agree(rows[scaling], [cnn, numbers["CNN"]], first, [mlp, numbers["MLP"]], second, last)
