"""Files that are whole or not there at all, and folders that one process has to itself."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

TEMPORARY = ".*.tmp"
LOCK = ".lock"


def replace(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that at every moment, a power cut included, either the old or the new one is there, whole.

    Args:
        path: Its folder must exist. A process that is killed leaves at most `.NAME.tmp` beside it, which the next call
            overwrites.
        content: All of it.

    Raises:
        OSError: It can't be written, for instance on a full disk; the old file stands, and no temporary one is left.
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
        return None
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        return replace(target, source.read_bytes())
    temporary.replace(target)
    return None


@contextlib.contextmanager
def locked(folder: Path, *, waiting: str | None = None) -> Iterator[None]:
    """Have a folder to oneself among the processes that ask for it in this way; a killed one lets go.

    Args:
        folder: An existing folder; a file `.lock` stands in it meanwhile.
        waiting: Printed before waiting for another process that has the folder; None does not wait.

    Raises:
        BlockingIOError: Another process has it, and `waiting` is None.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK)
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
            (folder / LOCK).unlink()
        lock.release()
