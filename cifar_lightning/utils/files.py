"""Files that are whole or not there at all, and folders that one process has to itself."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from cifar_lightning.errors import InputError

TEMPORARY = ".*.tmp"
LOCK = ".lock"


def replace(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that at every moment, a power cut included, either the old or the new one is there, whole.

    A killed process leaves at most `.NAME.tmp` beside it, which the next call overwrites. An `OSError` (a full disk,
    say) names the file; the old one stands then, and no temporary one is left.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        error.filename = str(path)  # the error of a full disk carries no file name
        raise
    sync(path.parent)


def check_new(path: Path, *, force: bool) -> None:
    """Raise an `InputError` about `--output` if a file can't be written there or, without `force`, is there already."""
    if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError("output", f"{path} can't be written", "name a file in a folder that exists")
    if path.exists() and not force:
        raise InputError("output", f"{path} is there already", "name another, or add --force")


def sync(path: Path) -> None:
    """Make a file's content, or the names in a folder (renamed, linked, removed), survive a power cut."""
    if path.is_dir() and os.name != "posix":  # there a folder can't be opened
        return
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        error.filename = str(path)  # the error of a full disk carries no file name
        raise
    finally:
        os.close(descriptor)


def link(source: Path, target: Path) -> None:
    """Give a whole file a second name, over whatever had it; a copy where the file system has no links."""
    if target.exists() and target.samefile(source):  # renaming one name of a file to another does nothing
        return
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        replace(target, source.read_bytes())
    else:
        temporary.replace(target)


@contextlib.contextmanager
def locked(folder: Path, *, waiting: str | None = None) -> Iterator[None]:
    """Have a folder to oneself among the processes that ask for it in this way; a killed one lets go.

    If another process has it, print `waiting` and wait for it; without that raise a `BlockingIOError`.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path := folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if waiting is None:
            raise BlockingIOError(f"{folder} is locked") from None
        print(waiting, file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # gone with its folder, or open in another process on Windows
            path.unlink()
        lock.release()
