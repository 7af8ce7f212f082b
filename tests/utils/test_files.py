"""Files are whole or not there; a folder has one owner, who lets go when killed."""

import errno
import multiprocessing
import os
import signal
import stat
from multiprocessing.connection import Connection
from pathlib import Path
from unittest.mock import Mock

import pytest

from cifar_lightning.utils import files


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"first", b"second, longer", b""):
        files.replace(path, content)
        assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_what_is_on_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    rename = Path.replace

    def fsync(descriptor: int) -> None:
        order.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")

    def replace(self: Path, target: Path) -> Path:
        order.append("name")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    files.replace(tmp_path / "file", b"content")
    assert order == ["file", "name", "folder"]


@pytest.mark.parametrize(("owner", "call"), [(os, "fsync"), (Path, "open")])
def test_the_old_file_stands_where_the_new_one_cant(
    owner: object, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(owner, call, Mock(side_effect=OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        files.replace(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("links", [True, False])
def test_a_second_name_outlives_the_first(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    if not links:
        monkeypatch.setattr(os, "link", Mock(side_effect=PermissionError(errno.EPERM, "no links here")))
    files.link(source, target)
    files.link(source, target)  # where it was killed right after the first
    files.replace(source, b"newer")
    assert target.read_bytes() == b"new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source", "target"]


def hold(folder: Path, connection: Connection) -> None:
    with files.locked(folder):
        # A child of the owner, as a DataLoader's worker is, outlives it.
        if os.fork() == 0:
            connection.send(os.getpid())
        signal.pause()


@pytest.mark.skipif(os.name != "posix", reason="has no such locks")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_killed_owner_lets_go(tmp_path: Path) -> None:
    here, there = multiprocessing.Pipe()
    owner = multiprocessing.get_context("spawn").Process(target=hold, args=(tmp_path, there))
    owner.start()
    assert here.poll(60)
    child = here.recv()
    with pytest.raises(BlockingIOError), files.locked(tmp_path):
        pass
    owner.kill()
    owner.join()
    try:
        with files.locked(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []


def test_an_error_lets_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="passes"), files.locked(tmp_path):
        raise ValueError("passes")
    with files.locked(tmp_path, waiting="waits"), pytest.raises(BlockingIOError), files.locked(tmp_path):
        pass
    assert capsys.readouterr().err == ""  # nobody had to wait
