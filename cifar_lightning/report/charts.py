"""The report's charts: Vega-Lite, drawn to SVG by vl-convert, offline and with the same bytes each time.

A chart is drawn once: for report.md as it is, and for report.html inline, where its colours become CSS variables and
the descriptions of its marks are what a pointer shows. None is wider than a phone can show.
"""

import base64
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import cycle
from pathlib import Path
from typing import Any

import altair as alt
import matplotlib
import numpy as np
import pandas as pd
import vl_convert
from markupsafe import Markup

from cifar_lightning.report.claims import SCALED, Claim, by_value, compare, original
from cifar_lightning.report.markdown import between, literal, number
from cifar_lightning.report.scalings import Fit, explain, predict
from cifar_lightning.report.statements import judge
from cifar_lightning.report.statistics import ACC, MAIN, POINT, Estimate, estimate, finished
from cifar_lightning.results import tables
from cifar_lightning.results.records import Study, Test

FIGURES = "figures"
SYNTHETIC = "NOT CIFAR-10: synthetic images"
# What sweeps vary, and how their experiments do.
BATCHES = {"batch_size": "equal epochs", "batch_size_updates": "equal updates", "batch_size_scaled": "scaled rate"}
SWEEPS = {"data.batch_size": BATCHES, "model.dropout": {"dropout": ""}, "model.lr": {"learning_rate": ""}}
TITLES = {name: f"{name[:3].upper()}{name[3:].replace('_no_', ' without ').replace('_', ' ')}" for name in MAIN}
TITLES |= {name: f"Batch size, {way}" for name, way in BATCHES.items()}
TITLES |= {"dropout": "Dropout rate", "learning_rate": "Learning rate"}
WORDS = {"val": "validation", "best_val": "best validation", "acc": "accuracy"}
# What can be left out of an SVG: empty paths around each group, what says that it is one, moves by nothing; a seventh.
IDLE = r'<path class="(?:fore|back)ground"[^>]*/>| role="graphics-object" [^ =]*="[^"]*"| transform="translate\(0,0\)"'
# Two decimals of a pixel hide what libraries of other machines differ in, and are kept; words and opacities stay.
DECIMALS = r'((?:aria-label|opacity)="[^"]*"|>[^<]*<)|(\d\.\d\d)\d+'
STAGES = {"train": "as trained", "train_clean": "evaluation mode", "val": "validation"}
# What a part gains is the first experiment minus the second.
PARTS = {f"batch norm: {model.upper()}": (model, f"{model}_no_batch_norm") for model in ("cnn", "mlp")}
PARTS |= {f"dropout: {model.upper()}": (model, f"{model}_no_dropout") for model in ("cnn", "mlp")}
# Of Okabe and Ito (https://jfly.uni-koeln.de/color/), told apart however one sees colours. report.css names them too.
COLOURS = {"ink": "#1f2328", "grey": "#6e7781", "blue": "#0072b2", "orange": "#d55e00", "green": "#009e73"}
INK, GREY, BLUE, ORANGE, GREEN = COLOURS.values()
SHADES = {"reproduced": GREEN, "not reproduced": ORANGE, "open": GREY, "gain": BLUE, "ours": BLUE, "original": INK}
SHADES |= {"equal epochs": BLUE, "equal updates": GREEN, "scaled rate": ORANGE}
SHADES |= {"stock": BLUE, "never": ORANGE, "always": GREEN}
SHADES |= {"as trained": GREEN, "evaluation mode": BLUE, "validation": ORANGE}
DIVERGED = 4.0  # nats; guessing costs 2.3, so what is higher has diverged, and would flatten all else
TEXT = {"labelColor": INK, "titleColor": INK, "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal"}
CONFIG: dict[str, Any] = {
    # Comes with matplotlib, so that text is measured alike everywhere; it is wider than what browsers have.
    "font": "DejaVu Sans",
    "view": {"stroke": None},
    "axis": {**TEXT, "gridColor": GREY, "gridOpacity": 0.2, "domainColor": GREY, "tickColor": GREY},
    "header": {"labelColor": INK, "labelAnchor": "start", "labelOrient": "top", "labelPadding": 2, "title": None},
    "legend": {**TEXT, "orient": "top", "title": None, "symbolStrokeWidth": 2.5},
    "title": {"color": INK, "fontSize": 12, "anchor": "start", "subtitleColor": ORANGE},
}


