"""Has cells run: here in processes of this machine, in turn. Another launcher may send them elsewhere."""

import io
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from cifar_lightning.study.cells import Cell


class Said(NamedTuple):
    """A line that a cell printed."""

    cell: Cell
    line: str


class Ended(NamedTuple):
    """A cell's end: the exit status, negative for the signal that it died of."""

    cell: Cell
    status: int


Events = Generator[Said | Ended, None, None]


class Launcher(Protocol):
    """Runs cells, in whatever order and wherever: `worker.perform` of each, with the study's folder in reach."""

    def __call__(self, cells: Sequence[Cell], study: Path) -> Events:
        """Yields what the cells say, and each one's end. Closing it stops those that run; they can go on later."""
        ...


@dataclass
class Local:
    """Processes of this machine, forked from one that has imported everything, so that none pays the start-up.

    Args:
        workers: How many at a time; the cores are shared out among them.
    """

    workers: int = 1

    def __call__(self, cells: Sequence[Cell], study: Path) -> Events:
        """As `Launcher`."""
        waiting, running = list(reversed(cells)), dict[Connection, _Child]()
        try:
            while waiting or running:
                while waiting and len(running) < self.workers:
                    child = _Child(waiting.pop(), study, self._threads())
                    running[child.output] = child
                for output in wait(list(running)):
                    assert isinstance(output, Connection)
                    child = running[output]
                    yield from child.lines()
                    if child.status is not None:
                        del running[output]
                        yield Ended(child.cell, child.status)
        finally:
            stop(list(running.values()))

    def _threads(self) -> int | None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        chosen = self.workers == 1 or "OMP_NUM_THREADS" in os.environ
        return None if chosen else max(1, cores // self.workers)


def context() -> Any:
    """Where processes come from: on Linux a server that imports once and forks.

    Elsewhere each imports for itself: Apple's libraries do not survive a fork.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload(["cifar_lightning.study.worker"])
    # Ctrl-C goes to the server, too, which for some seconds imports and would end with a traceback.
    resource_tracker.ensure_running()  # first, because it unblocks signals when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return start


def begin(target: Any, *args: Any) -> Any:
    """Starts a process that does not hear Ctrl-C: that is for this one, which ends the others."""
    process = context().Process(target=_begin, args=(str(Path.cwd()), dict(os.environ), target, *args))
    process.start()
    return process


def stop(children: Sequence["_Child"]) -> None:
    """Has processes save and end; a second Ctrl-C meanwhile kills them."""
    if children:
        print("stopping: what runs saves first (again: at once)", file=sys.stderr)
    try:
        for child in children:
            child.process.terminate()
        for child in children:
            while child.status is None:  # what it says must be read, or it would wait to say it
                list(child.lines())
    finally:
        for child in children:
            child.process.kill()
            child.process.join()


class _Child:
    """The process of a cell.

    Args:
        cell: What it does.
        study: The study's folder.
        threads: That it computes with; None is as many as a `fit` alone would take.
    """

    def __init__(self, cell: Cell, study: Path, threads: int | None) -> None:
        self.cell, self._rest = cell, b""
        self.status: int | None = None
        self.output, there = context().Pipe(duplex=False)
        self.process = begin(_live, (self.output, there), threads, cell, study)
        there.close()

    def lines(self) -> Iterator[Said]:
        """The whole lines that have come; once there will be no more, the status is set."""
        data = os.read(self.output.fileno(), 65536)
        *whole, self._rest = (self._rest + data).split(b"\n")
        if not data:
            self.process.join()
            self.status = self.process.exitcode
            whole.append(self._rest)
        yield from (Said(self.cell, line.decode(errors="replace")) for line in whole if line.strip())


def _begin(folder: str, environment: dict[str, str], target: Any, *args: Any) -> None:
    # The server is older than what its children are started for.
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, daemon=True).start()
    target(*args)


def _follow() -> None:
    """Ends this process, in order, when the one that started it is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _live(pipe: tuple[Connection, Connection], threads: int | None, cell: Cell, study: Path) -> None:
    import torch

    from cifar_lightning.study.worker import perform

    # The end that is read from stays open here, too: if its reader is killed, what is printed on the way to an orderly
    # end must not fail.
    _, output = pipe
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    output.close()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a pipe would get it in blocks
    if threads:
        torch.set_num_threads(threads)
    sys.exit(perform(cell, study))
