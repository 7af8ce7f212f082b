"""Numbers and links as Markdown, and Markdown as HTML with its figures inside."""

import base64
import html
import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pandas as pd
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from cifar_lightning.report.statistics import Estimate

MINUS, NOTHING = "\u2212", "\u2013"  # the latter where a number is missing
TONES = {
    "reproduced": "green",
    "supported": "green",
    "not reproduced": "orange",
    "not supported": "orange",
    "open": "grey",
}


def literal(value: Any) -> Markup:
    """Return text in which nothing is Markdown or HTML, on one line; Markup stays as it is."""
    if isinstance(value, Markup):
        return value
    text = re.sub(r"([\\`*\[\]|~#])|(?<![^\W_])(_)|(_)(?![^\W_])", r"\\\1\2\3", html.escape(str(value), quote=False))
    return Markup(re.sub(r"\s+", " ", text))


def code(text: str) -> Markup:
    """Return text as code; in backquotes nothing could be escaped, and a bar would end the cell."""
    return Markup(f"<code>{literal(text)}</code>")


def number(value: Any, metric: str = "", *, sign: bool = False, digits: int = -1) -> str:
    """Return `76.87%` of an accuracy, `1.1768` of a loss, `5,583.9` of seconds; a dash where there is none.

    With a sign, an accuracy is a difference, in points; zero has no sign.
    """
    if value is None or pd.isna(value):
        return NOTHING
    percent = metric.endswith("acc")
    digits = digits if digits >= 0 else 2 if percent else 1 if metric == "seconds" else 4
    text = f"{100 * value if percent else value:{'+' if sign else ''},.{digits}f}"
    text = text if math.isinf(value) or re.search("[1-9]", text) else text.lstrip("+-")
    return text.replace("-", MINUS) + ("%" if percent and not sign else "")


def between(found: Estimate | None, metric: str, *, sign: bool = False) -> str:
    """Return `75.44% to 78.30% (pooled SD)`."""
    if found is None or found.half is None:
        return NOTHING
    ends = " to ".join(number(end, metric, sign=sign) for end in found.ends)
    return ends + (" (pooled SD)" if found.pooled else "")


def effect(found: Estimate | None, metric: str) -> Markup:
    """Return three cells: a difference, its interval, and whether that excludes 0."""
    answer = {True: "**yes**", False: "no", None: "unknown"}[found.excludes_zero if found else None]
    return Markup(f"{number(found and found.mean, metric, sign=True)} | {between(found, metric, sign=True)} | {answer}")


def seeds(rows: pd.DataFrame) -> Markup:
    """Return a link to each run's row in the page, by its seed."""
    links = (f" [s{seed}](#run-{address[:8]})" for seed, address in zip(rows.seed, rows.address, strict=True))
    return Markup("".join(links))


def measured(rows: pd.DataFrame, metric: str, digits: int = -1) -> Markup:
    """Return `55.50% ± 0.12`, mean and standard deviation of the runs that have a metric, with links to them."""
    rows = rows[rows[metric].notna()]
    mean, sd = (number(each, metric, digits=digits) for each in (rows[metric].mean(), rows[metric].std()))
    if len(rows) > 1:
        return Markup(f"{mean} ± {sd.removesuffix('%')}") + seeds(rows)
    return Markup(f"[{mean}](#run-{rows.address.iloc[0][:8]})" if len(rows) else NOTHING)


def plain(markdown: str) -> list[str]:
    """Return the text of each paragraph, list item and heading."""
    blocks = (token.children for token in MarkdownIt().parse(markdown) if token.children)
    return ["".join(" " if child.type == "softbreak" else child.content for child in block).strip() for block in blocks]


def to_html(markdown: str, figures: dict[str, bytes], colours: dict[str, str]) -> tuple[str, list[tuple[str, str]]]:
    """Return Markdown as HTML with its figures inside, and the anchors and titles of its sections.

    In figures, `colours` become CSS variables of their names.
    """
    light = re.compile("|".join(colours.values()))
    variables = {colour: f"var(--{name})" for name, colour in colours.items()}

    def image(self: Any, tokens: Sequence[Token], i: int, options: Any, env: Any) -> str:
        name, alt = str(tokens[i].attrs["src"]).rpartition("/")[2], html.escape(tokens[i].content)
        if name.endswith(".svg"):
            drawn = light.sub(lambda match: variables[match[0]], figures[name].decode())
            return drawn.replace("<svg ", f'<svg role="img" aria-label="{alt}" ', 1)
        return f'<img alt="{alt}" src="data:image/png;base64,{base64.b64encode(figures[name]).decode()}">'

    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    parser.add_render_rule("image", image)
    tokens, sections = parser.parse(markdown), []
    for heading, inline in pairwise(tokens):
        if heading.type == "heading_open" and heading.tag == "h2":
            sections.append((re.sub(r"[^a-z0-9]+", "-", inline.content.lower()).strip("-"), inline.content))
            heading.attrSet("id", sections[-1][0])
    text = str(parser.renderer.render(tokens, parser.options, {}))
    for word, tone in TONES.items():
        text = text.replace(f"<strong>{word}</strong>", f'<strong style="color: var(--{tone})">{word}</strong>')
    return text.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>"), sections
