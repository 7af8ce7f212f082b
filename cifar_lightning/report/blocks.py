"""What the report is made of: sections of blocks, which the templates turn into HTML and Markdown alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from cifar_lightning.report.style import Drawing

Tone = Literal["", "code", "strong", "small", "good", "bad", "open", "note"]


@dataclass(frozen=True)
class Span:
    """Some words in one manner.

    Attributes:
        words: As they are read.
        href: Where they lead: an anchor or a folder, relative to the report.
        tone: `good`, `bad`, `open` and `note` are badges; `small` stands behind a number.
    """

    words: str
    href: str = ""
    tone: Tone = ""


Text = tuple[Span, ...]


def text(*parts: "str | Span | Text") -> Text:
    """Strings, spans and texts, one behind the other."""
    spans: list[Span] = []
    for part in parts:
        if isinstance(part, str):
            spans.append(Span(part))
        elif isinstance(part, Span):
            spans.append(part)
        else:
            spans.extend(part)
    return tuple(spans)


@dataclass(frozen=True)
class Paragraph:
    """Words; a `loud` one must not be overlooked."""

    kind: ClassVar[str] = "paragraph"
    text: Text
    loud: bool = False


@dataclass(frozen=True)
class Heading:
    """Of a part of a section."""

    kind: ClassVar[str] = "heading"
    number: str
    title: str
    anchor: str


@dataclass(frozen=True)
class Group:
    """Rows that belong together, under a title of their own unless that is empty."""

    title: Text
    rows: Sequence[Sequence[Text]]


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        label: What it holds.
        head: A title a column.
        columns: A letter a column: `t` words, `n` numbers, `p` a sentence or more.
        groups: Its rows. The first cell of a row is what the row is about.
    """

    kind: ClassVar[str] = "table"
    label: str
    head: Sequence[str]
    columns: str
    groups: Sequence[Group]


def listed(label: str, head: Sequence[str], columns: str, rows: Sequence[Sequence[Text]]) -> list[Table]:
    """A table without groups; none without rows."""
    return [Table(label, head, columns, [Group((), rows)])] if rows else []


@dataclass(frozen=True)
class Figure:
    """Drawings that are read together, under one caption."""

    kind: ClassVar[str] = "figure"
    drawings: Sequence[Drawing]
    caption: str


@dataclass(frozen=True)
class Picture:
    """An image of the data.

    Attributes:
        name: Of its file.
        png: The file, in Base64.
        alt: What it shows.
        title: What is said of it.
    """

    name: str
    png: str
    alt: str
    title: Text


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side."""

    kind: ClassVar[str] = "gallery"
    pictures: Sequence[Picture]
    caption: str


@dataclass(frozen=True)
class Card:
    """A statement with what became of it: `badge` is the verdict, `source` leads to the evidence."""

    anchor: str
    badge: Span
    title: Text
    body: Text
    source: Text


@dataclass(frozen=True)
class Cards:
    """Statements, one under the other."""

    kind: ClassVar[str] = "cards"
    cards: Sequence[Card]


Block = Paragraph | Heading | Table | Figure | Gallery | Cards


@dataclass(frozen=True)
class Section:
    """A numbered part of the report."""

    number: int
    title: str
    anchor: str
    blocks: Sequence[Block]
