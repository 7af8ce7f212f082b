"""`python -m cifar_lightning study`: make the runs that are missing, and write the report."""

import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from msgspec.structs import replace as changed

from cifar_lightning.errors import Interrupted, check
from cifar_lightning.results import store
from cifar_lightning.results.records import Plan, Record, Study
from cifar_lightning.runs import metrics_csv
from cifar_lightning.study import config
from cifar_lightning.study.executor import Executor, Local, Printed
from cifar_lightning.study.plan import Run, plan, show_links
from cifar_lightning.study.preflight import preflight
from cifar_lightning.study.progress import Progress, duration
from cifar_lightning.utils.one_line_parser import OneLineParser

# Exit statuses of a run that was stopped, not failed: Ctrl-C and SIGTERM, and these two before it had begun.
STOPPED = (130, 143, -2, -15)


def study(args: Sequence[str]) -> int:
    """Run a study.

    Args:
        args: What stands after `study`.

    Returns:
        Exit status: 1 if a run failed.
    """
    options = parser().parse_args(args)
    check(options.workers >= 1, "workers", options.workers, "1 or more")
    experiments, output = config.read(options.config), options.output
    with nullcontext() if options.dry_run else store.own(output):
        known = store.every_record(output)
        layout = plan(experiments, output, known.values())
        missing = [run for run in layout.runs if not _is_done(run, known.get(run.address), options.retry)]
        seconds = preflight(missing) if missing else {}
        if options.dry_run:
            return _estimate(layout.runs, known, missing, seconds)
        asked = Plan(command=shlex.join(["python", "-m", "cifar_lightning", "study", *args]), points=layout.points)
        store.write_plan(output, asked)
        show_links(layout, output)
        return _execute(store.read(output), missing, seconds, Local(options.workers))


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


def _is_done(run: Run, record: Record | None, retry: bool) -> bool:
    if record is None:
        return False
    if record.status == "failed":
        return not retry
    return record.test is not None or not run.test


def _estimate(
    runs: Sequence[Run], known: Mapping[str, Record], missing: Sequence[Run], seconds: Mapping[str, float]
) -> int:
    """Print what would run, and for how long."""
    total = 0.0
    for run in runs:
        record, epochs = known.get(run.address), f"{run.epochs} epochs"
        if record and run not in missing:
            print(f"{record.status:7} {run.folder!s:56} {epochs:>17}")
            continue
        done = min(run.epochs, max(len(metrics_csv.read(run.files.metrics)), len(record.rows) if record else 0))
        time = (run.epochs - done) * seconds[run.address]
        total += time
        left = f"{run.epochs - done} of {epochs}" if done else epochs
        print(f"to do   {run.folder!s:56} {left:>17} {duration(time):>9}")
    print(f"{len(missing)} of {len(runs)} runs to do: about {duration(total)}, by a short probe, one run at a time")
    return 0


def _execute(study: Study, missing: Sequence[Run], seconds: Mapping[str, float], executor: Executor) -> int:
    """Make the runs, write what comes of each, and then the report; return the exit status."""
    stopped = []
    with closing(Progress(missing, seconds)) as progress, closing(executor(missing)) as events, _resumable():
        for event in events:
            if isinstance(event, Printed):
                progress.printed(*event)
                continue
            run, status = event
            if status in STOPPED:
                stopped.append(run)
                continue
            if status:
                store.write_record(study.folder / run.folder, _failure(run, status, progress.errors))
            study = replace(study, records=store.records(study.folder, study.plan))
            progress.ended(run, study.records[run.address])
            store.write_table(study)
    store.write_table(study)
    from cifar_lightning.report.render import write  # here, because it takes a second to import

    print(f"report: {write(study)}")
    failed = [record for record in study.records.values() if record.status == "failed"]
    for record in failed:
        print(f"error: {record.folder}: {record.reason} (--retry runs it again)", file=sys.stderr)
    for run in stopped:
        print(f"error: {run.folder}: it was stopped; start the study again", file=sys.stderr)
    return 1 if failed or stopped else 0


@contextmanager
def _resumable() -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as error:
        signum = signal.SIGTERM if isinstance(error, Interrupted) else signal.SIGINT
        raise Interrupted(signum, "the study was stopped", "the same command resumes it") from None


def _failure(run: Run, status: int, errors: Mapping[str, str]) -> Record:
    """The record of a run that failed; with all that was known if it had been trained, and its test failed."""
    killed = f"killed by signal {-status}, for want of memory perhaps" if status < 0 else f"exit status {status}"
    reason = errors.get(run.address, killed)
    known = store.every_record(run.study).get(run.address)
    if known and len(known.rows) >= run.epochs:
        return changed(known, status="failed", reason=reason)
    return run.record(status="failed", reason=reason, rows=metrics_csv.read(run.files.metrics))
