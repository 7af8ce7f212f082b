"""`python -m cifar_lightning benchmark`: gives the variants their turns and gathers what they took."""

import contextlib
import itertools
import json
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from subprocess import PIPE, Popen
from typing import Any

from cifar_lightning.errors import InputError, Interrupted, RunError, check
from cifar_lightning.utils import files
from cifar_lightning.utils.environment import hardware, software
from cifar_lightning.utils.one_line_parser import OneLineParser

MEANINGS = {  # in the order in which they take turns
    "baseline": "the loop people write",
    "fit": "everything included",
    "bare loop": "without the Trainer",
    "limit": "convolutions and matrix products alone",
}
RATIOS = (("baseline", "fit"), ("fit", "bare loop"), ("fit", "limit"))
ROW = "| {:<13} | {:>8} | {:>17} | {:>8} | {:>12} | {:<38} |"
RULE = ROW.replace("{:>", "{:->").format("-" * 13, *":" * 4, "-" * 38)
REPORT_MODELS = ("--model=MLP", "--model=CNN")  # their default arguments are the report's settings
PROGRAM = [sys.executable, "-m", "cifar_lightning.benchmark.training_loops"]


def benchmark(args: Sequence[str]) -> int:
    """Compare the variants, print a table per model, write a JSON file; return the exit status."""
    parser = OneLineParser(
        "python -m cifar_lightning benchmark",
        description="Time `fit` beside the loop that people write, a bare loop and the arithmetic alone, in turns.",
        epilog="Other flags are for `fit`; without --config and --model it is the report's MLP and CNN. Only `fit` "
        "clips or accumulates gradients or leaves batches out. On two CPU cores a round takes three to five minutes.",
        allow_abbrev=False,
    )
    parser.add_argument("--rounds", type=int, default=3, help="epochs of each variant, by turns; at least 1")
    parser.add_argument("--busy", type=int, default=0, help="measure beside this number of busy programs, too")
    parser.add_argument("--output", type=Path, default=Path("benchmark.json"), help="the JSON file to write")
    options, flags = parser.parse_known_args(args)
    given = {flag.partition("=")[0] for flag in flags}
    check(options.rounds >= 1, "rounds", options.rounds, "1 or more")
    check(options.busy >= 0, "busy", options.busy, "0 or more")
    writable = os.access(f"{options.output.parent}/.", os.W_OK) and not options.output.is_dir()
    check(writable, "output", str(options.output), "a file in a folder that exists")
    if given & {"--ckpt_path", "--resume"}:
        raise InputError("ckpt_path", "a run that is resumed would be changed", "give its --config instead")
    models = [flags] if given & {"--config", "-c", "--model"} else [[model, *flags] for model in REPORT_MODELS]
    from cifar_lightning.cli.dry_run import DryRun  # imports Lightning, which takes seconds
    from cifar_lightning.cli.quiet import be_quiet

    be_quiet()
    with tempfile.TemporaryDirectory() as logs:
        for model in models:  # what `fit` refuses of one is not found out after minutes of measuring another
            processes = DryRun(["fit", *model, f"--logs={logs}"]).trainer.world_size
            check(processes == 1, "trainer.devices", processes, "1: what `fit` is compared with has one process")
    command = shlex.join(["python", "-m", "cifar_lightning", "benchmark", *args])
    results: dict[str, Any] = {"command": command, "hardware": hardware(), "software": software(), "models": []}
    try:
        for model in models:
            found = compare(model, options.rounds, options.busy)
            results["models"] += found
            print("", *map(table, found), sep="\n", end="\n\n", flush=True)
            files.replace(options.output, f"{json.dumps(results, indent=1)}\n".encode())
    except KeyboardInterrupt:
        kept = f"what was finished is in {options.output}" if results["models"] else "nothing is written"
        raise Interrupted(signal.SIGINT, kept, "--rounds 1 takes the least time") from None
    print(f"written to {options.output}")
    return 0


def compare(flags: list[str], rounds: int, busy: int = 0) -> list[dict[str, Any]]:
    """Let the variants take turns of one epoch, so that a machine that slows down slows all; see `summarize`.

    With `busy` each round is one of this machine as it is, and then one beside so many programs that compute.
    """
    loads = [0, busy] if busy else [0]
    answers: dict[int, dict[str, list[Any]]] = {load: {name: [] for name in MEANINGS} for load in loads}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as logs, contextlib.ExitStack() as stack:
        # One epoch more than rounds: its start is the end of the last.
        flags = [*flags, f"--logs={logs}", "--name=run", f"--trainer.max_epochs={rounds * len(loads) + 1}"]
        # One by one: what is wrong with the data is printed once, and no start-up slows an epoch.
        variants, settings = dict[str, "Popen[bytes]"](), dict[str, Any]()
        for name in MEANINGS:
            variants[name] = start(name, flags, stack)
            settings[name] = ask(name, variants[name], "start")
        for number, load in itertools.product(range(1, rounds + 1), loads):
            with busy_programs(load):
                for name in MEANINGS:
                    answers[load][name].append(ask(name, variants[name], f"round {number}/{rounds}"))
        return [summarize(settings["bare loop"], epochs, load) for load, epochs in answers.items()]


