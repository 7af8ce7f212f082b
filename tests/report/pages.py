"""Reads a page back."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "hr", "link", "input", "path", "use", "rect"}
Table = list[list[str]]


class Page(HTMLParser):
    """What a browser would find.

    Attributes:
        tables: Each as rows of cells.
        attributes: All of them, as (tag, name, value).
        words: All that is not in a tag.
        unclosed: What was opened and not closed, or the other way round.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[Table] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words = ""
        self.unclosed: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.unclosed += self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self._open or self._open.pop() != tag:
            self.unclosed.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        self.words += data
        if "table" in self._open and {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += data

    def values(self, name: str) -> list[str]:
        """Those of an attribute."""
        return [value for _, each, value in self.attributes if each == name]

    def row(self, name: str) -> list[str]:
        """Return the cells of the first row of that name."""
        return next(cells for table in self.tables for cells in table if cells[:1] == [name])
