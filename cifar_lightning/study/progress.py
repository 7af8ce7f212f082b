"""The console of a study while it runs: at a terminal a line per running run and one for all, and what has ended."""

import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial

from tqdm import tqdm

from cifar_lightning.results.records import Record
from cifar_lightning.results.store import is_link
from cifar_lightning.runs import metrics_csv
from cifar_lightning.study.plan import Run
from cifar_lightning.study.preflight import Seconds
from cifar_lightning.utils.duration import duration

# As callbacks/console.py prints it; the last accuracy is val/acc.
EPOCH = re.compile(r"epoch +(\d+)/\d+ .*acc (\S+) +([\d.]+) s$")


class Progress:
    """Print how runs go, by the lines that they print, and the time left, from `seconds` by address at first.

    An epoch takes what those of its run took so far. Before there are any it takes what the probe said, corrected by
    all epochs that are known by now: so the time left settles.
    """

    def __init__(self, runs: Sequence[Run], seconds: Mapping[str, Seconds]) -> None:
        self.total, self.seconds, self.at_once = len(runs), seconds, 1
        self.left = {run.address: epochs_left(run) for run in runs}  # epochs of what has not ended
        self.took: dict[str, list[float]] = {run.address: [] for run in runs}  # seconds of its epochs
        self.errors: dict[str, str] = {}  # the last of each run
        self.lines: dict[str, tqdm] = {}
        self.line = partial(tqdm, bar_format="{desc}", leave=False, dynamic_ncols=True, disable=not sys.stderr.isatty())
        self.overall = self.line()
        self._refresh()

    def close(self) -> None:
        """Leave only what has ended."""
        for line in (*self.lines.values(), self.overall):
            line.close()

    def printed(self, run: Run, text: str) -> None:
        """Take a line of a run: an epoch's, or an error, which is kept; the rest is for the run alone."""
        if run.address not in self.lines:
            self.lines[run.address] = self.line(desc=f"starts  {run.title}")
            self.at_once = max(self.at_once, len(self.lines))
            if self.overall.disable:
                print(f"$ {run.command}", flush=True)
        if found := EPOCH.match(text):
            self.left[run.address] = run.epochs - int(found[1])
            self.took[run.address].append(float(found[3]))
            left = duration(self._seconds_left(run.address))
            # The name comes last, because it is that which a narrow terminal cuts off.
            shown = f"epoch {found[1]:>3}/{run.epochs}  val/acc {found[2]}  {left:>10} left  {run.title}"
            self.lines[run.address].set_description_str(shown)
            self._refresh()
        if text.startswith("error: "):
            self.errors[run.address] = text.removeprefix("error: ")

    def ended(self, run: Run, record: Record | None) -> None:
        """Print how a run has ended; without a record it was stopped."""
        del self.left[run.address]
        if run.address in self.lines:  # it may have been killed before it printed anything
            self.lines.pop(run.address).close()
        outcome = f"FAILED: {record.reason}" if record else "stopped"
        if record and record.status == "done":
            best = max(record.rows, key=lambda row: row["val/acc"])
            tested = f", test/acc {record.test.acc:.4f}" if record.test else ""
            outcome = f"val/acc {best['val/acc']:.4f} at epoch {best['epoch']:.0f} of {len(record.rows)}{tested}, "
            outcome += duration(sum(row["epoch_seconds"] for row in record.rows))
        count = f"[{self.total - len(self.left)}/{self.total}]"
        tqdm.write(f"{count} {run.title}: {outcome}", file=sys.stdout)  # above the lines
        sys.stdout.flush()
        self._refresh()

    def _seconds_left(self, address: str) -> float:
        expected, took = self.seconds[address], self.took[address]
        probed = sum(len(known) * self.seconds[each].per_epoch for each, known in self.took.items())
        correction = sum(map(sum, self.took.values())) / probed if probed else 1.0
        per_epoch = sum(took) / len(took) if took else expected.per_epoch * correction
        return self.left[address] * per_epoch + expected.outside

    def _refresh(self) -> None:
        left = sum(map(self._seconds_left, self.left))
        done = sum(map(sum, self.took.values()))
        done += sum(each.outside for key, each in self.seconds.items() if key not in self.left)
        text = f"{self.total - len(self.left)} of {self.total} runs  {done / max(1, done + left):.0%}"
        at_once = max(1, min(self.at_once, len(self.left)))
        self.overall.set_description_str(f"{text}  {duration(left / at_once)} left")


def epochs_left(run: Run) -> int:
    """Return how many epochs are still to be made, by the curves in its folder, unless that is a link to another's."""
    linked = is_link(run.study / run.folder, run.study)
    return run.epochs if linked else max(0, run.epochs - len(metrics_csv.read(run.files.metrics)))
