"""Commands in processes of their own, to be limited or killed: forked from a server that has imported everything."""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver, get_context, set_start_method
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

CONTEXT = get_context("forkserver")

# Called in the new process before the command; it is pickled, so it is a function of a module or a `partial` of one.
Before = Callable[[], object]


def nothing() -> None:
    """A process of its own is all that is wanted."""


@dataclass
class Child:
    """A command that runs."""

    process: ForkServerProcess
    output: Path

    @property
    def pid(self) -> int:
        assert self.process.pid
        return self.process.pid

    def run(self) -> tuple[int, str]:
        """Wait for its exit status, negative for the signal that killed it, and its output."""
        self.process.join()
        assert self.process.exitcode is not None
        return self.process.exitcode, self.output.read_text()

    def wait_for(self, path: Path) -> None:
        """Wait until it has written a file."""
        give_up = time.monotonic() + 60
        while not path.exists():
            assert time.monotonic() < give_up, self.output.read_text()
            time.sleep(0.01)


def start(folder: Path, args: Sequence[str], before: Before = nothing) -> Child:
    """Start a command of this program in a folder; its output goes to a text file beside that."""
    _ensure_server()
    output = folder.with_name(f"{folder.name}.txt")
    output.touch()  # the child may be killed before it prints anything
    process = CONTEXT.Process(target=_live, args=(folder, list(args), before, output))
    process.start()
    return Child(process, output)


def _ensure_server() -> None:
    """Start what the commands are forked from, unless it runs already; it ends with this process."""
    if sys.platform != "linux":
        pytest.skip("forks a process that has PyTorch loaded, which other systems mind")
    CONTEXT.set_forkserver_preload(["tests.faults.preloaded"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        patch.setenv("PYTHONWARNINGS", "default")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.delenv("CIFAR10_ROOT", raising=False)
        forkserver.ensure_running()


def _live(folder: Path, args: list[str], before: Before, output: Path) -> None:
    from cifar_lightning.__main__ import main

    set_start_method(None, force=True)  # of the command's own workers: as if a shell had started it
    descriptor = os.open(output, os.O_WRONLY | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    # Whoever runs the tests may have them ignored, a shell in the background for instance; here they are to work.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(folder)
    status = 99
    try:
        before()
        status = main(args)
    except KeyboardInterrupt:  # before the command began
        status = 130
    except SystemExit as stop:
        status = int(stop.code or 0)
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)