@contextlib.contextmanager
def busy_programs(number: int) -> Iterator[None]:
    """Have so many programs compute, each as much as one core can."""
    with contextlib.ExitStack() as stack:
        for _ in range(number):
            program = Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
            stack.enter_context(program)
            stack.callback(program.kill)
        yield


def start(name: str, flags: Sequence[str], stack: contextlib.ExitStack) -> "Popen[bytes]":
    """Start the process of a variant, which ends with the stack."""
    command = [*PROGRAM, name, *flags, *{"--debug"}.intersection(sys.argv)]
    environment = {**os.environ}
    if name == "baseline":
        environment.pop("GOMP_SPINCOUNT", None)
    # A session of its own: a Ctrl-C is for this process alone, which then ends the others.
    process = Popen(command, stdin=PIPE, stdout=PIPE, bufsize=0, start_new_session=True, env=environment)
    stack.enter_context(process)
    stack.callback(process.wait)  # the folder of its run goes next
    stack.callback(process.kill)
    return process


def ask(name: str, process: "Popen[bytes]", progress: str) -> Any:
    """Return a variant's answer to the next line."""
    if sys.stderr.isatty():
        print(f"\r{progress}: {name:20}\r", end="", file=sys.stderr, flush=True)
    assert process.stdin
    assert process.stdout
    with contextlib.suppress(BrokenPipeError):  # it has ended: the status below tells how
        process.stdin.write(b"\n")
    if line := process.stdout.readline():
        return json.loads(line)
    if (status := process.wait()) > 0:
        raise SystemExit(status)  # it has printed why
    if status < 0:
        cause = f"ended by signal {-status}, perhaps for lack of memory"
        raise RunError(name, cause, "try a smaller --data.batch_size")
    cause = "these settings end `fit` before its epochs are over"
    raise InputError("trainer", cause, "leave out fast_dev_run, max_steps and max_time")


def summarize(setting: dict[str, Any], epochs: dict[str, list[dict[str, Any]]], busy: int = 0) -> dict[str, Any]:
    """Return medians and ranges of what each variant sent, round by round (`training_loops.timed_epochs`)."""
    ms = {name: [1000 * epoch["seconds"] / epoch["steps"] for epoch in sent] for name, sent in epochs.items()}
    # By pair: both sides of a ratio met the same load of the machine.
    ratios = {f"{a}/{b}": [x / y for x, y in zip(ms[a], ms[b], strict=True)] for a, b in RATIOS}
    spreads = {name: {"median": median(x), "range": [min(x), max(x)]} for name, x in (ms | ratios).items()}
    variants = {}
    for name, sent in epochs.items():
        full = sent[-1]["steps"] * setting["batch_size"]  # the last batch of an epoch may be smaller
        images = full if name == "limit" else min(full, setting["train_images"])
        variants[name] = {
            **sent[-1],  # with the peak of all rounds
            "seconds": [epoch["seconds"] for epoch in sent],
            "ms_per_step": spreads[name],
            "images_per_second": median(images / epoch["seconds"] for epoch in sent),
        }
    return {"setting": setting, "busy": busy, "variants": variants, "ratios": {name: spreads[name] for name in ratios}}


def table(result: dict[str, Any]) -> str:
    """Return what `summarize` does as Markdown that reads well as it is."""
    variants, ratios, fit = result["variants"], result["ratios"], result["variants"]["fit"]
    title = (
        "{model}, batch {batch_size}, {steps} steps per epoch, {device} (threads: {threads}), {precision}, {source}, "
        "median and range of {rounds}"
    ).format(**result["setting"], steps=fit["steps"], rounds=len(fit["seconds"]))
    if result["busy"]:
        title += f", beside {result['busy']} busy"
    key, memory = ("peak_mib", "peak MiB") if fit["peak_device_mib"] is None else ("peak_device_mib", "peak GPU MiB")
    lines = [title, "", ROW.format("", "ms/step", "range", "images/s", memory, ""), RULE]
    for name, spread in ({name: each["ms_per_step"] for name, each in variants.items()} | ratios).items():
        middle, low, high = (f"{x:.{2 if name in ratios else 1}f}" for x in (spread["median"], *spread["range"]))
        row = [name, middle, f"{low} - {high}", "", "", ""]
        if name in variants:
            images, peak = variants[name]["images_per_second"], variants[name][key]
            row[3:] = [f"{images:,.0f}", "" if peak is None else f"{peak:,}", MEANINGS[name]]
        lines.append(ROW.format(*row))
    return "\n".join(lines)
