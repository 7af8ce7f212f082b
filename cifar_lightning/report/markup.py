"""Words in Markdown; HTML is the template's business."""

import re

from cifar_lightning.report.blocks import Span, Text


def as_markdown(spans: Text) -> str:
    """Spans as Markdown on one line, escaped."""
    return "".join(_markdown(span) for span in spans)


def _markdown(span: Span) -> str:
    words = literal(span.words)
    if span.tone == "code":
        words = f"<code>{words}</code>"  # in backquotes nothing could be escaped, and a bar would end the cell
    elif span.tone in ("strong", "good", "bad"):
        words = f"**{words.strip()}**" + " " * words.endswith(" ")
    elif span.tone in ("open", "note"):
        words = f"*{words}*"
    return f"[{words}]({span.href})" if span.href else words


def literal(words: str) -> str:
    """With everything that Markdown or HTML would take for itself made harmless."""
    words = words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    words = re.sub(r"([\\`*\[\]|~#])|(?<![^\W_])(_)|(_)(?![^\W_])", r"\\\1\2\3", words)
    return re.sub(r"\s+", " ", words)
