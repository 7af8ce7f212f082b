"""How long a person waits before anything happens."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from cifar_lightning.benchmark.stopped import StoppedError


def startup(flags: list[str], times: int) -> dict[str, Any]:
    """Starts three programs, taking turns.

    Args:
        flags: What `fit` is given.
        times: How often each.

    Returns:
        Name to `seconds` of each start, and their `median`.
    """
    program = [sys.executable, "-m", "cifar_lightning"]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as logs:
        fit = [
            *program,
            "fit",
            *flags,
            f"--logs={logs}",
            "--trainer.callbacks+=cifar_lightning.benchmark.timing.FirstStep",
        ]
        starts: dict[str, Callable[[], float]] = {
            "import lightning": lambda: until_done([sys.executable, "-c", "import lightning"]),
            "--help": lambda: until_done([*program, "--help"]),
            "fit --help": lambda: until_done([*program, "fit", "--help"]),
            "fit, first step done": lambda: until_first_step(fit),
        }
        seconds: dict[str, list[float]] = {name: [] for name in starts}
        for _ in range(times):
            for name, run in starts.items():
                seconds[name].append(run())
    return {name: {"median": statistics.median(values), "seconds": values} for name, values in seconds.items()}


def until_done(command: list[str]) -> float:
    """Seconds from its start to its end."""
    started = time.perf_counter()
    status = subprocess.run(command, stdout=subprocess.DEVNULL, start_new_session=True).returncode
    if status:
        raise StoppedError(status)
    return time.perf_counter() - started


def until_first_step(command: list[str]) -> float:
    """Seconds from the start of a `fit` with `FirstStep` until that speaks."""
    started = time.perf_counter()
    # A session of its own: a Ctrl-C is for the benchmark, which then ends it.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout
        try:
            for line in process.stdout:
                if line.strip() == "step":
                    return time.perf_counter() - started
            process.wait()
        finally:
            process.kill()
    raise StoppedError(process.returncode or 1)
