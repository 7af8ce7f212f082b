"""`python -m cifar_lightning study`: runs what is missing of a grid, and writes the report."""

import argparse
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from cifar_lightning.errors import Interrupted, check
from cifar_lightning.results import store
from cifar_lightning.results.records import Plan, Record, Study
from cifar_lightning.runs import metrics_csv
from cifar_lightning.runs.layout import RunFolder
from cifar_lightning.study import config as experiments
from cifar_lightning.study.cells import Cell
from cifar_lightning.study.executor import Launcher, Local, Said
from cifar_lightning.study.folder import VERSION, epochs_done, located, own, show_shared
from cifar_lightning.study.plan import grid
from cifar_lightning.study.preflight import survey
from cifar_lightning.study.progress import Progress, duration
from cifar_lightning.utils.one_line_parser import OneLineParser

# Exit statuses of a cell that was stopped, not failed: Ctrl-C and SIGTERM, and these two before it had begun.
STOPPED = (130, 143, -2, -15)


def study(args: Sequence[str]) -> int:
    """Runs a study.

    Args:
        args: What stands after `study`.

    Returns:
        Exit status: 1 if a run failed.
    """
    options = parser().parse_args(args)
    check(options.workers >= 1, "workers", options.workers, "1 or more")
    asked = experiments.read(options.config)
    points, cells, places = grid(asked, options.output, store.everything(options.output).values())
    plan = Plan(command=shlex.join(["python", "-m", "cifar_lightning", "study", *args]), points=points)
    if options.dry_run:
        return estimate(*look(plan, cells, options), options.output)
    with own(options.output):
        there, cells, missing, seconds = look(plan, cells, options)
        store.write_plan(options.output, plan)
        show_shared(places, cells, options.output)
        return run(Study(plan, there, options.output), missing, seconds, Local(options.workers))


def look(
    plan: Plan, cells: Sequence[Cell], options: argparse.Namespace
) -> tuple[dict[str, Record], list[Cell], list[Cell], dict[str, float]]:
    """What is there already, all cells where their runs are, those of them to run, and seconds of an epoch of these."""
    there = store.records(options.output, plan)
    cells = [located(cell, options.output) for cell in cells]
    missing = [cell for cell in cells if not is_done(cell, there.get(cell.address), options.retry)]
    return there, cells, missing, survey(missing) if missing else {}


def parser() -> OneLineParser:
    """The command's flags."""
    own = OneLineParser(
        "python -m cifar_lightning study",
        description="Runs what is missing of a grid of experiments, each cell a plain `fit`, and writes a report.",
        epilog="It can be stopped (Ctrl-C) or killed at any moment: the same command goes on where it was.",
        allow_abbrev=False,
    )
    own.add_argument("--config", "-c", type=Path, required=True, help="The experiments: configs/study.yaml.")
    own.add_argument("--output", type=Path, default=Path("logs/study"), help="Folder of its runs and its report.")
    own.add_argument("--dry-run", action="store_true", help="Say what it would run, and how long that would take.")
    own.add_argument("--retry", action="store_true", help="Run again what failed before.")
    own.add_argument("--workers", type=int, default=1, help="Runs at a time, which share the cores out among them.")
    return own


def is_done(cell: Cell, record: Record | None, retry: bool) -> bool:
    """Whether there is nothing to run."""
    if record is None:
        return False
    if record.status == "failed":
        return not retry
    return record.test is not None or not cell.test


def estimate(
    there: dict[str, Record], cells: Sequence[Cell], missing: Sequence[Cell], seconds: dict[str, float], output: Path
) -> int:
    """Says what would run, and for how long.

    Returns:
        Exit status.
    """
    total = 0.0
    for cell in cells:
        record, epochs = there.get(cell.address), f"{cell.epochs} epochs"
        if record and cell not in missing:
            print(f"{record.status:7} {cell.folder!s:56} {epochs:>17}")
            continue
        done = epochs_done(cell, record, output)
        time = (cell.epochs - done) * seconds[cell.address]
        total += time
        words = f"{cell.epochs - done} of {epochs}" if done else epochs
        print(f"to do   {cell.folder!s:56} {words:>17} {duration(time):>9}")
    print(f"{len(missing)} of {len(cells)} runs to do: about {duration(total)}, by a short probe, one run at a time")
    return 0


def run(study: Study, missing: Sequence[Cell], seconds: dict[str, float], launcher: Launcher) -> int:
    """Runs cells, writes what comes of each, and then the report.

    Returns:
        Exit status.
    """
    stopped = []
    with Progress(missing, seconds) as progress, closing(launcher(missing, study.folder)) as events, _going_on():
        for event in events:
            if isinstance(event, Said):
                progress.said(*event)
                continue
            cell, status = event
            if status in STOPPED:
                stopped.append(cell)
                continue
            if status:
                store.write_record(study.folder / cell.folder, failure(cell, status, progress.errors, study.folder))
            study = replace(study, records=store.records(study.folder, study.plan))
            progress.ended(cell, study.records[cell.address])
            store.write_table(study)
    store.write_table(study)
    from cifar_lightning.report.render import write

    print(f"report: {write(study)}")
    failed = [record for record in study.records.values() if record.status == "failed"]
    for record in failed:
        print(f"error: {record.folder}: {record.reason} (--retry runs it again)", file=sys.stderr)
    for cell in stopped:
        print(f"error: {cell.folder}: it was stopped; start the study again", file=sys.stderr)
    return 1 if failed or stopped else 0


@contextmanager
def _going_on() -> Iterator[None]:
    """Says how to go on where the study is stopped."""
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as error:
        signum = signal.SIGTERM if isinstance(error, Interrupted) else signal.SIGINT
        raise Interrupted(signum, "the study was stopped", "the same command goes on with it") from None


def failure(cell: Cell, status: int, errors: dict[str, str], folder: Path) -> Record:
    """The record of a run that failed; with all that was known if it had been trained, and its test failed."""
    killed = f"killed by signal {-status}, for want of memory perhaps" if status < 0 else f"exit status {status}"
    reason = errors.get(cell.address, killed)
    known = store.everything(folder).get(cell.address)
    if known and len(known.rows) >= cell.epochs:
        return replace(known, status="failed", reason=reason)
    return Record(
        **cell.identity,
        status="failed",
        reason=reason,
        rows=metrics_csv.read(RunFolder(folder / cell.folder / VERSION).metrics),
    )
