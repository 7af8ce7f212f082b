"""From a study's records to report.md, written once from one template, and from that Markdown to report.html."""

import base64
import math
import re
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cifar_lightning.report import charts, curve_diagnosis, markdown, verdicts
from cifar_lightning.report.claims import Claim, by_value, compare, original
from cifar_lightning.report.statistics import MAIN, POINT, Estimate, estimate, finished
from cifar_lightning.results import tables
from cifar_lightning.results.records import Study, Test
from cifar_lightning.utils import files

HTML, MARKDOWN, FIGURES = "report.html", "report.md", "figures"
ACC = "best_val/acc"
BATCHES = {"batch_size": "equal epochs", "batch_size_updates": "equal updates", "batch_size_scaled": "scaled rate"}
TITLES = {name: f"Batch size, {way}" for name, way in BATCHES.items()}
TITLES |= {"dropout": "Dropout rate", "learning_rate": "Learning rate"}
WORDS = {"val": "validation", "best_val": "best validation", "acc": "accuracy"}
# What the other values of a sweep are compared with: the recipe's, and no dropout.
STANDARD = {"data.batch_size": 100, "model.dropout": 0.0, "model.lr": 1e-3}
# What a part gains is the first experiment minus the second.
PARTS = {f"batch norm, {model.upper()}": (model, f"{model}_no_batch_norm") for model in ("cnn", "mlp")}
PARTS |= {f"dropout, {model.upper()}": (model, f"{model}_no_dropout") for model in ("cnn", "mlp")}
SYNTHETIC = "NOT CIFAR-10: synthetic images"


def write(study: Study) -> Path:
    """Write report.md, figures/ and report.html into the study's folder, which exists; few or no records will do.

    The same records give the same bytes. Figures of an earlier report that are no longer shown go.

    Returns:
        The path of report.html.
    """
    report, folder, earlier = Report(study), study.folder / FIGURES, study.folder / MARKDOWN
    shown = re.findall(rf"\]\({FIGURES}/([\w-]+\.(?:svg|png))\)", earlier.read_text() if earlier.is_file() else "")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
        finalize=markdown.literal,  # whatever stands in a record is text
    )
    # The template formats numbers with what these modules have, and asks the report for the rest.
    names = vars(curve_diagnosis) | vars(markdown) | vars(verdicts) | globals() | {"dict": dict, "r": report}
    lines = environment.get_template(f"{MARKDOWN}.j2").render(names).splitlines()
    blocks = [line.strip() for line in lines if line.strip()]  # one per line, but for tables and lists
    together = [a[:2] == b[:2] and b[:2] in ("| ", "- ") for a, b in pairwise(blocks)] + [True]
    text = "".join(block + ("\n" if close else "\n\n") for block, close in zip(blocks, together, strict=True))
    body, sections = markdown.to_html(text, report.figures, charts.COLOURS)
    page = environment.get_template(f"{HTML}.j2").render(body=Markup(body), sections=sections)
    folder.mkdir(exist_ok=True)
    for name, content in report.figures.items():
        files.replace(folder / name, content)
    for name in set(shown) - report.figures.keys():
        (folder / name).unlink(missing_ok=True)
    files.replace(study.folder / MARKDOWN, text.encode())
    files.replace(study.folder / HTML, page.encode())
    return study.folder / HTML