class Report:
    """The content that the template asks for: tables, the numbers of its sentences, and figures, which it collects."""

    def __init__(self, study: Study) -> None:
        self.study, self.figures = study, dict[str, bytes]()
        self.table, self.curves, self.all = finished(study), tables.curves(study), tables.runs(study)
        records = [study.records[address] for address in self.all.address.unique()]
        self.environment = pd.DataFrame(
            [{"images": record.source, **record.environment} for record in records], dtype=object
        )
        self.failed = self.all[self.all.status == "failed"]
        self.claims, self.verdicts = compare(self.table), judge(self.table, self.failed)
        self.predicted = predict(self.table, self.claims)
        self.explanations = explain(self.predicted)
        # Of each number that all scalings predict their claims, by the same key as `claimed`.
        tried = self.predicted["cnn"] + self.predicted["mlp"]
        self.scaled = {(each[0].experiment, *each[0].varied.values(), each[0].metric): each for each in tried}
        self.unexplained = [each for each in self.scaled.values() if "reproduced" not in {it.verdict for it in each}]
        self.said = {each.id: each.verdict for each in self.verdicts}
        self.counts = Counter(claim.verdict for claim in self.claims if claim.metric != "seconds")
        self.certain = sum(claim.chance < 0.05 for claim in self.claims)
        self.synthetic = sum(record.source != "cifar10" for record in study.records.values())
        # What the original has, by experiment, value of a sweep, and metric; nothing beside other images.
        self.claimed = {(each.experiment, *each.varied.values(), each.metric): each for each in self.claims}
        values = {key: claim.value for key, claim in self.claimed.items() if not self.synthetic}
        self.theirs = defaultdict[tuple[Any, ...], float](lambda: math.nan, values)
        self.asked = {point.address for point in study.plan.points}
        self.pending = [point for point in study.plan.points if point.address not in study.records]
        sizes = self.table[self.table.experiment != "batch_size_updates"].images  # those train on fewer by design
        self.sizes = ", ".join(f"{size:,}" for size in sorted(set(sizes) - {original()["recipe"]["images"]}))

    def rows(self, experiment: str, variant: str = "") -> pd.DataFrame:
        rows = self.table[self.table.experiment == experiment]
        return rows[rows.variant == variant] if variant else rows

    def shared_seeds(self) -> list[int]:
        """Return the seeds that all experiments have."""
        return sorted(set.intersection(*self.table.groupby("experiment").seed.agg(set)))

    def explanations_by(self, seeds: list[int]) -> dict[str, tuple[Fit, Fit, str]]:
        """Return `explanations` as they would be if there were only these seeds."""
        rows = self.table[self.table.seed.isin(seeds)]
        return explain(predict(rows, compare(rows)))

    def gain(self, whole: str, without: str, metric: str = ACC) -> Estimate | None:
        return estimate(self.rows(whole), metric, self.table, minus=self.rows(without))

    def sweep(self, setting: str) -> list[tuple[str, float, pd.DataFrame]]:
        """Return the runs that vary a setting: by experiment, then by value."""
        steps = {experiment: by_value(self.rows(experiment), setting) for experiment in SWEEPS[setting]}
        return [(experiment, x, rows) for experiment, values in steps.items() for x, rows in values.items()]

    def tests(self, model: str) -> list[Test]:
        """Return the tests of a network's runs that have the classes of the first."""
        tests = [self.study.records[address].test for address in self.rows(model).dropna(subset="test/acc").address]
        return [test for test in tests if test and tests[0] and test.classes == tests[0].classes]

    def figure(self, name: str, content: alt.TopLevelMixin | str, words: str, heading: str = "") -> Markup:
        """Put a chart, or a PNG in Base64, into figures/ and return the Markdown that shows it."""
        if isinstance(content, str):
            name, drawn = f"{name}.png", base64.b64decode(content)
        else:
            chart = content.to_dict() | {"config": CONFIG, "background": "white", "title": heading}
            if self.synthetic:
                words, chart["title"] = f"{SYNTHETIC}: {words}", {"text": heading, "subtitle": SYNTHETIC}
            vl_convert.register_font_directory(str(Path(matplotlib.get_data_path(), "fonts", "ttf")))
            svg = re.sub(IDLE, "", vl_convert.vegalite_to_svg(chart))
            short = re.sub(DECIMALS, lambda match: match[1] or match[2], svg)
            name, drawn = f"{name}.svg", short.encode()
        self.figures[name] = drawn
        return Markup(f"![{literal(words)}]({FIGURES}/{name})")

    def original_chart(self, kind: str, axis: str) -> Markup:
        shown = [claim for claim in self.claims if claim.metric.endswith(kind)]
        rows = [row(label(claim), claim.ours, claim.value, kind, claim.verdict) for claim in shown]
        heading = f"The original's numbers beside ours: {WORDS.get(kind, kind)}"
        return self.figure(f"original_{kind}", forest(rows, axis), heading, heading)

    def scaling_chart(self, kind: str, axis: str) -> Markup:
        """Return how far from the original's numbers networks of each scaling are."""
        claims = [claim for each in self.scaled.values() for claim in each if claim.metric.endswith(kind)]
        if not claims:  # a study on its way: no such number has runs of each scaling
            return Markup("")
        rows = [row(f"{label(each)}, {each.scaling}", each.ours, each.value, kind, each.scaling) for each in claims]
        for each in rows:
            each.update({key: each[key] - each["original"] for key in ("value", "low", "high", "original")})
            each["original"] = 0.0 if each["colour"] == "stock" else math.nan  # one diamond
        heading = f"Three scalings of dropout beside the original: {WORDS.get(kind, kind)}"
        return self.figure(f"scaling_{kind}", forest(rows, axis), heading, heading)

    def ablation_chart(self) -> Markup | None:
        """Return what batch norm and dropout gain; None if nothing can be compared."""
        gains = [(*pair, name, self.gain(*pair)) for name, pair in PARTS.items()]
        rows = [
            row(name, gain, self.theirs[whole, ACC] - self.theirs[without, ACC], ACC, "gain", sign=True)
            for whole, without, name, gain in gains
            if gain
        ]
        if not rows:
            return None
        words = f"Gain in best validation accuracy. {'; '.join(row['tip'] for row in rows)}"
        chart = forest(rows, "gain in best validation accuracy, points")
        return self.figure("ablations", chart, words, "What each part gains")

    def curve_chart(self, experiment: str, *metrics: str) -> Markup:
        """Return the learning curves of an experiment: gap shaded, best epoch marked; nothing without runs."""
        rows = self.curves.merge(self.rows(experiment, experiment)[POINT]).dropna(subset=["val/loss", "val/acc"])
        if rows.empty:
            return Markup("")
        means, panels, ends = rows.groupby("epoch", as_index=False).mean(numeric_only=True), [], list[str]()
        best, x = means.loc[[means["val/acc"].idxmax()]], alt.X("epoch:Q")
        for metric in metrics:
            names = {f"{stage}/{metric}": name for stage, name in STAGES.items() if f"{stage}/{metric}" in rows}
            long = rows.melt(["seed", "epoch"], list(names), "line", "value").dropna().replace({"line": names})
            everyone = self.curves[self.curves.experiment.isin(MAIN)].filter(regex=r"^(train|train_clean|val)/loss$")
            y, top = ("accuracy", 1.0) if metric == "acc" else ("loss", loss_top(everyone))
            val, clean = alt.Y(f"val/{metric}:Q"), f"train_clean/{metric}"
            reached = number(best[f"val/{metric}"].item(), metric)
            tip = f"best epoch of the mean: {best.epoch.item()}, validation {reached}"
            dot = alt.Chart(best.assign(tip=tip)).mark_point(filled=True, size=60, color=INK, opacity=1)
            gap = alt.Chart(means).mark_area(color=ORANGE, opacity=0.12, aria=False).encode(x, val, alt.Y2(clean))
            shown = [lines(long, y, top), dot.encode(x, val, description="tip:N")]
            panels.append(alt.layer(*([gap] if clean in names else []), *shown))
            ends += [f"{name} {means[name].iloc[0]:.2f} to {means[name].iloc[-1]:.2f}" for name in names]
        words = "; ".join([f"{title(experiment)}, n = {rows.seed.nunique()}, first to last epoch", *ends])
        name = "curves" if len(metrics) > 1 else metrics[0]
        return self.figure(f"{name}_{experiment}", alt.vconcat(*panels, spacing=8), words, title(experiment))

    def sweep_chart(self, setting: str) -> Markup:
        """Return best validation accuracy against a setting, a line per experiment, beside the original's."""
        ways, name = SWEEPS[setting], next(iter(SWEEPS[setting]))
        heading = title(name).partition(",")[0]
        found = [(ways[each] or "ours", x, estimate(rows, ACC, self.table)) for each, x, rows in self.sweep(setting)]
        theirs = [claim for claim in self.claims if claim.experiment == name and not self.synthetic]
        found += [("original", claim.varied[setting], Estimate(1, claim.value)) for claim in theirs]
        rows = pd.DataFrame([{"x": x, **row(f"{way}, {x:g}", each, math.nan, ACC, way)} for way, x, each in found])
        scale = alt.Scale(type="linear" if setting == "model.dropout" else "log", nice=False, padding=14)
        axis = alt.Axis(values=sorted(set(rows.x)), format="," if max(rows.x) > 1 else "~g", grid=False)
        x = alt.X("x:Q", title=heading.lower(), scale=scale, axis=axis)
        base = alt.Chart(rows, width=300, height=210).encode(x, _colour("colour", rows.colour))
        y = alt.Y("value:Q", title="best validation accuracy, %", scale=alt.Scale(zero=False))
        shape = alt.condition("datum.colour === 'original'", alt.value("diamond"), alt.value("circle"))
        chart = alt.layer(
            base.mark_rule(strokeWidth=1.5, aria=False).encode(alt.Y("low:Q"), alt.Y2("high:Q")),
            base.mark_line(strokeWidth=2, aria=False).encode(y),
            base.mark_point(size=55, opacity=1, fill="white").encode(y, shape=shape, description="tip:N"),
        )
        return self.figure(name, chart, f"Best validation accuracy against {setting}. {'; '.join(rows.tip)}", heading)

    def rate_chart(self) -> Markup:
        """Return the training losses of the learning-rate sweep, by which a rate is judged too high or too low."""
        runs = self.rows("learning_rate")[[*POINT, "model.lr"]]
        rows = self.curves.merge(runs).sort_values(["model.lr", "seed", "epoch"])
        loss = rows.get("train_clean/loss", rows["train/loss"]).fillna(rows["train/loss"])
        rows = rows.assign(line=rows["model.lr"].map("{:g}".format), value=loss)
        ends = "; ".join(f"{line}: {those.value.iloc[-1]:.2f}" for line, those in rows.groupby("line", sort=False))
        chart = lines(rows, "training loss, evaluation mode", loss_top(rows[["value"]]), (300, 210))
        words = f"Training loss over the epochs. At the end: {ends}"
        return self.figure("learning_rate_loss", chart, words, "Learning rate: loss")

    def confusion_chart(self, model: str) -> Markup:
        """Return a network's confusion matrix, all seeds together: blue what is recognised, orange what is mistaken."""
        tests = self.tests(model)
        summed, classes = np.sum([test.confusion_matrix for test in tests], axis=0), tests[0].classes
        shares = pd.DataFrame(summed / np.maximum(1, summed.sum(axis=1, keepdims=True)), classes, classes)
        cells = shares.rename_axis("true").reset_index().melt("true", var_name="other", value_name="share")
        cells["right"] = cells.true == cells.other
        cells["shade"] = cells.share.where(cells.right, (3 * cells.share).clip(upper=0.9))
        cells["text"] = cells.share.mul(100).map("{:.0f}".format).replace("0", "")
        cells["tip"] = cells.true + " predicted as " + cells.other + ": " + cells.share.map("{:.1%}".format)
        x, y = alt.X("other:N", sort=None, title="predicted", axis=alt.Axis(labelAngle=-45)), alt.Y("true:N", sort=None)
        base = alt.Chart(cells, width=alt.Step(25), height=alt.Step(21)).encode(x, y)
        colour = alt.condition("datum.right", alt.value(BLUE), alt.value(ORANGE))
        shade, text = alt.Opacity("shade:Q", scale=None), base.mark_text(color=INK, fontSize=10, aria=False)
        chart = alt.layer(base.mark_rect().encode(shade, color=colour, description="tip:N"), text.encode(text="text:N"))
        mistaken = shares.to_numpy() * (1 - np.eye(len(classes)))
        true, other = (classes[i] for i in np.unravel_index(mistaken.argmax(), mistaken.shape))
        name = f"{model.upper()}, n = {len(tests)}"
        words = f"{np.trace(summed) / summed.sum():.1%} are recognised; "
        words += f"most often {true} is predicted as {other} ({mistaken.max():.1%})."
        return self.figure(f"confusion_{model}", chart, f"Confusion matrix, {name}: {words}", name)

    def spark(self, experiment: str, variant: str) -> Markup:
        """Return the loss curves of one setting without axes: blue training, orange validation images."""
        rows = self.curves.merge(self.rows(experiment, variant)[POINT])
        clean = "train_clean/loss" if "train_clean/loss" in rows else "train/loss"
        names = {clean: "evaluation mode", "val/loss": "validation"}
        long = rows.melt("epoch", list(names), "line", "value").replace({"line": names})
        x, y = alt.X("epoch:Q", axis=None), alt.Y("mean(value):Q", axis=None, scale=alt.Scale(zero=False))
        line = alt.Chart(long, width=96, height=26).mark_line(strokeWidth=1.6, aria=False)
        chart = alt.layer(line.encode(x, y, _colour("line", long.line).legend(None)))
        stem = re.sub(r"\W+", "_", f"spark_{experiment}" if variant == experiment else f"spark_{experiment}_{variant}")
        return self.figure(stem, chart, f"loss of {title(experiment, variant)}")


