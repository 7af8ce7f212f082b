"""`python -m cifar_lightning benchmark`: gives the turns and gathers what they took."""

import argparse
import contextlib
import json
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

from cifar_lightning.benchmark.tables import MEANINGS, summarize, table
from cifar_lightning.errors import InputError, Interrupted, RunError, check
from cifar_lightning.utils import files
from cifar_lightning.utils.environment import hardware, software
from cifar_lightning.utils.one_line_parser import OneLineParser

REPORT_MODELS = ("--model=MLP", "--model=CNN")  # their default arguments are the report's settings
PROGRAM = [sys.executable, "-m", "cifar_lightning.benchmark.training_loops"]


def benchmark(args: Sequence[str]) -> int:
    """Compare the variants, print a table per model, write a JSON file; return the exit status."""
    options, flags = _parse(args)
    named = any(flag.split("=")[0] in ("--config", "-c", "--model") for flag in flags)
    command = shlex.join(["python", "-m", "cifar_lightning", "benchmark", *args])
    results: dict[str, Any] = {"command": command, "hardware": hardware(), "software": software(), "models": []}
    try:
        for given in [flags] if named else [[model, *flags] for model in REPORT_MODELS]:
            results["models"].append(compare(given, options.rounds))
            print(f"\n{table(results['models'][-1])}\n", flush=True)
            files.replace(options.output, f"{json.dumps(results, indent=1)}\n".encode())
    except KeyboardInterrupt:
        kept = f"what was finished is in {options.output}" if results["models"] else "nothing is written"
        raise Interrupted(signal.SIGINT, kept, "--rounds 1 takes the least time") from None
    print(f"written to {options.output}")
    return 0


def _parse(args: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return this command's options and the flags for `fit`; raises an `InputError` before anything runs."""
    parser = OneLineParser(
        "python -m cifar_lightning benchmark",
        description="Time `fit` beside the loop that people write, a bare loop and the arithmetic alone, in turns.",
        epilog="Every other flag is for `fit`: --config configs/quick.yaml, --data.batch_size 10. Without --config and "
        "--model it is the MLP and the CNN of the report. What only a Trainer does (accumulate or clip gradients, "
        "leave batches out) only `fit` does here. On two CPU cores a round takes three to five minutes.",
        allow_abbrev=False,
    )
    parser.add_argument("--rounds", type=int, default=3, help="epochs of each variant, by turns; at least 1")
    parser.add_argument("--output", type=Path, default=Path("benchmark.json"), help="the JSON file to write")
    options, flags = parser.parse_known_args(args)
    check(options.rounds >= 1, "rounds", options.rounds, "1 or more")
    folder = options.output.absolute().parent
    writable = folder.is_dir() and os.access(folder, os.W_OK) and not options.output.is_dir()
    check(writable, "output", str(options.output), "a file in a folder that exists")
    if any(flag.split("=")[0] in ("--ckpt_path", "--resume") for flag in flags):
        raise InputError("ckpt_path", "a run that is resumed would be changed", "give its --config instead")
    return options, flags


def compare(flags: list[str], rounds: int) -> dict[str, Any]:
    """Let the variants take turns of one epoch, so that a machine that slows down slows all; see `tables.summarize`."""
    with contextlib.ExitStack() as stack:
        logs = stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-"))
        # One epoch more than rounds: its start is the end of the last.
        flags = [*flags, f"--logs={logs}", "--name=run", f"--trainer.max_epochs={rounds + 1}"]
        variants: dict[str, Variant] = {}
        setting: dict[str, Any] = {}
        for name in MEANINGS:  # one by one: the first refuses a setting for all, and no start-up slows an epoch
            _show_progress(f"starting {name}")
            variants[name] = stack.enter_context(Variant(name, flags))
            setting |= variants[name].answer()
        epochs: dict[str, list[Any]] = {name: [] for name in MEANINGS}
        for number in range(1, rounds + 1):
            for name in MEANINGS:
                _show_progress(f"{setting['model']} round {number}/{rounds}: {name}")
                epochs[name].append(variants[name].answer())
        _show_progress("")
        return summarize(setting, epochs)


def _show_progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:40}\r", end="", file=sys.stderr, flush=True)


class Variant(Popen[bytes]):
    """A process that trains in one of the variants: first it gets ready, then each turn is an epoch."""

    def __init__(self, name: str, flags: list[str]) -> None:
        self.name = name
        command = [*PROGRAM, name, *flags, *(arg for arg in sys.argv if arg == "--debug")]
        # A session of its own: a Ctrl-C is for this process alone, which then ends the others.
        super().__init__(command, stdin=PIPE, stdout=PIPE, bufsize=0, start_new_session=True)

    def __exit__(self, *error: Any) -> None:
        self.kill()
        self.wait()  # the folder of its run goes next
        super().__exit__(*error)

    def answer(self) -> Any:
        """Give it a turn and return what it sends; if it ends instead, having printed why, end with its status."""
        assert self.stdin
        assert self.stdout
        with contextlib.suppress(BrokenPipeError):  # it has ended: the status below tells how
            self.stdin.write(b"\n")
        if line := self.stdout.readline():
            return json.loads(line)
        status = self.wait()
        if status < 0:
            cause = f"ended by signal {-status}, perhaps for lack of memory"
            raise RunError(self.name, cause, "try a smaller --data.batch_size")
        if status == 0:
            cause = "these settings end `fit` before its epochs are over"
            raise InputError("trainer", cause, "leave out fast_dev_run, max_steps and max_time")
        raise SystemExit(status)
