"""The report's charts: Vega-Lite, drawn to SVG by vl-convert, offline and with the same bytes each time.

A chart is drawn once: for report.md as it is, and for report.html inline, where its colours become CSS variables and
the descriptions of its marks are what a pointer shows.
"""

import math
import re
from pathlib import Path
from typing import Any

import altair as alt
import matplotlib
import pandas as pd
import vl_convert

from cifar_lightning.report.markdown import between, number
from cifar_lightning.report.statistics import Estimate

# Of Okabe and Ito (https://jfly.uni-koeln.de/color/), told apart however one sees colours. report.css names them too.
COLOURS = {"ink": "#1f2328", "grey": "#6e7781", "blue": "#0072b2", "orange": "#d55e00", "green": "#009e73"}
INK, GREY, BLUE, ORANGE, GREEN = COLOURS.values()
VERDICTS = {"reproduced": GREEN, "not reproduced": ORANGE, "open": GREY}
LINES = {"equal epochs": BLUE, "equal updates": GREEN, "scaled rate": ORANGE, "ours": BLUE, "original": INK}
Chart = alt.LayerChart | alt.FacetChart
STAGES = {"train": ("as trained", GREEN), "train_clean": ("evaluation mode", BLUE), "val": ("validation", ORANGE)}
DIVERGED = 4.0  # nats; guessing costs 2.3, so what is higher has diverged, and would flatten all else
TEXT = {"labelColor": INK, "titleColor": INK, "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal"}
CONFIG: dict[str, Any] = {
    # Comes with matplotlib, so that text is measured alike everywhere; it is wider than what browsers have.
    "font": "DejaVu Sans",
    "view": {"stroke": None},
    "axis": {**TEXT, "gridColor": GREY, "gridOpacity": 0.2, "domainColor": GREY, "tickColor": GREY, "labelLimit": 340},
    "legend": {**TEXT, "orient": "top", "title": None, "symbolStrokeWidth": 2.5},
    "title": {"color": INK, "fontSize": 12, "anchor": "start"},
}


def svg(chart: alt.TopLevelMixin) -> bytes:
    """Draw a chart; coordinates have two decimals, which hides what libraries of other machines differ in."""
    vl_convert.register_font_directory(str(Path(matplotlib.get_data_path(), "fonts", "ttf")))
    drawn = vl_convert.vegalite_to_svg(chart.to_dict() | {"config": CONFIG, "background": "white"})
    short = re.sub(r'(aria-label="[^"]*"|>[^<]*<)|(\d\.\d\d)\d+', lambda match: match[1] or match[2], drawn)
    return short.encode()


def row(
    name: str, found: Estimate | None, original: float, metric: str, colour: str, *, sign: bool = False
) -> dict[str, Any]:
    """Return an estimate beside the original as a row of `forest` or `sweep`, with the words for a pointer."""
    words = f"{name}: {number(found and found.mean, metric, sign=sign)}"
    words += f" ({between(found, metric, sign=sign)}, n = {found.n})" if found and found.ends else ""
    words += "" if math.isnan(original) else f", original {number(original, metric, sign=sign)}"
    low, high = (found.ends if found else []) or [math.nan] * 2
    shown = {"value": found.mean if found else math.nan, "low": low, "high": high, "original": original}
    scaled = {key: value * (100 if metric.endswith("acc") else 1) for key, value in shown.items()}
    return {"row": name, "colour": colour, "tip": words, "pooled": bool(found and found.pooled), **scaled}


def forest(rows: list[dict[str, Any]], x: str, colours: dict[str, str], step: int = 17) -> Chart:
    """Draw dots with intervals (dashed: pooled SD), and the original as hollow diamonds; the axis is named `x`."""
    base = alt.Chart(pd.DataFrame(rows), width=300, height=alt.Step(step))
    base = base.encode(alt.Y("row:N", sort=None, title=None), _colour("colour", colours))
    low, dash = alt.X("low:Q", title=x), alt.condition("datum.pooled", alt.value([4, 3]), alt.value([1, 0]))
    return alt.layer(
        base.mark_rule(strokeWidth=2.5, aria=False).encode(low, alt.X2("high:Q"), strokeDash=dash),
        base.mark_point(filled=True, size=55, opacity=1).encode(x="value:Q", description="tip:N"),
        base.mark_point(shape="diamond", size=75, strokeWidth=1.6).encode(x="original:Q", description="tip:N"),
    )


def sweep(rows: list[dict[str, Any]], x: str, *, log: bool) -> Chart:
    """Draw best validation accuracy against a setting `x` of the rows, with intervals and a line per colour."""
    values, lines = sorted({row["x"] for row in rows}), {row["colour"]: LINES[row["colour"]] for row in rows}
    axis = alt.Axis(values=values, format="," if max(values) > 1 else "~g", grid=False)
    scale = alt.Scale(type="log" if log else "linear", nice=False, padding=14)
    base = alt.Chart(pd.DataFrame(rows), width=330, height=230)
    base = base.encode(alt.X("x:Q", title=x, scale=scale, axis=axis), _colour("colour", lines))
    y = alt.Y("value:Q", title="best validation accuracy, %", scale=alt.Scale(zero=False))
    shape = alt.condition("datum.colour === 'original'", alt.value("diamond"), alt.value("circle"))
    return alt.layer(
        base.mark_rule(strokeWidth=1.5, aria=False).encode(alt.Y("low:Q"), alt.Y2("high:Q")),
        base.mark_line(strokeWidth=2, aria=False).encode(y),
        base.mark_point(size=55, opacity=1, fill="white").encode(y, shape=shape, description="tip:N"),
    )