class Report:
    """What the template asks for: tables, the numbers of its sentences, and figures, which it collects."""

    def __init__(self, study: Study) -> None:
        self.study, self.figures = study, dict[str, bytes]()
        self.table, self.curves, self.all = finished(study), tables.curves(study), tables.runs(study)
        records = [study.records[address] for address in self.all.address.unique()]
        self.environment = pd.DataFrame([{"images": record.source, **record.environment} for record in records])
        self.failed = self.all[self.all.status == "failed"]
        self.claims, self.verdicts = compare(self.table), verdicts.judge(self.table, self.failed)
        self.counts = Counter(claim.verdict for claim in self.claims if claim.metric != "seconds")
        self.synthetic = sum(record.source != "cifar10" for record in study.records.values())
        # What the original has, by experiment, value of a sweep, and metric; nothing beside other images.
        self.theirs = defaultdict[tuple[Any, ...], float](lambda: math.nan)
        for claim in self.claims if not self.synthetic else []:
            self.theirs[claim.experiment, *claim.varied.values(), claim.metric] = claim.value
        self.pending = [point for point in study.plan.points if point.address not in study.records]
        sizes = self.table[self.table.experiment != "batch_size_updates"].images  # those train on fewer by design
        self.sizes = ", ".join(f"{size:,}" for size in sorted(set(sizes) - {original()["recipe"]["images"]}))

    def rows(self, experiment: str, variant: str | None = None) -> pd.DataFrame:
        """Return the finished runs of an experiment."""
        rows = self.table[self.table.experiment == experiment]
        return rows if variant is None else rows[rows.variant == variant]

    def gain(self, whole: str, without: str, metric: str = ACC) -> Estimate | None:
        """Return what one experiment has over another."""
        return estimate(self.rows(whole), metric, self.table, minus=self.rows(without))

    def tests(self, model: str) -> list[Test]:
        """Return the tests of a network's runs that have the classes of the first."""
        tests = [self.study.records[address].test for address in self.rows(model).dropna(subset="test/acc").address]
        return [test for test in tests if test and tests[0] and test.classes == tests[0].classes]

    def figure(self, name: str, content: alt.TopLevelMixin | str, words: str) -> Markup:
        """Put a chart, or a PNG in Base64, into figures/ and return the Markdown that shows it."""
        if self.synthetic and not isinstance(content, str):
            words, content = f"{SYNTHETIC}: {words}", content.properties(title=SYNTHETIC)
        file = f"{name}.png" if isinstance(content, str) else f"{name}.svg"
        self.figures[file] = base64.b64decode(content) if isinstance(content, str) else charts.svg(content)
        return Markup(f"![{markdown.literal(words)}]({FIGURES}/{file})")

    def original_chart(self, kind: str, axis: str) -> Markup:
        """Return the original's losses or accuracies beside ours."""
        shown = [claim for claim in self.claims if claim.metric.endswith(kind)]
        rows = [charts.row(label(claim), claim.ours, claim.value, kind, claim.verdict) for claim in shown]
        chart = charts.forest(rows, axis, charts.VERDICTS)
        return self.figure(f"original_{kind}", chart, f"The original's numbers beside ours: {axis}")

    def ablation_chart(self) -> Markup | None:
        """Return what batch norm and dropout gain; None if nothing can be compared."""
        rows = []
        for name, (whole, without) in PARTS.items():
            if gain := self.gain(whole, without):
                theirs = self.theirs[whole, ACC] - self.theirs[without, ACC]
                rows.append(charts.row(name, gain, theirs, ACC, "gain", sign=True))
        words = f"Gain in best validation accuracy. {'; '.join(row['tip'] for row in rows)}"
        chart = rows and charts.forest(rows, "gain in best validation accuracy, points", {"gain": charts.BLUE}, 28)
        return self.figure("ablations", chart.properties(title="What each part gains"), words) if chart else None

    def curve_chart(self, experiment: str, *metrics: str) -> Markup:
        """Return the learning curves of an experiment; nothing without runs."""
        rows = self.curves.merge(self.rows(experiment, experiment)[POINT]).dropna(subset=["val/loss", "val/acc"])
        if rows.empty:
            return Markup("")
        ends = rows.groupby("epoch").mean(numeric_only=True).iloc[[0, -1]]
        shown = [f"{stage}/{metric}" for stage in charts.STAGES for metric in metrics if f"{stage}/{metric}" in ends]
        parts = [f"{column} {ends[column].iloc[0]:.2f} to {ends[column].iloc[1]:.2f}" for column in shown]
        words = "; ".join([f"{title(experiment)}, n = {rows.seed.nunique()}, first to last epoch", *parts])
        everyone = self.curves[self.curves.experiment.isin(MAIN)].filter(regex=r"^(train|train_clean|val)/loss$")
        tops = {"loss": charts.loss_top(everyone), "acc": 100}
        chart = alt.vconcat(*(charts.curves(rows, metric, tops[metric]) for metric in metrics), spacing=8)
        name = "curves" if len(metrics) > 1 else metrics[0]
        return self.figure(f"{name}_{experiment}", chart.properties(title=title(experiment)), words)

    def sweep_chart(self, name: str, setting: str, lines: dict[str, str], *, log: bool = True) -> Markup:
        """Return best validation accuracy against a setting, a line per experiment, beside the original's."""
        found = [
            (line, x, estimate(rows, ACC, self.table))
            for experiment, line in lines.items()
            for x, rows in by_value(self.rows(experiment), setting).items()
        ]
        theirs = [claim for claim in self.claims if claim.experiment == name and not self.synthetic]
        found += [("original", each.varied[setting], Estimate(1, each.value)) for each in theirs]
        rows = [{"x": x, **charts.row(f"{line}, {x:g}", each, math.nan, ACC, line)} for line, x, each in found]
        words = f"Best validation accuracy against {setting}. {'; '.join(row['tip'] for row in rows)}"
        shown = title(name).partition(",")[0].lower()
        return self.figure(name, charts.sweep(rows, shown, log=log), words) if rows else Markup("")

    def rate_chart(self) -> Markup:
        """Return the training losses of the learning-rate sweep, by which a rate is judged too high or too low."""
        runs = self.rows("learning_rate")
        if runs.empty or "model.lr" not in runs:
            return Markup("")
        rows = self.curves.merge(runs[[*POINT, "model.lr"]]).sort_values(["model.lr", "seed", "epoch"])
        loss = rows.get("train_clean/loss", rows["train/loss"]).fillna(rows["train/loss"])
        rows = rows.assign(line=rows["model.lr"].map("{:g}".format), value=loss)
        colours = dict(zip(rows.line.unique(), [*charts.COLOURS.values()] * 9, strict=False))
        ends = "; ".join(f"{line}: {those.value.iloc[-1]:.2f}" for line, those in rows.groupby("line", sort=False))
        top, name = charts.loss_top(rows[["value"]]), "training loss, evaluation mode"
        chart = charts.lines(rows, colours, name, top, (330, 230))
        return self.figure("learning_rate_loss", chart, f"Training loss over the epochs. At the end: {ends}")

    def confusion_chart(self, model: str) -> Markup:
        """Return a network's confusion matrix, all seeds together."""
        tests = self.tests(model)
        summed, classes = np.sum([test.confusion_matrix for test in tests], axis=0), tests[0].classes
        shares = pd.DataFrame(summed / np.maximum(1, summed.sum(axis=1, keepdims=True)), classes, classes)
        mistaken = shares.to_numpy() * (1 - np.eye(len(classes)))
        true, other = np.unravel_index(mistaken.argmax(), mistaken.shape)
        most = f"most often {classes[true]} is taken for {classes[other]} ({mistaken.max():.1%})"
        words = f"{np.trace(summed) / summed.sum():.1%} are recognised; {most}."
        name = f"{model.upper()}, n = {len(tests)}"
        chart = charts.confusion(shares).properties(title=name)
        return self.figure(f"confusion_{model}", chart, f"Confusion matrix, {name}: {words}")

    def spark(self, experiment: str, variant: str) -> Markup:
        """Return the small loss curves of a setting."""
        rows = self.curves.merge(self.rows(experiment, variant)[POINT])
        stem = re.sub(r"\W+", "_", f"spark_{experiment}" if variant == experiment else f"spark_{experiment}_{variant}")
        return self.figure(stem, charts.spark(rows), f"loss of {title(experiment, variant)}")


def title(experiment: str, variant: str = "") -> str:
    """Return `CNN without dropout`, `Dropout rate: dropout=0.2`; of an experiment that is not known its name."""
    name = TITLES.get(experiment, experiment)
    if experiment in MAIN:
        name = experiment[:3].upper() + experiment[3:].replace("_no_", " without ").replace("_", " ")
    # Numbers of many digits are shortened, and a line may break behind a comma.
    short = re.sub(r"\d*\.\d{5,}", lambda match: f"{float(match[0]):.4g}", variant).replace(",", ", ")
    return f"{name}: {short}" if variant not in ("", experiment) else name


def label(claim: Claim) -> str:
    """Return `CNN: best validation accuracy`, `Dropout rate: dropout 0.2`."""
    name = " ".join(WORDS.get(part, part) for part in claim.metric.split("/"))
    for setting, value in claim.varied.items():
        name = f"{setting.rpartition('.')[2].replace('_', ' ')} {value:g}"
    return f"{title(claim.experiment)}: {name}"
