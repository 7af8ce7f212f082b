"""Execute runs: here in processes of this machine. Another executor may send them elsewhere."""

import io
import os
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import NamedTuple, Protocol, cast

from cifar_lightning.study.plan import Run
from cifar_lightning.study.processes import begin, context


class Printed(NamedTuple):
    """A line that a run printed."""

    run: Run
    line: str


class Ended(NamedTuple):
    """A run's end: the exit status, negative for the signal that it died of."""

    run: Run
    status: int


Events = Generator[Printed | Ended, None, None]


class Executor(Protocol):
    """Executes runs in whatever order and wherever: `worker.execute` of each, with the study's folder in reach."""

    def __call__(self, runs: Sequence[Run]) -> Events:
        """Yield what the runs print, and each one's end. Closing it stops them; they can be resumed later."""
        ...


@dataclass
class Local:
    """Processes of this machine, forked from one that has imported everything, so that none pays the start-up.

    Args:
        workers: How many at a time; the cores are shared out among them.
    """

    workers: int = 1

    def __call__(self, runs: Sequence[Run]) -> Events:
        """As `Executor`."""
        waiting, running = list(reversed(runs)), dict[Connection, _Child]()
        try:
            while waiting or running:
                while waiting and len(running) < self.workers:
                    child = _Child(waiting.pop(), self._threads())
                    running[child.output] = child
                for output in cast(list[Connection], wait(list(running))):
                    child = running[output]
                    yield from child.lines()
                    if child.status is not None:
                        del running[output]
                        yield Ended(child.run, child.status)
        finally:
            _stop(list(running.values()))

    def _threads(self) -> int | None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        chosen = self.workers == 1 or "OMP_NUM_THREADS" in os.environ
        return None if chosen else max(1, cores // self.workers)


class _Child:
    """The process of a run, which computes with so many threads; None is as many as a `fit` alone would take."""

    def __init__(self, run: Run, threads: int | None) -> None:
        self.run, self._rest = run, b""
        self.status: int | None = None
        self.output, there = context().Pipe(duplex=False)
        self.process = begin(_execute, (self.output, there), threads, run)
        there.close()

    def lines(self) -> Iterator[Printed]:
        """Yield the whole lines that have come; once there will be no more, the status is set."""
        data = os.read(self.output.fileno(), 65536)
        *whole, self._rest = (self._rest + data).split(b"\n")
        if not data:
            self.process.join()
            self.status = self.process.exitcode
            whole.append(self._rest)
        yield from (Printed(self.run, line.decode(errors="replace")) for line in whole if line.strip())


def _execute(pipe: tuple[Connection, Connection], threads: int | None, run: Run) -> None:
    import torch

    from cifar_lightning.study.worker import execute

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
    sys.exit(execute(run))


def _stop(children: Sequence[_Child]) -> None:
    """Have processes save and end; a second Ctrl-C meanwhile kills them."""
    if children:
        print("stopping: what runs saves first (again: at once)", file=sys.stderr)
    try:
        for child in children:
            child.process.terminate()
        for child in children:
            while child.status is None:  # what it prints must be read, or it would wait to print it
                list(child.lines())
    finally:
        for child in children:
            child.process.kill()
            child.process.join()