def row(
    name: str, found: Estimate | None, original: float, metric: str, colour: str, *, sign: bool = False
) -> dict[str, Any]:
    """Return an estimate beside the original (NaN: none) as a row of a chart, with the words for a pointer."""
    words = f"{name}: {number(found and found.mean, metric, sign=sign)}"
    words += f" ({between(found, metric, sign=sign)}, n = {found.n})" if found and found.ends else ""
    words += "" if math.isnan(original) else f", original {number(original, metric, sign=sign)}"
    low, high = (found.ends if found else []) or [math.nan] * 2
    shown = {"value": found.mean if found else math.nan, "low": low, "high": high, "original": original}
    scaled = {key: value * (100 if metric.endswith("acc") else 1) for key, value in shown.items()}
    return {"name": name, "colour": colour, "tip": words, "pooled": bool(found and found.pooled), **scaled}


def forest(rows: list[dict[str, Any]], x: str) -> alt.FacetChart:
    """Draw dots with intervals (dashed: pooled SD), and the original as hollow diamonds; the axis is named `x`.

    Rows are named `GROUP: NAME`, and stand below their group; those named `NAME, COLOUR`, too, share a line.
    """
    table = pd.DataFrame(rows)
    table[["group", "row"]] = table.name.str.split(": ", n=1).tolist()
    table["row"] = table.row.str.replace(r"( accuracy| loss)?(, [a-z]+)?$", "", regex=True)  # axis and legend have it
    several = table.duplicated(["group", "row"]).any()
    base = alt.Chart(width=260, height=alt.Step(25 if several else 17, **{"for": "position"}))
    base, colours = base.encode(alt.Y("row:N", sort=None, title=None)), sorted(set(table.colour), key=[*SHADES].index)
    lanes = alt.YOffset("colour:N", sort=colours, scale=alt.Scale(type="point", padding=0, range=[3, 17]))
    ours = base.encode(_colour("colour", colours), *([lanes] if several else []))
    low, dash = alt.X("low:Q", title=x).axis(tickCount=5), alt.when("datum.pooled").then(alt.value([4, 3]))
    chart = alt.layer(
        ours.mark_rule(strokeWidth=2.5, aria=False).encode(low, alt.X2("high:Q"), strokeDash=dash),
        ours.mark_point(filled=True, size=55, opacity=1).encode(x="value:Q", description="tip:N"),
        base.mark_point(shape="diamond", size=75, color=INK).encode(x="original:Q", description="tip:N"),
        data=table,
    )
    groups = alt.Row("group:N", sort=list(table.group.unique()), title=None)
    return chart.facet(row=groups, spacing=8).properties(resolve={"scale": {"y": "independent"}})


