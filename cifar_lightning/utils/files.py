"""Files that are whole or not there at all, and folders that one process has to itself."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

TEMPORARY = ".*.tmp"


def replace(path: Path, content: bytes | memoryview) -> None:
    """Writes a file so that at every moment, a power cut's included, either the old or the new one is there, whole.

    Args:
        path: Where to; its folder must exist. A process that is killed leaves at most `.NAME.tmp` beside it, which the
            next call overwrites.
        content: All of it.

    Raises:
        OSError: It can't be written, the disk is full say; then the old file stands, and no temporary one.
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
        error.filename = str(path)  # a full disk is told without one
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder (what was renamed, linked, removed) survive a power cut."""
    if os.name != "posix":  # elsewhere a folder can't be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link(source: Path, target: Path) -> None:
    """Gives a whole file a second name, over whatever had it; a copy where the file system has no links."""
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


# A forked child (a DataLoader's worker) would share a lock, and keep it for a while after its parent was killed.
_held: set[int] = set()


@contextlib.contextmanager
def locked(folder: Path, *, waiting: str | None = None) -> Iterator[None]:
    """Has a folder to itself among the processes that ask for it in this way; a killed one lets go.

    Args:
        folder: An existing folder; nothing is written into it.
        waiting: What to say before waiting for another process that has it; None does not wait.

    Raises:
        BlockingIOError: Another process has it, and `waiting` is None.
    """
    if os.name != "posix":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    _held.add(descriptor)
    try:
        _lock(descriptor, waiting)
        yield
    finally:
        _held.remove(descriptor)
        os.close(descriptor)


def _lock(descriptor: int, waiting: str | None) -> None:
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if waiting is None:
            raise
        print(waiting, file=sys.stderr)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:  # a file system without locks
        pass


def _let_go() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if os.name == "posix":
    os.register_at_fork(after_in_child=_let_go)
