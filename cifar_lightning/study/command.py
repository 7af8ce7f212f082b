"""`python -m cifar_lightning study`: make the runs that are missing, and write the report."""

import os
import shlex
import signal
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path

from msgspec.structs import replace

from cifar_lightning.errors import InputError, Interrupted, check
from cifar_lightning.results import store
from cifar_lightning.results.records import Plan, Record
from cifar_lightning.runs import metrics_csv
from cifar_lightning.study import config
from cifar_lightning.study.executor import Executor, Local
from cifar_lightning.study.plan import Run, is_missing, plan, show_links
from cifar_lightning.study.preflight import Seconds, preflight
from cifar_lightning.study.progress import Progress, epochs_left
from cifar_lightning.utils.duration import duration
from cifar_lightning.utils.one_line_parser import OneLineParser

# Exit statuses of a run that was stopped, not failed: Ctrl-C and SIGTERM, and these two before it had begun.
STOPPED = (130, 143, -2, -15)


def study(args: Sequence[str]) -> int:
    """Run a study, given what stands after `study`; return the exit status: 1 if a run failed.

    A signal that a SLURM job's time is over requeues the job once all runs are saved.
    """
    try:
        return _study(args)
    except Interrupted as stopped:
        if stopped.signum == getattr(signal, "SIGUSR1", None):
            from cifar_lightning.runs import slurm  # imports Lightning, which takes seconds

            slurm.requeue()
        raise


def _study(args: Sequence[str]) -> int:
    options = parser().parse_args(args)
    execute = _executor(options)
    experiments, output = config.read(options.config), options.output
    with nullcontext() if options.dry_run else store.own(output):
        known = store.every_record(output)
        layout = plan(experiments, output, known.values())
        missing = [run for run in layout.runs if is_missing(run, known.get(run.address), options.retry)]
        seconds = preflight(missing)
        if options.dry_run:
            return _estimate(layout.runs, known, seconds)
        command = shlex.join(["python", "-m", "cifar_lightning", "study", *args])
        store.write(output, Plan(command=command, points=layout.points))
        show_links(layout, output)
        return _execute(output, missing, seconds, execute)


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
    own.add_argument("--launcher", choices=("local", "ray"), default="local", help="Processes here, or tasks on Ray.")
    own.add_argument("--workers", type=int, help="Local: runs at a time (1), which share the cores out among them.")
    own.add_argument("--address", help="Ray: HOST:PORT of a cluster; auto: the one here; local: this machine alone.")
    own.add_argument("--cpus-per-run", type=int, help="Ray: cores of each run (1).")
    own.add_argument("--gpus-per-run", type=float, help="Ray: GPUs of each run (0); runs share one by fractions.")
    return own


def _executor(options: Namespace) -> Executor:
    """Return what executes the runs; raise an `InputError` for a value out of range or a flag of the other one."""
    for launcher, names in {"local": ["workers"], "ray": ["address", "cpus_per_run", "gpus_per_run"]}.items():
        for name in names:
            value, fits = getattr(options, name), launcher == options.launcher
            check(fits or value is None, name.replace("_", "-"), value, f"it with --launcher {launcher}")
    if options.launcher == "local":
        workers = 1 if options.workers is None else options.workers
        check(workers >= 1, "workers", workers, "1 or more")
        return Local(workers)
    cpus, gpus = (1 if options.cpus_per_run is None else options.cpus_per_run), options.gpus_per_run or 0.0
    check(cpus >= 1, "cpus-per-run", cpus, "1 or more")
    check(0 <= gpus <= 1 or (gpus > 1 and gpus.is_integer()), "gpus-per-run", gpus, "a fraction, or a whole number")
    # Read when Ray is imported: it would print a page about every node and worker that dies.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")
    try:
        from cifar_lightning.study.ray_executor import Ray
    except ModuleNotFoundError:
        raise InputError("launcher", "Ray is not installed", "pip install -e '.[ray]'") from None
    return Ray(options.address, cpus, gpus)


def _estimate(runs: Sequence[Run], known: Mapping[str, Record], seconds: Mapping[str, Seconds]) -> int:
    """Print what would run, and for how long: what is missing is in `seconds`, by address."""
    total = 0.0
    for run in runs:
        epochs = f"{run.epochs} epochs"
        if run.address in seconds:
            left, takes = epochs_left(run), seconds[run.address]
            total += (time := left * takes.per_epoch + takes.outside)
            epochs = epochs if left == run.epochs else f"{left} of {epochs}"
            print(f"to do   {run.folder!s:56} {epochs:>17} {duration(time):>10}")
        else:
            print(f"{known[run.address].status:7} {run.folder!s:56} {epochs:>17}")
    about = f": about {duration(total)}, by a short probe, one run at a time" if seconds else ""
    print(f"{len(seconds)} of {len(runs)} runs to do{about}")
    return 0


def _execute(output: Path, missing: Sequence[Run], seconds: Mapping[str, Seconds], executor: Executor) -> int:
    """Make the runs, write what comes of each, and then the report; return the exit status."""
    stopped = []
    try:
        with closing(Progress(missing, seconds)) as progress, closing(executor(missing)) as events:
            for run, event in events:
                if isinstance(event, str):
                    progress.printed(run, event)
                elif event in STOPPED:
                    stopped.append(run)
                    progress.ended(run, None)
                else:
                    if event:
                        store.write(output / run.folder, _failure(run, event, progress.errors.get(run.address)))
                    made = store.read(output)
                    progress.ended(run, made.records[run.address])
                    store.write_table(made)
    except (KeyboardInterrupt, Interrupted) as error:
        signum = error.signum if isinstance(error, Interrupted) else signal.SIGINT
        raise Interrupted(signum, "the study was stopped", "the same command resumes it") from None
    store.write_table(made := store.read(output))
    from cifar_lightning.report import render  # here, because it takes a second to import

    report = render.write(made)
    for finding in render.findings(made):
        print(f"- {finding}")
    print(f"report: {report}")
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
