"""`python -m cifar_lightning study`: make the runs that are missing, and write the report."""

import re
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path

from msgspec.structs import replace
from tqdm import tqdm

from cifar_lightning.errors import Interrupted, check
from cifar_lightning.results import store
from cifar_lightning.results.records import Plan, Record
from cifar_lightning.runs import metrics_csv
from cifar_lightning.study import config
from cifar_lightning.study.executor import Executor, Local
from cifar_lightning.study.plan import Run, plan, show_links
from cifar_lightning.study.preflight import preflight
from cifar_lightning.utils.one_line_parser import OneLineParser

# Exit statuses of a run that was stopped, not failed: Ctrl-C and SIGTERM, and these two before it had begun.
STOPPED = (130, 143, -2, -15)
EPOCH = re.compile(r"epoch +(\d+)/\d+ ")


def study(args: Sequence[str]) -> int:
    """Run a study, given what stands after `study`; return the exit status: 1 if a run failed."""
    options = parser().parse_args(args)
    check(options.workers >= 1, "workers", options.workers, "1 or more")
    experiments, output = config.read(options.config), options.output
    with nullcontext() if options.dry_run else store.own(output):
        known = store.every_record(output)
        layout = plan(experiments, output, known.values())
        missing = []
        for run in layout.runs:
            record = known.get(run.address)
            failed = record is not None and record.status == "failed"
            if options.retry if failed else not record or (run.test and not record.test):
                missing.append(run)
        seconds = preflight(missing)
        if options.dry_run:
            return _estimate(layout.runs, known, seconds)
        command = shlex.join(["python", "-m", "cifar_lightning", "study", *args])
        store.write(output, Plan(command=command, points=layout.points))
        show_links(layout, output)
        return _execute(output, missing, seconds, Local(options.workers))


def parser() -> OneLineParser:
    """Return the command's flags."""
    own = OneLineParser(
        "python -m cifar_lightning study",
        description="Make the runs that are missing of a study, each a plain `fit`, and write a report.",
        epilog="It can be stopped (Ctrl-C) or killed at any moment: the same command resumes it.",
        allow_abbrev=False,
    )
    own.add_argument("--config", "-c", type=Path, required=True, help="The experiments: configs/study.yaml.")
    own.add_argument("--output", type=Path, default=Path("logs/study"), help="Folder of its runs and its report.")
    own.add_argument("--dry-run", action="store_true", help="Print what it would run, and how long that would take.")
    own.add_argument("--retry", action="store_true", help="Run again what failed before.")
    own.add_argument("--workers", type=int, default=1, help="Runs at a time, which share the cores out among them.")
    return own


def _estimate(runs: Sequence[Run], known: Mapping[str, Record], seconds: Mapping[str, float]) -> int:
    """Print what would run, and for how long: what is missing is in `seconds`, per epoch and by address."""
    total = 0.0
    for run in runs:
        record, epochs = known.get(run.address), f"{run.epochs} epochs"
        if record and run.address not in seconds:
            print(f"{record.status:7} {run.folder!s:56} {epochs:>17}")
            continue
        done = min(run.epochs, max(len(metrics_csv.read(run.files.metrics)), len(record.rows) if record else 0))
        time = (run.epochs - done) * seconds[run.address]
        total += time
        left = f"{run.epochs - done} of {epochs}" if done else epochs
        print(f"to do   {run.folder!s:56} {left:>17} {_duration(time):>9}")
    print(f"{len(seconds)} of {len(runs)} runs to do: about {_duration(total)}, by a short probe, one run at a time")
    return 0


