"""`python -m cifar_lightning benchmark`: gives the turns, and gathers what comes of them."""

import argparse
import contextlib
import json
import multiprocessing
import os
import shlex
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cifar_lightning.benchmark.startup import startup
from cifar_lightning.benchmark.stopped import StoppedError
from cifar_lightning.benchmark.table import startup_table, summary, table
from cifar_lightning.errors import InputError
from cifar_lightning.utils.environment import hardware, software

REPORT = (["--model=MLP"], ["--model=CNN"])  # their default arguments are the report's settings
PATIENCE_SECONDS = 10
ORDER = ("plain", "ours", "loop", "limit")


def benchmark(args: Sequence[str]) -> int:
    """Compares, prints a table, writes a file.

    Args:
        args: What stands after `benchmark`.

    Returns:
        Exit status.
    """
    options, flags = parser().parse_known_args(args)
    check(options, flags)
    named = any(flag.split("=")[0] in ("--config", "-c", "--model") for flag in flags)
    results: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "cifar_lightning", "benchmark", *args]),
        "hardware": hardware(),
        "software": software(),
        "models": [],
    }
    try:
        for setting in [flags] if named else [[*model, *flags] for model in REPORT]:
            results["models"].append(compare(setting, options.rounds))
            print(table(results["models"][-1]), flush=True)
            save(results, options.output)
        if options.starts:
            results["startup"] = startup(flags if named else [*REPORT[-1], *flags], options.starts)
            print(startup_table(results["startup"]), flush=True)
            save(results, options.output)
    except StoppedError as stop:
        return int(stop.args[0])
    except KeyboardInterrupt:
        kept = f"what was finished is in {options.output}" if results["models"] else "nothing is written"
        print(f"error: interrupted: {kept}; fewer turns are --rounds 1", file=sys.stderr)
        return 130
    print(f"written to {options.output}")
    return 0


def save(results: dict[str, Any], output: Path) -> None:
    """Writes what there is so far; what was in the file stays until the new is whole."""
    whole = output.with_name(f".{output.name}.tmp")
    try:
        whole.write_text(json.dumps(results, indent=1) + "\n")
        whole.replace(output)
    except OSError as error:
        whole.unlink(missing_ok=True)
        raise InputError("output", f"{output} can't be written ({error.strerror})", "name another file") from None


def parser() -> argparse.ArgumentParser:
    """The command's own flags; all others are for `fit`."""
    own = argparse.ArgumentParser(
        "python -m cifar_lightning benchmark",
        description="Times `fit` beside the loop that people write, a bare loop, and the arithmetic alone, in turns.",
        epilog="Every other flag is for `fit`: --config configs/quick.yaml, --data.batch_size 10. Without --config and "
        "--model it is the MLP and the CNN of the report. What only a Trainer does (accumulate or clip gradients, "
        "leave batches out) only `fit` does here. On two CPU cores a round takes three to five minutes.",
        allow_abbrev=False,
        exit_on_error=False,
    )
    own.add_argument("--rounds", type=int, default=3, help="Turns that each way gets, of one epoch; at least 1.")
    own.add_argument("--starts", type=int, default=3, help="How often start-up is timed; 0 leaves it out.")
    own.add_argument("--output", type=Path, default=Path("benchmark.json"), help="Where the figures go.")
    return own


def check(options: argparse.Namespace, flags: list[str]) -> None:
    """Raises an `InputError` before anything is run for nothing."""
    if options.rounds < 1:
        raise InputError("rounds", f"{options.rounds}", "use 1 or more")
    if options.starts < 0:
        raise InputError("starts", f"{options.starts}", "use 0 or more")
    folder = options.output.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK) or options.output.is_dir():
        raise InputError("output", f"{options.output} can't be written", "name a file in a folder that exists")
    if any(flag.split("=")[0] == "--ckpt_path" for flag in flags):
        raise InputError("ckpt_path", "a run that goes on would be changed by it", "give its --config instead")


def compare(flags: list[str], rounds: int) -> dict[str, Any]:
    """Has the four ways take turns, so that a machine that slows down slows all of them.

    Args:
        flags: What `fit` is given.
        rounds: Turns for each.

    Returns:
        See `table.summary`.
    """
    with ExitStack() as stack:
        logs = stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-"))
        flags = [*flags, f"--logs={logs}", "--name=run", f"--trainer.max_epochs={rounds + 1}"]
        ways = {"loop": stack.enter_context(Way("loop", flags))}  # the first to refuse a setting
        setting: dict[str, Any] = ways["loop"].answer()
        ways |= {name: stack.enter_context(Way(name, flags)) for name in ORDER if name not in ways}
        turns: dict[str, list[Any]] = {name: [] for name in ORDER}
        for number in range(1, rounds + 1):
            for name in ORDER:
                progress(f"{setting['model']} round {number}/{rounds}: {name}")
                turns[name].append(ways[name].turn())
        progress("")
        return summary(setting, turns)


def progress(words: str) -> None:
    """Says what is going on, in one line that the next overwrites; nothing where nobody looks."""
    if sys.stderr.isatty():
        print(f"\r{words:40}\r", end="", file=sys.stderr, flush=True)


class Way:
    """A process that trains in one of the ways, a turn at a time."""

    def __init__(self, name: str, flags: list[str]) -> None:
        # spawn: each begins as a fresh program does, without what this process has imported or set.
        context = multiprocessing.get_context("spawn")
        self.connection, there = context.Pipe()
        self.name, self.process = name, context.Process(target=_start, args=(name, there, flags))
        # A Ctrl-C reaches every process of a terminal: it is for this one, which ends the others.
        here = signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.process.start()
        signal.signal(signal.SIGINT, here)
        there.close()

    def __enter__(self) -> "Way":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.connection.close()  # which ends it, unless it is in the middle of something
        self.process.join(timeout=0 if kind else PATIENCE_SECONDS)
        self.process.kill()
        self.process.join()

    def turn(self) -> Any:
        """Gives it a turn and waits for the end of it."""
        with contextlib.suppress(OSError):  # it has ended: `answer` says how
            self.connection.send("go")
        return self.answer()

    def answer(self) -> Any:
        """What it sends next; raises `StoppedError` if it has ended instead."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
        status = self.process.exitcode or 0
        if status < 0:
            cause = f"ended by signal {-status}, for want of memory perhaps"
            print(f"error: {self.name}: {cause}; try a smaller --data.batch_size", file=sys.stderr)
            raise StoppedError(1)
        if status == 0:
            cause = "these settings end `fit` before its epochs are over"
            raise InputError("trainer", cause, "leave out fast_dev_run, max_steps and max_time")
        raise StoppedError(status)


def _start(name: str, connection: Connection, flags: list[str]) -> None:
    """Where the process of a way begins; only there is PyTorch imported."""
    from cifar_lightning.benchmark.training_loops import start
    from cifar_lightning.cli.app import report_error

    try:
        start(name, connection, flags)
    except Exception as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        sys.exit(report_error(error))