def lines(rows: pd.DataFrame, colours: dict[str, str], y: str, top: float, size: tuple[int, int]) -> Chart:
    """Draw `value` over the epochs, of each `line` the mean over seeds, and faint the seeds."""
    seeds = rows.assign(tip=rows.line + ", seed " + rows.seed.astype(str))
    mean = rows.groupby(["line", "epoch"], as_index=False, sort=False).value.mean()
    axis, x = alt.Axis(tickCount=5, grid=False), alt.Scale(domain=[1, max(2, int(rows.epoch.max()))], nice=False)
    colour = _colour("line", {name: colours[name] for name in rows.line.unique()})
    layers = []
    for each, width in ((seeds, 0.8), (mean.assign(tip=mean.line), 2.2))[rows.seed.nunique() == 1 :]:
        line = alt.Chart(each, width=size[0], height=size[1]).mark_line(strokeWidth=width)
        value = alt.Y("value:Q", title=y, scale=alt.Scale(domain=[0, top], clamp=True, nice=False))
        across = alt.X("epoch:Q", axis=axis, scale=x)
        layers.append(line.encode(across, value, colour, detail="tip:N", description="tip:N"))
    return alt.layer(*layers)


def curves(rows: pd.DataFrame, metric: str, top: float) -> Chart:
    """Draw the loss or accuracy of one setting's rows of `tables.curves`: gap shaded, best epoch marked."""
    names = {f"{stage}/{metric}": name for stage, (name, _) in STAGES.items() if f"{stage}/{metric}" in rows}
    long = rows.melt(["seed", "epoch"], list(names), "line", "value").dropna().replace({"line": names})
    long["value"] *= 1 if metric == "loss" else 100
    mean = long.pivot_table("value", "epoch", "line", sort=False).reset_index()
    best = mean[mean.epoch == rows.groupby("epoch")["val/acc"].mean().idxmax()]
    best = best.assign(tip=f"best epoch: {best.epoch.iloc[0]:.0f}, validation {best.validation.iloc[0]:.4g}")
    drawn = lines(long, dict(STAGES.values()), "loss, nats" if metric == "loss" else "accuracy, %", top, (260, 130))
    x, y = alt.X("epoch:Q"), alt.Y("validation:Q")
    dot = alt.Chart(best).mark_point(filled=True, size=60, color=ORANGE, opacity=1).encode(x, y, description="tip:N")
    gap = alt.Chart(mean).mark_area(color=ORANGE, opacity=0.12, aria=False).encode(x, y, alt.Y2("evaluation mode:Q"))
    return alt.layer(*([gap] if "evaluation mode" in mean else []), drawn, dot)


def spark(rows: pd.DataFrame) -> Chart:
    """Draw the loss curves of one setting without axes: blue training, orange validation images."""
    clean = "train_clean/loss" if "train_clean/loss" in rows else "train/loss"
    long = rows.groupby("epoch", as_index=False)[[clean, "val/loss"]].mean().melt("epoch", var_name="line")
    colour = alt.Color("line:N", legend=None, scale=alt.Scale(domain=[clean, "val/loss"], range=[BLUE, ORANGE]))
    y = alt.Y("value:Q", axis=None, scale=alt.Scale(zero=False))
    return alt.layer(
        alt.Chart(long, width=96, height=26)
        .mark_line(strokeWidth=1.6, aria=False)
        .encode(alt.X("epoch:Q", axis=None), y, colour)
    )


def confusion(shares: pd.DataFrame) -> Chart:
    """Draw a confusion matrix of fractions: blue what is recognised, orange what is mistaken."""
    cells = shares.rename_axis("true").reset_index().melt("true", var_name="other", value_name="share")
    cells["right"] = cells.true == cells.other
    cells["shade"] = cells.share.where(cells.right, (3 * cells.share).clip(upper=0.9))
    cells["text"] = [f"{100 * share:.0f}" if share >= 0.005 else "" for share in cells.share]
    cells["tip"] = [f"{true} taken for {other}: {share:.1%}" for true, other, share in cells.iloc[:, :3].to_numpy()]
    base = alt.Chart(cells, width=alt.Step(25), height=alt.Step(21)).encode(
        alt.X("other:N", sort=None, title="taken for", axis=alt.Axis(labelAngle=-45)), alt.Y("true:N", sort=None)
    )
    colour = alt.condition("datum.right", alt.value(BLUE), alt.value(ORANGE))
    shade, text = alt.Opacity("shade:Q", scale=None), base.mark_text(color=INK, fontSize=10, aria=False)
    return alt.layer(base.mark_rect().encode(shade, color=colour, description="tip:N"), text.encode(text="text:N"))


def loss_top(losses: pd.DataFrame) -> float:
    """Return the top of a loss axis: the highest loss rounded up to a half, but for what has diverged."""
    highest = float(losses.where(losses <= DIVERGED).max().max())
    return DIVERGED if math.isnan(highest) else max(0.5, math.ceil(2 * highest) / 2)


def _colour(field: str, colours: dict[str, str]) -> alt.Color:
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    return alt.Color(f"{field}:N", scale=scale, legend=alt.Legend() if len(colours) > 1 else None)