def _execute(output: Path, missing: Sequence[Run], seconds: Mapping[str, float], executor: Executor) -> int:
    """Make the runs, write what comes of each, and then the report; return the exit status."""
    stopped = []
    try:
        with closing(Progress(missing, seconds)) as progress, closing(executor(missing)) as events:
            for run, event in events:
                if isinstance(event, str):
                    progress.printed(run, event)
                elif event in STOPPED:
                    stopped.append(run)
                else:
                    if event:
                        store.write(output / run.folder, _failure(run, event, progress.errors.get(run.address)))
                    made = store.read(output)
                    progress.ended(run, made.records[run.address])
                    store.write_table(made)
    except (KeyboardInterrupt, Interrupted) as error:
        signum = signal.SIGTERM if isinstance(error, Interrupted) else signal.SIGINT
        raise Interrupted(signum, "the study was stopped", "the same command resumes it") from None
    store.write_table(made := store.read(output))
    from cifar_lightning.report.render import write  # here, because it takes a second to import

    print(f"report: {write(made)}")
    failed = [record for record in made.records.values() if record.status == "failed"]
    for record in failed:
        print(f"error: {record.folder}: {record.reason} (--retry runs it again)", file=sys.stderr)
    for run in stopped:
        print(f"error: {run.folder}: it was stopped; start the study again", file=sys.stderr)
    return 1 if failed or stopped else 0


def _failure(run: Run, status: int, error: str | None) -> Record:
    """The record of a run that failed; with all that was known if it had been trained, and its test failed."""
    killed = f"killed by signal {-status}, for want of memory perhaps" if status < 0 else f"exit status {status}"
    known = store.every_record(run.study).get(run.address)
    if not known or len(known.rows) < run.epochs:
        known = run.record(status="failed", rows=metrics_csv.read(run.files.metrics))
    return replace(known, status="failed", reason=error or killed)


class Progress:
    """The output of a study while it runs; its bar counts expected seconds (per epoch, by address)."""

    def __init__(self, runs: Sequence[Run], seconds: Mapping[str, float]) -> None:
        self.runs, self.seconds, self.ends = len(runs), seconds, 0
        self.counted: dict[str, float] = {}  # of each run that has begun
        self.errors: dict[str, str] = {}  # the last of each run
        total, layout = sum(run.epochs * seconds[run.address] for run in runs), "{percentage:3.0f}%|{bar}| {remaining}"
        self.bar = tqdm(total=total, bar_format=f"{{desc}} {layout} left", disable=not sys.stderr.isatty(), leave=False)
        self.bar.set_description_str(f"0 of {self.runs} runs")
        self.close = self.bar.close

    def printed(self, run: Run, line: str) -> None:
        """Take a line of a run: its epochs move the bar, its errors are kept, the rest is for the run alone."""
        if run.address not in self.counted:
            self._count(run, 0, f"$ {run.command}")
        if found := EPOCH.match(line):
            self._count(run, int(found[1]))
        if line.startswith("error: "):
            self.errors[run.address] = line.removeprefix("error: ")

    def ended(self, run: Run, record: Record) -> None:
        """Print how a run has ended."""
        self.ends += 1
        outcome = f"FAILED: {record.reason}"
        if record.status == "done":
            best = max(record.rows, key=lambda row: row["val/acc"])
            tested = f", test/acc {record.test.acc:.4f}" if record.test else ""
            outcome = f"val/acc {best['val/acc']:.4f} at epoch {best['epoch']:.0f} of {len(record.rows)}{tested}, "
            outcome += _duration(sum(row["epoch_seconds"] for row in record.rows))
        self._count(run, run.epochs, f"[{self.ends}/{self.runs}] {run.folder}: {outcome}")

    def _count(self, run: Run, epochs: int, line: str = "") -> None:
        seconds = epochs * self.seconds[run.address]
        self.bar.update(seconds - self.counted.get(run.address, 0.0))
        self.counted[run.address] = seconds
        self.bar.set_description_str(f"{self.ends} of {self.runs} runs")
        if line:
            tqdm.write(line, file=sys.stdout)  # above the bar, if there is one
            sys.stdout.flush()


def _duration(seconds: float) -> str:
    """Return it for people: `42 s`, `17 min`, `5 h 4 min`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
