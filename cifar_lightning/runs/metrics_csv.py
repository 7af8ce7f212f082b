"""metrics.csv: the curves of a run, a row per epoch."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from cifar_lightning.utils import files

Row = dict[str, float]


def read(path: Path) -> list[Row]:
    """Return the rows without their empty cells, none where there is no file; a `ValueError` if it holds text."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write rows with a header, unless they stand there already; a row that lacks a column leaves it empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    content = text.getvalue().encode()
    if not path.is_file() or path.read_bytes() != content:
        files.replace(path, content)