def lines(
    rows: pd.DataFrame, y: str, top: float, size: tuple[int, int] = (260, 130)
) -> alt.LayerChart | alt.FacetChart:
    """Draw `value` over the epochs, of each `line` the mean over seeds, and faint the seeds."""
    several = rows.seed.nunique() > 1
    rows = rows.assign(tip=rows.line + ", seed " + rows.seed.astype(str), mean=rows.line + ", mean" * several)
    scale = alt.Scale(domain=[1, max(2, int(rows.epoch.max()))], nice=False)
    across = alt.X("epoch:Q", scale=scale).axis(tickCount=5, tickMinStep=1, format="d", grid=False)
    base = alt.Chart(rows, width=size[0], height=size[1]).encode(across, _colour("line", rows.line))
    value = alt.Y("value:Q", title=y, scale=alt.Scale(domain=[0, top], clamp=True, nice=False))
    value = value.axis(format="%" if y == "accuracy" else "")
    mean = base.mark_line(strokeWidth=2.2).encode(value.aggregate("mean"), description="mean:N")
    seeds = base.mark_line(strokeWidth=0.8).encode(value, detail="tip:N", description="tip:N")
    return alt.layer(*([seeds] if several else []), mean)


def loss_top(losses: pd.DataFrame) -> float:
    """Return the top of a loss axis: the highest loss rounded up to a half, but for what has diverged."""
    highest = float(losses.where(losses <= DIVERGED).max().max())
    return DIVERGED if math.isnan(highest) else max(0.5, math.ceil(2 * highest) / 2)


