"""Called first in a process of its own: limits and signals that this process could not take back."""

import ctypes
import os
import resource
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.nursery import at_call, wrapped

SAVE = "cifar_lightning.runs.checkpoint_io:DurableCheckpoints.save_checkpoint"


def nothing(given: Any) -> None:
    """A process of its own is all that is wanted."""


def nobody(given: Any) -> None:
    """Gives up root's right to read and write everything, if it is root; what it owns it may still open as marked.

    Another user's rights would do as well, but that one may not be able to read this Python.
    """
    if os.getuid() == 0:
        header = struct.pack("<Ii", 0x20080522, 0)  # version 3, this process
        nothing_left = struct.pack("<6I", *[0] * 6)
        if ctypes.CDLL(None, use_errno=True).capset(header, nothing_left):
            raise OSError(ctypes.get_errno(), "capset")


def full_disk(given: dict[str, int]) -> None:
    """No file grows beyond some bytes from the nth checkpoint on; 0 is from the start.

    What the command says goes to a file, too: it must be shorter.
    """

    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (given["bytes"], given["bytes"]))

    if given["nth"]:
        at_call(SAVE, given["nth"], fill)
    else:
        fill()


def little_memory(given: int) -> None:
    """Leaves so many MiB more than are in use."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + given * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def signals(given: dict[str, Any]) -> None:
    """Sends this process signals at the nth call of a function."""

    def send() -> None:
        for signum in given["signals"]:
            os.kill(os.getpid(), signum)

    at_call(given["at"], given["nth"], send)


def pause(given: dict[str, Any]) -> None:
    """Says that it has come to a function's first call, `here`, and goes on once `go` is there."""
    # Names are relative to the working folder's neighbour: nothing of this may lie among what is compared.
    here, go = Path("../here"), Path("../go")

    def wait() -> None:
        here.touch()
        give_up = time.monotonic() + 30
        while not go.exists() and time.monotonic() < give_up:
            time.sleep(0.01)

    at_call(given["at"], 1, wait)


def version_taken(given: Any) -> None:
    """Finds the number of its run, and waits while another process takes the same."""

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def found(self: Any) -> Any:
            version = function(self)
            Path("../here").touch()
            give_up = time.monotonic() + 30
            while not Path("../go").exists() and time.monotonic() < give_up:
                time.sleep(0.01)
            return version

        return found

    wrapped("lightning.pytorch.loggers:TensorBoardLogger._get_next_version", wrap)
