"""Processes for a study: forked from one that has imported everything, so that none pays the start-up.

The study's own process imports neither PyTorch nor Lightning: Ctrl-C ends it at once, and would break their import.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cifar_lightning.errors import InputError, RunError

Pipe = tuple[Connection, Connection]  # to read from, to write to


def _context() -> Any:
    if sys.platform != "linux":  # each imports for itself: Apple's libraries do not survive a fork
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


def begin(target: Callable[..., None], *args: Any) -> tuple[Any, Connection]:
    """Start `target(pipe, *args)` in a process; return that and the end of the pipe to read from.

    It does not hear Ctrl-C: that is for this process, which ends the others.
    """
    start = _context()
    here, there = start.Pipe(duplex=False)
    process = start.Process(target=_begin, args=(str(Path.cwd()), dict(os.environ), target, (here, there), *args))
    process.start()
    there.close()
    return process, here


def _begin(folder: str, environment: dict[str, str], target: Callable[..., None], *args: Any) -> None:
    def follow() -> None:  # ends this process, in order, when the one that started it is gone
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    # The server is older than what its children are started for.
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=follow, daemon=True).start()
    target(*args)


def answers(target: Callable[[Any], Iterator[Any]], questions: Sequence[Any]) -> Iterator[Any]:
    """Yield what `target` yields of the questions, in a process of its own, for as long as that lives.

    Raises the InputError of `target`, and a RunError if the process has ended before it could begin.
    """
    process, output = begin(_answer, target, questions)
    begun = False
    try:
        begun = output.recv()
        for _ in questions:
            answer = output.recv()
            if isinstance(answer, InputError):
                raise answer
            yield answer
    except EOFError:
        if not begun:
            raise RunError("study", "a process of it has ended", "start it again") from None
    finally:
        process.kill()
        process.join()


def _answer(pipe: Pipe, target: Callable[[Any], Iterator[Any]], questions: Sequence[Any]) -> None:
    from cifar_lightning.cli.app import be_quiet
    from cifar_lightning.utils.performance import prepare

    be_quiet()
    prepare()
    _, output = pipe
    output.send(True)
    try:
        for answer in target(questions):
            output.send(answer)
    except InputError as error:
        output.send(error)
