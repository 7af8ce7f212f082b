"""What a study prints while it runs: one bar over all of it, the command of each run, a line when it has ended."""

import re
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from tqdm import tqdm

from cifar_lightning.results.records import Record
from cifar_lightning.study.plan import Run

EPOCH = re.compile(r"epoch +(\d+)/\d+ ")


class Progress:
    """Counts the seconds that runs were expected to take; the bar estimates from it how long the rest will take.

    Args:
        runs: To make.
        seconds: Expected per epoch of each, by address.
    """

    def __init__(self, runs: Sequence[Run], seconds: Mapping[str, float]) -> None:
        self.runs, self.seconds = len(runs), seconds
        self.expected = {run.address: run.epochs * seconds[run.address] for run in runs}
        self.begun: dict[str, float] = {}  # seconds of each that are counted already
        self.errors: dict[str, str] = {}
        self.ends = 0

    def __enter__(self) -> Self:
        layout, total = "{desc} {percentage:3.0f}%|{bar}| {remaining} left", sum(self.expected.values())
        self.bar = tqdm(total=total, bar_format=layout, disable=not sys.stderr.isatty(), leave=False)
        self._describe()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bar.close()

    def printed(self, run: Run, line: str) -> None:
        """Take a line of a run: its epochs move the bar, its errors are kept, the rest is its own."""
        if run.address not in self.begun:
            self.begun[run.address] = 0.0
            say(f"$ {run.command}")
        if found := EPOCH.match(line):
            self._count(run, int(found[1]) * self.seconds[run.address])
        if line.startswith("error: "):
            self.errors[run.address] = line.removeprefix("error: ")

    def ended(self, run: Run, record: Record) -> None:
        """Print how a run has ended."""
        self.ends += 1
        self._count(run, self.expected[run.address])
        self._describe()
        say(f"[{self.ends}/{self.runs}] {run.folder}: {_outcome(record)}")

    def _count(self, run: Run, seconds: float) -> None:
        self.bar.update(seconds - self.begun.get(run.address, 0.0))
        self.begun[run.address] = seconds

    def _describe(self) -> None:
        self.bar.set_description_str(f"{self.ends} of {self.runs} runs")


def _outcome(record: Record) -> str:
    if record.status == "failed":
        return f"FAILED: {record.reason}"
    best = max(record.rows, key=lambda row: row["val/acc"])
    tested = f", test/acc {record.test.acc:.4f}" if record.test else ""
    seconds = duration(sum(row["epoch_seconds"] for row in record.rows))
    return f"val/acc {best['val/acc']:.4f} at epoch {best['epoch']:.0f} of {len(record.rows)}{tested}, {seconds}"


def duration(seconds: float) -> str:
    """Return it for people: `42 s`, `17 min`, `5 h 4 min`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def say(line: str) -> None:
    """Print a line, above the bar if there is one."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()
