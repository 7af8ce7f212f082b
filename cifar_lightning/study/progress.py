"""What a study prints while it runs: one bar over all of it, the command of each run, a line when it has ended."""

import re
import sys
from collections.abc import Mapping, Sequence

from tqdm import tqdm

from cifar_lightning.results.records import Record
from cifar_lightning.study.plan import Run

EPOCH = re.compile(r"epoch +(\d+)/\d+ ")


class Progress:
    """Counts expected seconds (per epoch, by address), from which the bar estimates the real ones that are left."""

    def __init__(self, runs: Sequence[Run], seconds: Mapping[str, float]) -> None:
        self.runs, self.seconds, self.ends = len(runs), seconds, 0
        self.counted: dict[str, float] = {}  # of each run that has begun
        self.errors: dict[str, str] = {}  # the last of each run
        total, layout = sum(run.epochs * seconds[run.address] for run in runs), "{percentage:3.0f}%|{bar}| {remaining}"
        self.bar = tqdm(total=total, bar_format=f"{{desc}} {layout} left", disable=not sys.stderr.isatty(), leave=False)
        self._count(None, 0)

    def close(self) -> None:
        """Take the bar away."""
        self.bar.close()

    def printed(self, run: Run, line: str) -> None:
        """Take a line of a run: its epochs move the bar, its errors are kept, the rest is for the run alone."""
        if run.address not in self.counted:
            self.counted[run.address] = 0.0
            say(f"$ {run.command}")
        if found := EPOCH.match(line):
            self._count(run, int(found[1]))
        if line.startswith("error: "):
            self.errors[run.address] = line.removeprefix("error: ")

    def ended(self, run: Run, record: Record) -> None:
        """Print how a run has ended."""
        self.ends += 1
        self._count(run, run.epochs)
        say(f"[{self.ends}/{self.runs}] {run.folder}: {_outcome(record)}")

    def _count(self, run: Run | None, epochs: int) -> None:
        if run:
            seconds = epochs * self.seconds[run.address]
            self.bar.update(seconds - self.counted.get(run.address, 0.0))
            self.counted[run.address] = seconds
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
