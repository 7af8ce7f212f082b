"""What a study says while it runs: one bar over all of it, the command of each cell, a line when it has ended."""

import re
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from tqdm import tqdm

from cifar_lightning.results.records import Record
from cifar_lightning.study.cells import Cell

EPOCH = re.compile(r"epoch +(\d+)/\d+ ")


class Progress:
    """Counts the seconds that cells were expected to take; the bar makes of it how long the rest will take in truth.

    Args:
        cells: That will run.
        seconds: That an epoch of each was expected to take, by address.
    """

    def __init__(self, cells: Sequence[Cell], seconds: Mapping[str, float]) -> None:
        self.cells, self.seconds = len(cells), seconds
        self.expected = {cell.address: cell.epochs * seconds[cell.address] for cell in cells}
        self.begun: dict[str, float] = {}  # seconds of each that are counted already
        self.errors: dict[str, str] = {}
        self.ends = 0

    def __enter__(self) -> Self:
        layout = "{desc} {percentage:3.0f}%|{bar}| {remaining} left"
        self.bar = tqdm(
            total=sum(self.expected.values()), bar_format=layout, disable=not sys.stderr.isatty(), leave=False
        )
        self._describe()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bar.close()

    def said(self, cell: Cell, line: str) -> None:
        """Takes a line that a cell printed: its epochs move the bar, its errors are kept, the rest is its own."""
        if cell.address not in self.begun:
            self.begun[cell.address] = 0.0
            say(f"$ {cell.typed}")
        if found := EPOCH.match(line):
            self._count(cell, int(found[1]) * self.seconds[cell.address])
        if line.startswith("error: "):
            self.errors[cell.address] = line.removeprefix("error: ")

    def ended(self, cell: Cell, record: Record) -> None:
        """Says how a cell has ended."""
        self.ends += 1
        self._count(cell, self.expected[cell.address])
        self._describe()
        say(f"[{self.ends}/{self.cells}] {cell.folder}: {outcome(record)}")

    def _count(self, cell: Cell, seconds: float) -> None:
        self.bar.update(seconds - self.begun.get(cell.address, 0.0))
        self.begun[cell.address] = seconds

    def _describe(self) -> None:
        self.bar.set_description_str(f"{self.ends} of {self.cells} runs")


def outcome(record: Record) -> str:
    """What came of a run, in a few words."""
    if record.status == "failed":
        return f"FAILED: {record.reason}"
    best = max(record.rows, key=lambda row: row["val/acc"])
    words = f"val/acc {best['val/acc']:.4f} at epoch {best['epoch']:.0f} of {len(record.rows)}"
    tested = f", test/acc {record.test.acc:.4f}" if record.test else ""
    return f"{words}{tested}, {duration(sum(row['epoch_seconds'] for row in record.rows))}"


def duration(seconds: float) -> str:
    """For people: `42 s`, `17 min`, `5 h 4 min`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def say(line: str) -> None:
    """Prints a line, above the bar if there is one."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()
