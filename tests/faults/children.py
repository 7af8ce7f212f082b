"""Called first in a process of its own: limits, signals and kills that this process could not take back."""

import ctypes
import functools
import importlib
import os
import resource
import signal
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

When = Literal["before", "after", "half"]

MODEL = "cifar_lightning.models.base:ImageClassifier"
SAVE = "cifar_lightning.runs.checkpoint:DurableCheckpoints.save_checkpoint"

# Beside the working folder: nothing of this may lie among what is compared.
HERE, GO = Path("../here"), Path("../go")


def all_of(functions: Sequence[Callable[[], object]]) -> None:
    for function in functions:
        function()


def nobody() -> None:
    """Give up root's right to read and write everything, if this is root; what it owns it may still open as marked.

    Another user's rights would do as well, but that one may not be able to read this Python.
    """
    if os.getuid() == 0:
        header = struct.pack("<Ii", 0x20080522, 0)  # version 3, this process
        nothing_left = struct.pack("<6I", *[0] * 6)
        if ctypes.CDLL(None, use_errno=True).capset(header, nothing_left):
            raise OSError(ctypes.get_errno(), "capset")


def full_disk(nth: int, most_bytes: int) -> None:
    """Let no file grow beyond some bytes from the nth checkpoint on; 0 is from the start.

    The command's output goes to a file, too: it must be shorter.
    """

    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    if nth:
        at_call(SAVE, fill, nth=nth)
    else:
        fill()


def little_memory(mebibytes: int) -> None:
    """Leave so much more memory than is in use."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + mebibytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def signals(target: str, nth: int, signums: Sequence[int]) -> None:
    """Have this process send itself signals at the nth call of a function."""

    def send() -> None:
        for signum in signums:
            os.kill(os.getpid(), signum)

    at_call(target, send, nth=nth)


def pause(target: str, named: str = "") -> None:
    """Tell by the file `HERE` that a function is called for the first time, and go on once `GO` is there."""

    def wait() -> None:
        HERE.touch()
        give_up = time.monotonic() + 60
        while not GO.exists() and time.monotonic() < give_up:
            time.sleep(0.01)

    at_call(target, wait, named=named)


def kill(target: str, nth: int, named: str, when: When) -> None:
    """Have this process kill itself at a call, as the system would: nothing is flushed, no `finally` runs."""
    at_call(target, die, nth=nth, named=named, when=when)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def disable(target: str) -> None:
    """Take a function out."""
    wrapped(target, lambda _: lambda *args, **kwargs: None)


def at_call(target: str, act: Callable[[], Any], *, nth: int = 1, named: str = "", when: When = "before") -> None:
    """Do something at the nth call of a function.

    Args:
        target: `package.module:Class.method` or `package.module:function`.
        act: What to do.
        nth: 1 is the first call.
        named: Only calls on a path of this name count, or of a name that begins so if this ends with a dot.
        when: `half`: once half of what the function writes, or of what is written to the file that it opens, is there.
    """
    calls = 0

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def armed(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            counts = _is_named(named, args)
            calls += counts
            if not counts or calls != nth:
                return function(*args, **kwargs)
            if when == "before":
                act()
            if when == "half" and isinstance(args[-2], bytes):  # of LocalFileSystem.append, before the mode
                args = (*args[:-2], args[-2][: len(args[-2]) // 2], args[-1])
            result = function(*args, **kwargs)
            if when == "half" and hasattr(result, "write"):
                return HalfWritten(result, act)
            if when != "before":
                act()
            return result

        return armed

    wrapped(target, wrap)


def wrapped(target: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put a wrapper around a function, for good."""
    module, _, path = target.partition(":")
    owner: Any = importlib.import_module(module)
    *parts, name = path.split(".")
    for part in parts:
        owner = getattr(owner, part)
    setattr(owner, name, wrap(getattr(owner, name)))


class HalfWritten:
    """A file that gets half of what is written, and then something happens."""

    def __init__(self, file: Any, act: Callable[[], Any]) -> None:
        self.file, self.act = file, act

    def __enter__(self) -> "HalfWritten":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, content: bytes) -> None:
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        self.act()


def _is_named(named: str, args: tuple[Any, ...]) -> bool:
    if not named:
        return True
    name = args[0].name if args and isinstance(args[0], Path) else ""
    return name.startswith(named) if named.endswith(".") else name == named