def title(experiment: str, variant: str = "") -> str:
    """Return `CNN without dropout`, `Dropout rate: dropout=0.2`; of an experiment that is not known its name."""
    name = TITLES.get(experiment.removesuffix(SCALED), experiment)
    # Numbers of many digits are shortened, and a line may break behind a comma.
    short = re.sub(r"\d*\.\d{5,}", lambda match: f"{float(match[0]):.4g}", variant).replace(",", ", ")
    return f"{name}: {short}" if variant not in ("", experiment) else name


def label(claim: Claim) -> str:
    """Return `CNN: best validation accuracy`, `Dropout rate: 0.2`."""
    metric = " ".join(WORDS.get(part, part) for part in claim.metric.split("/"))
    return f"{title(claim.experiment)}: {', '.join(f'{value:g}' for value in claim.varied.values()) or metric}"


def _colour(field: str, names: Iterable[str]) -> alt.Color:
    """Return the encoding of what has these names, with a legend for several."""
    others = cycle([BLUE, ORANGE, GREEN, GREY])  # ink is the original's
    shades = {name: SHADES.get(name) or next(others) for name in dict.fromkeys(names)}
    colour = alt.Color(f"{field}:N", scale=alt.Scale(domain=list(shades), range=list(shades.values())))
    return colour if len(shades) > 1 else colour.legend(None)
