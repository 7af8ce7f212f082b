import contextlib
import errno
import hashlib
import io
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from cifar_lightning.data import cifar10, download
from cifar_lightning.errors import InputError
from cifar_lightning.utils import files

FILES = {name: name.encode() * 100 for name in (*cifar10.TRAIN, *cifar10.TEST, "batches.meta")}


def make_archive(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    """A gzipped tar of files, and of symbolic links with their targets."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return buffer.getvalue()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def whole(root: Path) -> bool:
    return {path.name: path.read_bytes() for path in (root / cifar10.FOLDER).iterdir()} == FILES


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A small archive that passes for the official one."""
    content = make_archive({f"{cifar10.FOLDER}/{name}": content for name, content in FILES.items()})
    monkeypatch.setattr(cifar10, "checksums", lambda: {name: md5(content) for name, content in FILES.items()})
    monkeypatch.setattr(download, "ARCHIVE_MD5", md5(content))
    return content


class Mirror(ThreadingHTTPServer):
    """Answers /good, /wrong, /cut, /silent and /moved; everything else with 404. Remembers what was asked for."""

    def __init__(self, archive: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.archive = archive
        self.asked: list[str] = []
        self.closing = threading.Event()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def urls(self, *paths: str) -> list[str]:
        return [f"http://{self.host}/{path}" for path in paths]


class Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        good = self.server.archive
        status, length, content = {
            "/good": (200, len(good), good),
            "/wrong": (200, 6, b"<html>"),
            "/cut": (200, len(good), good[:100]),
            "/silent": (200, len(good), b""),
            "/moved": (302, 0, b""),
        }.get(self.path, (404, 0, b""))
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        if status == 302:
            self.send_header("Location", "/good")
        self.end_headers()
        self.wfile.write(content)
        if self.path == "/silent":
            self.server.closing.wait(10)

    def log_message(self, format: str, *args: object) -> None:
        """Stays silent."""


@contextlib.contextmanager
def serving(archive: bytes) -> Iterator[Mirror]:
    """A mirror on this machine."""
    with Mirror(archive) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def mirror(archive: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(archive) as server:
        yield server


def test_a_whole_set_touches_neither_network_nor_disk(tmp_path: Path, mirror: Mirror) -> None:
    (tmp_path / cifar10.FOLDER).mkdir()
    for name, content in FILES.items():
        (tmp_path / cifar10.FOLDER / name).write_bytes(content)
    before = tmp_path.stat().st_mtime_ns
    download.ensure(tmp_path, mirror.urls("good"))
    assert mirror.asked == []
    assert tmp_path.stat().st_mtime_ns == before


def test_an_archive_in_the_folder_is_used_and_kept(tmp_path: Path, archive: bytes, mirror: Mirror) -> None:
    (tmp_path / cifar10.ARCHIVE).write_bytes(archive)
    download.ensure(tmp_path, mirror.urls("good"))
    assert whole(tmp_path)
    assert mirror.asked == []
    assert (tmp_path / cifar10.ARCHIVE).read_bytes() == archive


def test_a_truncated_archive_in_the_folder_is_told_and_kept(
    tmp_path: Path, archive: bytes, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / cifar10.ARCHIVE).write_bytes(archive[:100])
    download.ensure(tmp_path, mirror.urls("good"))
    assert whole(tmp_path)
    assert (tmp_path / cifar10.ARCHIVE).read_bytes() == archive[:100]
    assert f"not using {tmp_path / cifar10.ARCHIVE}: wrong MD5" in capsys.readouterr().err


def test_mirrors_are_tried_in_order_until_one_works(
    tmp_path: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "new" / "folder"
    download.ensure(root, mirror.urls("absent", "wrong", "cut", "moved", "never"))
    assert mirror.asked == ["/absent", "/wrong", "/cut", "/moved", "/good"]
    assert whole(root)
    assert [path.name for path in root.iterdir()] == [cifar10.FOLDER]
    assert capsys.readouterr().err.splitlines() == [f"downloading CIFAR-10 (170 MB) from {mirror.host}"] * 4


def test_one_error_says_all_that_was_tried(tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", (1, 0.2))
    with socket.socket() as unused:  # bound but not listening: it refuses connections
        unused.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{unused.getsockname()[1]}"
        (tmp_path / cifar10.ARCHIVE).write_bytes(b"")
        with pytest.raises(InputError) as raised:
            download.ensure(tmp_path, [f"http://{nobody}/", *mirror.urls("absent", "wrong", "cut", "silent")])
    assert raised.value.field == "data.root"
    assert raised.value.cause == (
        f"no CIFAR-10 in {tmp_path} (tried {cifar10.ARCHIVE}: wrong MD5, {nobody}: no connection, "
        f"{mirror.host}: HTTP 404, {mirror.host}: wrong MD5, {mirror.host}: cut off, {mirror.host}: timed out)"
    )
    for way_out in (cifar10.ARCHIVE, "--data.root", "CIFAR10_ROOT", "--data.source synthetic"):
        assert way_out in raised.value.remedy
    assert [path.name for path in tmp_path.iterdir()] == [cifar10.ARCHIVE]


def test_a_flipped_bit_is_repaired_and_nothing_else_touched(tmp_path: Path, mirror: Mirror) -> None:
    download.ensure(tmp_path, mirror.urls("good"))
    batch, other = tmp_path / cifar10.FOLDER / "data_batch_3", tmp_path / cifar10.FOLDER / "test_batch"
    notes = tmp_path / cifar10.FOLDER / "notes.txt"
    notes.write_text("mine")
    batch.write_bytes(bytes([batch.read_bytes()[0] ^ 1]) + batch.read_bytes()[1:])
    before = other.stat()
    with pytest.raises(InputError, match=r"data_batch_3 is damaged \(wrong MD5\) in "):
        download.ensure(tmp_path, mirror.urls("absent"))
    download.ensure(tmp_path, mirror.urls("good"))
    assert batch.read_bytes() == FILES["data_batch_3"]
    assert notes.read_text() == "mine"
    assert other.stat() == before


def test_links_and_odd_paths_in_an_archive_are_passed_over(
    tmp_path: Path, archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, secret = tmp_path / "root", tmp_path / "secret"
    root.mkdir()
    secret.write_bytes(FILES["test_batch"])
    files = {f"{cifar10.FOLDER}/{name}": content for name, content in FILES.items() if name != "test_batch"}
    files |= {"../escaped": b"", str(tmp_path / "absolute"): b"", f"{cifar10.FOLDER}/../test_batch": b"", "extra": b""}
    evil = make_archive(files, {f"{cifar10.FOLDER}/test_batch": str(secret)})
    monkeypatch.setattr(download, "ARCHIVE_MD5", md5(evil))
    (root / cifar10.ARCHIVE).write_bytes(evil)
    with pytest.raises(InputError, match="wrong MD5"):
        download.ensure(root, [])
    assert sorted(path.name for path in tmp_path.rglob("*")) == [cifar10.ARCHIVE, "root", "secret"]


def test_of_two_at_once_one_downloads(tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = threading.Event()
    lock, unpack = files._lock, download._unpack

    def lock_slowly(descriptor: int, waiting: str | None) -> None:
        if mirror.asked:  # the other one is at work
            waits.set()
        lock(descriptor, waiting)

    def unpack_slowly(archive: Path, folder: Path) -> None:
        assert waits.wait(timeout=10)
        unpack(archive, folder)

    monkeypatch.setattr(files, "_lock", lock_slowly)
    monkeypatch.setattr(download, "_unpack", unpack_slowly)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(download.ensure, tmp_path, mirror.urls("good"))
        while not mirror.asked:
            time.sleep(0.01)
        pool.submit(download.ensure, tmp_path, mirror.urls("good")).result()
        first.result()
    assert whole(tmp_path)
    assert mirror.asked == ["/good"]
    assert [path.name for path in tmp_path.iterdir()] == [cifar10.FOLDER]


def test_what_a_killed_download_left_goes(tmp_path: Path, mirror: Mirror) -> None:
    left = tmp_path / ".cifar-10-abc"
    left.mkdir()
    (left / "half").write_bytes(b"half")
    download.ensure(tmp_path, mirror.urls("good"))
    assert [path.name for path in tmp_path.iterdir()] == [cifar10.FOLDER]


def test_a_folder_that_was_made_for_nothing_goes(tmp_path: Path, mirror: Mirror) -> None:
    with pytest.raises(InputError, match="no CIFAR-10"):
        download.ensure(tmp_path / "data", mirror.urls("absent"))
    assert list(tmp_path.iterdir()) == []


def test_stopped_half_way_it_leaves_nothing(tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(archive: Path, folder: Path) -> None:
        (folder / "data_batch_1").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "_unpack", stop)
    with pytest.raises(KeyboardInterrupt):
        download.ensure(tmp_path, mirror.urls("good"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cant_be_made(tmp_path: Path, mirror: Mirror) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        InputError, match=r"^data\.root: .*file.data can't be written \(Not a directory\); name another"
    ):
        download.ensure(tmp_path / "file" / "data", mirror.urls("good"))
    assert mirror.asked == []


def test_a_full_disk_is_not_blamed_on_the_mirror(
    tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(archive: Path, folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_unpack", full)
    with pytest.raises(InputError, match="No space left"):
        download.ensure(tmp_path, mirror.urls("good", "good"))
    assert mirror.asked == ["/good"]


@pytest.mark.parametrize(
    ("url", "target", "allowed"),
    [
        ("https://a.example/x", "http://a.example/x", False),
        ("https://a.example/x", "HTTPS://b.example/x", True),
        ("https://a.example/x", "/elsewhere", True),
        ("https://a.example/x", "//b.example/x", True),
        ("http://a.example/x", "http://b.example/x", True),
    ],
)
def test_https_is_never_left(url: str, target: str, allowed: bool) -> None:
    response = requests.Response()
    response.status_code, response.url, response.headers["Location"] = 302, url, target
    if allowed:
        download._stay_on_https(response)
    else:
        with pytest.raises(requests.exceptions.InvalidSchema) as raised:
            download._stay_on_https(response)
        assert download._reason(raised.value) == "redirects away from https"


def test_every_answer_on_the_way_is_checked(tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []
    monkeypatch.setattr(download, "_stay_on_https", lambda response, **_: checked.append(response.status_code))
    download.ensure(tmp_path, mirror.urls("moved"))
    assert checked == [302, 200]


def test_the_official_address_comes_last_and_all_use_https() -> None:
    assert cifar10.MIRRORS[-1] == "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    assert all(url.startswith("https://") for url in cifar10.MIRRORS)
