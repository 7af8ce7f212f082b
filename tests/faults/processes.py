"""Commands in processes of their own, and what this one could not take back: limits, lost rights, signals, kills."""

import contextlib
import ctypes
import itertools
import os
import pkgutil
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, wraps
from multiprocessing import forkserver, get_context, set_start_method, util
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Literal, NamedTuple
from unittest.mock import patch

import pytest

from cifar_lightning.__main__ import main

CONTEXT = get_context("forkserver")
MODEL = "cifar_lightning.models.base.ImageClassifier"
SAVE = "cifar_lightning.runs.checkpoint.DurableCheckpoints.save_checkpoint"

When = Literal["before", "after", "half"]
# Called in the new process before the command; it is pickled, so it is a function of a module or a `partial` of one.
Before = Callable[[], object]
Befores = Mapping[int | None, tuple[Before, ...]]  # by rank; None is for all
NOTHING: Befores = {}


class Child(NamedTuple):
    process: ForkServerProcess
    output: Path
    pid: int

    def run(self) -> tuple[int, str]:
        """Wait for its exit status, negative for the signal that killed it, and its output."""
        self.process.join()
        assert self.process.exitcode is not None
        return self.process.exitcode, self.output.read_text()


def start(folder: Path, args: Sequence[str], *befores: Before, name: str = "") -> Child:
    """Start a command of this program in a folder; its output goes to a text file of that or another name beside it."""
    if sys.platform != "linux":
        pytest.skip("forks a process that has PyTorch loaded, which other systems mind")
    CONTEXT.set_forkserver_preload(["tests.faults.preloaded"])
    root = str(Path(__file__).parents[2])
    with patch.dict(os.environ, PYTHONPATH=root, PYTHONWARNINGS="default", OMP_NUM_THREADS="1", CIFAR10_ROOT=""):
        forkserver.ensure_running()  # once; it ends with this process
    output = folder.with_name(f"{folder.name}{name}.txt")
    output.touch()  # the child may be killed before it prints anything
    process = CONTEXT.Process(target=_live, args=(folder, args, befores, output))
    process.start()
    assert process.pid
    return Child(process, output, process.pid)


def start_group(folder: Path, args: Sequence[str], processes: int, befores: Befores = NOTHING) -> list[Child]:
    """Start a command as so many processes, as torchrun would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    args = [*args, f"--trainer.devices={processes}"]
    children = []
    for rank in range(processes):
        mine = (*befores.get(None, ()), *befores.get(rank, ()))
        children.append(start(folder, args, partial(_join, rank, processes, port), *mine, name=f"-{rank}"))
    return children


def _join(rank: int, processes: int, port: int) -> None:
    own = {"RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": processes, "MASTER_PORT": port}
    os.environ.update({"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in own.items()}})


def _live(folder: Path, args: Sequence[str], befores: Sequence[Before], output: Path) -> None:
    set_start_method(None, force=True)  # of the command's own workers: as if a shell had started it
    descriptor = os.open(output, os.O_WRONLY | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    # Whoever runs the tests may have them ignored, a shell in the background for instance; here they are to work.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # A study in the same process starts the server with some of them blocked.
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    os.chdir(folder)
    status = 99
    try:
        for before in befores:
            before()
        status = main(args)
        sys.stdout.flush()
        sys.stderr.flush()
    except KeyboardInterrupt:  # before the command began
        status = 130
    finally:
        os._exit(status)


def fork_servers() -> None:
    """Have the server of this command's own processes forked from it, which has imported all that a new one would."""

    def fork(path: bytes, args: Sequence[str], passed: Sequence[int]) -> int:
        if "multiprocessing.forkserver" not in args[-1]:
            return execute(path, args, passed)
        if pid := os.fork():
            return pid
        for descriptor in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
            if descriptor not in (0, 1, 2, *passed):
                with contextlib.suppress(OSError):  # the list's own
                    os.close(descriptor)
        forkserver.ForkServer.__init__(forkserver._forkserver)  # as new
        try:
            exec(args[-1])
        finally:
            os._exit(0)

    execute: Callable[..., int] = util.spawnv_passfds
    setattr(util, "spawnv_passfds", fork)  # noqa: B010


@contextlib.contextmanager
def beside(command: str, target: str, named: str = "") -> Iterator[None]:
    """Have another process, which must succeed, come to a function and wait there meanwhile."""
    child = start(Path.cwd(), command.split(), partial(at_call, target, partial(send, signal.SIGSTOP), named=named))
    give_up = time.monotonic() + 60
    while "T (stopped)" not in Path(f"/proc/{child.pid}/status").read_text():
        assert time.monotonic() < give_up, child.output.read_text()
        time.sleep(0.01)
    try:
        yield
    finally:
        os.kill(child.pid, signal.SIGCONT)
    status, output = child.run()
    assert status == 0, output


def nobody() -> None:
    """Give up root's right to read and write everything, if this is root; what it owns it may still open as marked."""
    # Another user's rights would do as well, but that one may not be able to read this Python.
    if os.getuid() == 0:
        this_process = struct.pack("<Ii", 0x20080522, 0)  # in version 3 of the call
        nothing_left = struct.pack("<6I", *[0] * 6)
        assert ctypes.CDLL(None).capset(this_process, nothing_left) == 0


def full_disk(most_bytes: int) -> None:
    """Let no file grow beyond some bytes; the command's output goes to a file, too: it must be shorter."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))


def little_memory(mebibytes: int) -> None:
    """Leave so much more memory than is in use."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + mebibytes * 2**20,) * 2)


def send(*signums: int) -> None:
    for signum in signums:
        os.kill(os.getpid(), signum)


def disable(target: str) -> None:
    pytest.MonkeyPatch().setattr(target, lambda *args, **kwargs: None)


def at_call(target: str, act: Before, nth: int = 1, named: str = "", when: When = "before") -> None:
    """Do something at the nth call of a function; with `named` only calls on a path of this name count.

    `half` is once half of what the function writes, or of what is written to the file that it opens, is there.
    """
    function, calls = pkgutil.resolve_name(target), itertools.count(1)

    @wraps(function)
    def armed(*args: Any, **kwargs: Any) -> Any:
        if (named and args[0].name != named) or next(calls) != nth:
            return function(*args, **kwargs)
        if when == "before":
            act()
        if when == "half" and isinstance(args[-2], bytes):  # of LocalFileSystem.append, before the mode
            args = (*args[:-2], args[-2][: len(args[-2]) // 2], args[-1])
        result = function(*args, **kwargs)
        if when == "half" and hasattr(result, "write"):
            write = result.write
            result.write = lambda content: [write(content[: len(content) // 2]), result.flush(), act()]
        elif when != "before":
            act()
        return result

    pytest.MonkeyPatch().setattr(target, armed)
