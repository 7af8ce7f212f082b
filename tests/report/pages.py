"""Reads a page back."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "hr", "link", "input"}
Attributes = list[tuple[str, str | None]]


class Page(HTMLParser):
    """A page as a browser would read it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []  # each as rows of cells
        self.attributes: list[tuple[str, str, str]] = []  # as (tag, name, value)
        self.words = ""  # all that is not in a tag
        self.unclosed: list[str] = []  # what was opened and not closed, or the other way round
        self._open: list[str] = []
        self.feed(text)
        self.unclosed += self._open

    def handle_starttag(self, tag: str, attrs: Attributes) -> None:
        self.handle_startendtag(tag, attrs)
        self._open += [tag] if tag not in VOID else []
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: Attributes) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.unclosed.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        self.words += data
        if {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += data

    def values(self, name: str) -> list[str]:
        return [value for _, each, value in self.attributes if each == name]

    def row(self, name: str) -> list[str]:
        return next(cells for table in self.tables for cells in table if cells[:1] == [name])
