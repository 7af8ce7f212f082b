"""Execute runs: here in processes of this machine. Another executor may send them elsewhere."""

import io
import os
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol

from cifar_lightning.study.plan import Run
from cifar_lightning.study.processes import Pipe, begin
from cifar_lightning.utils.environment import hardware

Event = tuple[Run, str | int]  # a line that a run printed, or its end: the exit status, -9 if it died of signal 9
Events = Generator[Event, None, None]


class Executor(Protocol):
    """Executes runs in whatever order and wherever: `worker.execute` of each, with the study's folder in reach."""

    def __call__(self, runs: Sequence[Run]) -> Events:
        """Yield what the runs print, and each one's end. Closing it stops them; they can be resumed later."""
        ...


@dataclass
class Local:
    """Processes of this machine, `workers` at a time, which share the cores out among them."""

    workers: int = 1

    def __call__(self, runs: Sequence[Run]) -> Events:
        waiting, running, events = list(runs), dict[str, Any](), SimpleQueue[Event]()
        # None is as many as a `fit` alone would take.
        chosen = self.workers == 1 or "OMP_NUM_THREADS" in os.environ
        threads = None if chosen else max(1, int(hardware()["cores"]) // self.workers)
        try:
            while waiting or running:
                while waiting and len(running) < self.workers:
                    run = waiting.pop(0)
                    running[run.address], output = begin(_execute, threads, run)
                    Thread(target=_forward, args=(run, running[run.address], output, events), daemon=True).start()
                run, event = events.get()
                if isinstance(event, int):
                    del running[run.address]
                yield run, event
        finally:
            if running:
                print("stopping: what runs saves first (again: at once)", file=sys.stderr)
            try:
                for process in running.values():
                    process.terminate()
                for process in running.values():
                    process.join()
            finally:  # a second Ctrl-C meanwhile
                for process in running.values():
                    process.kill()
                    process.join()


def _forward(run: Run, process: Any, output: Connection, events: SimpleQueue[Event]) -> None:
    with os.fdopen(output.fileno(), errors="replace", newline="\n", closefd=False) as lines:
        for line in filter(str.strip, lines):
            events.put((run, line.rstrip("\n")))
    process.join()
    events.put((run, process.exitcode))


def _execute(pipe: Pipe, threads: int | None, run: Run) -> None:
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
