"""Execute runs: here in processes of this machine, by ray_executor.py on others, too.

On Linux a process is forked from one that has imported everything, so that none pays the start-up. The study's own
imports neither PyTorch nor Lightning: Ctrl-C ends it at once, and would break their import.
"""

import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import RLock, Thread
from typing import TYPE_CHECKING, Any, Protocol

from tqdm import tqdm

from cifar_lightning.errors import InputError
from cifar_lightning.utils.environment import hardware

if TYPE_CHECKING:  # plan.py has its settings read by a process of this module
    from cifar_lightning.study.plan import Run

Event = tuple["Run", str | int]  # a line that a run printed, or its end: the exit status, -9 if it died of signal 9
Events = Generator[Event, None, None]

tqdm.set_lock(RLock())  # its own is a semaphore of multiprocessing, which complains of it after a process is killed


class Executor(Protocol):
    """Executes runs in whatever order and wherever: `worker.execute` of each, with the study's folder in reach."""

    def __call__(self, runs: Sequence["Run"]) -> Events:
        """Yield what the runs print, and each one's end. Closing it stops them; they can be resumed later."""
        ...


@dataclass
class Local:
    """Processes of this machine, `workers` at a time, which share the cores out among them."""

    workers: int = 1
    own_session: bool = False  # of each run, which a signal to the group of this process does not reach then

    def __call__(self, runs: Sequence["Run"]) -> Events:
        waiting, running, events = list(runs), dict[str, Any](), SimpleQueue[Event]()
        # None is as many as a `fit` alone would take.
        chosen = self.workers == 1 or "OMP_NUM_THREADS" in os.environ
        threads = None if chosen else max(1, int(hardware()["cores"]) // self.workers)
        try:
            while waiting or running:
                while waiting and len(running) < self.workers:
                    run = waiting.pop(0)
                    running[run.address], output = _begin(_execute, threads, self.own_session, run)
                    Thread(target=_forward, args=(run, running[run.address], output, events), daemon=True).start()
                run, event = events.get()
                if isinstance(event, int):
                    del running[run.address]
                yield run, event
        finally:
            if running:
                tqdm.write("stopping: running trainings save first (again: at once)", file=sys.stderr)
            try:
                for process in running.values():
                    process.terminate()
                for process in running.values():
                    process.join()
            finally:  # a second Ctrl-C meanwhile
                for process in running.values():
                    process.kill()
                    process.join()


def _forward(run: "Run", process: Any, output: Connection, events: SimpleQueue[Event]) -> None:
    with os.fdopen(output.fileno(), errors="replace", newline="\n", closefd=False) as lines:
        for line in filter(str.strip, lines):
            events.put((run, line.rstrip("\n")))
    process.join()
    events.put((run, process.exitcode))


def answers(target: Callable[[Any], Iterator[Any]], questions: Sequence[Any]) -> Iterator[Any]:
    """Yield what `target` yields of the questions, or raise its InputError, in a process; stop if that is killed."""
    process, output = _begin(_answer, target, questions)
    try:
        for _ in questions:
            answer = output.recv()
            if isinstance(answer, InputError):
                raise answer
            yield answer
    except EOFError:
        return
    finally:
        process.kill()
        process.join()


def _begin(target: Callable[..., None], *args: Any) -> tuple[Any, Connection]:
    """Start `target(output, *args)` in a process; return that and the end of the pipe to read from."""
    if sys.platform == "linux":
        start: Any = multiprocessing.get_context("forkserver")
        start.set_forkserver_preload(["cifar_lightning.study.worker"])
        # Ctrl-C goes to the server, too, which for some seconds imports and would end with a traceback; and SLURM's
        # warning goes to every process, of which the study alone is to take it.
        resource_tracker.ensure_running()  # first, because it unblocks signals when it starts
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGUSR1})
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    else:  # each imports for itself: Apple's libraries do not survive a fork
        start = multiprocessing.get_context("spawn")
    here, there = start.Pipe(duplex=False)
    process = start.Process(target=_child, args=(here, there, target, *args))
    process.start()
    there.close()
    return process, here


def leave_slurm() -> None:
    """Take this process out of its SLURM job, which is the study's: no run is resumed as the job's, or requeues it."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        del os.environ[name]


def _child(here: Connection, there: Connection, target: Callable[..., None], *args: Any) -> None:
    def follow() -> None:  # ends this process, in order, when the one that started it is gone
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that started this one, and ends it
    Thread(target=follow, daemon=True).start()
    leave_slurm()
    # `here`, which is read from, stays open in this process, too: if its reader is killed, what is printed on the way
    # to an orderly end must not fail.
    target(there, *args)


def _answer(output: Connection, target: Callable[[Any], Iterator[Any]], questions: Sequence[Any]) -> None:
    from cifar_lightning.cli.quiet import be_quiet
    from cifar_lightning.utils.performance import prepare

    be_quiet()
    prepare()
    try:
        for answer in target(questions):
            output.send(answer)
    except InputError as error:
        output.send(error)


def _execute(output: Connection, threads: int | None, own_session: bool, run: "Run") -> None:
    import torch

    from cifar_lightning.study.worker import execute

    if own_session:
        os.setsid()
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    output.close()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a pipe would get it in blocks
    if threads:
        torch.set_num_threads(threads)
    sys.exit(execute(run))
