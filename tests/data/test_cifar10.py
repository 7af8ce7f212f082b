import contextlib
import errno
import hashlib
import io
import pickle
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch
from torchvision.datasets import CIFAR10

from cifar_lightning.data import cifar10
from cifar_lightning.errors import InputError

FILES = {name: name.encode() * 100 for name in cifar10.CHECKSUMS}


def make_archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny set: 20 images in each file, every value of image i is i, its label the last digit of i."""
    (tmp_path / cifar10.FOLDER).mkdir()
    for first, name in zip(range(0, 120, 20), cifar10.TRAIN + cifar10.TEST, strict=True):
        rows = np.arange(first, first + 20, dtype=np.uint8)
        content = pickle.dumps({"data": np.repeat(rows[:, None], 3072, axis=1), "labels": (rows % 10).tolist()})
        (tmp_path / cifar10.FOLDER / name).write_bytes(content)
        monkeypatch.setitem(cifar10.CHECKSUMS, name, md5(content))
    return tmp_path


def test_order_shape_and_type(tiny: Path) -> None:
    for train, numbers in ((True, torch.arange(100)), (False, torch.arange(100, 120))):
        images, labels = cifar10.load(tiny, train=train)
        assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
        assert torch.equal(images, numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 32, 32))
        assert torch.equal(labels, numbers % 10)


TRAP = b"cos\nmkdir\n(S'sprung'\ntR."  # makes a folder when it is unpickled


def test_what_is_missing_or_damaged_is_named_and_never_unpickled(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny)
    (tiny / cifar10.FOLDER / "test_batch").unlink()
    assert cifar10.faults(tiny) == {name: f"{name} is missing" for name in ("test_batch", "batches.meta")}
    assert len(cifar10.load(tiny, train=True).labels) == 100
    with pytest.raises(InputError, match=r"^data\.root: test_batch is missing in .*; put cifar-10-python"):
        cifar10.load(tiny, train=False)
    (tiny / cifar10.FOLDER / "data_batch_2").write_bytes(TRAP)
    with pytest.raises(InputError, match="data_batch_2 is damaged"):
        cifar10.load(tiny, train=True)
    assert names(tiny) == [cifar10.FOLDER]


@pytest.mark.cifar10
@pytest.mark.parametrize(("train", "per_class"), [(True, 5000), (False, 1000)])
def test_the_real_set_is_that_of_torchvision(cifar10_root: Path, train: bool, per_class: int) -> None:
    theirs = CIFAR10(cifar10_root, train=train)
    images, labels = cifar10.load(cifar10_root, train=train)
    assert torch.equal(images, torch.from_numpy(theirs.data).permute(0, 3, 1, 2))
    assert labels.tolist() == theirs.targets
    assert labels.bincount().tolist() == [per_class] * 10
    assert tuple(theirs.classes) == cifar10.CLASSES


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / cifar10.FOLDER).iterdir()}


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A small archive that passes for the official one, with one file more, as that has."""
    members = {f"{cifar10.FOLDER}/{name}": content for name, content in FILES.items()}
    content = make_archive({**members, f"{cifar10.FOLDER}/readme.html": b"", "elsewhere": b""})
    monkeypatch.setattr(cifar10, "CHECKSUMS", {name: md5(content) for name, content in FILES.items()})
    monkeypatch.setattr(cifar10, "ARCHIVE_MD5", md5(content))
    return content


class Mirror(ThreadingHTTPServer):
    """Answers the paths in `Handler`, and everything else with 404; remembers what was asked for."""

    def __init__(self, archive: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.archive = archive
        self.asked: list[str] = []
        self.go_on = threading.Event()  # for /slow and /silent
        self.host = f"127.0.0.1:{self.server_port}"

    def urls(self, *paths: str) -> list[str]:
        return [f"http://{self.host}/{path}" for path in paths]


class Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        path, good = self.path, self.server.archive
        self.server.asked.append(path)
        content = {"/good": good, "/slow": good, "/wrong": b"<html>", "/cut": good[:100], "/silent": b""}.get(path)
        if path == "/slow":
            self.server.go_on.wait(10)
        self.send_response(302 if path == "/moved" else 404 if content is None else 200)
        self.send_header("Location", "/good")  # counts only if moved
        self.send_header("Content-Length", str(len(good if path in ("/cut", "/silent") else content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")
        if path == "/silent":
            self.server.go_on.wait(10)

    def log_message(self, format: str, *args: object) -> None: ...


@contextlib.contextmanager
def serving(archive: bytes) -> Iterator[Mirror]:
    """A mirror on this machine."""
    with Mirror(archive) as server, ThreadPoolExecutor(1) as pool:
        pool.submit(server.serve_forever, poll_interval=0.01)
        try:
            yield server
        finally:  # or a test that fails here would wait for it for ever
            server.go_on.set()
            server.shutdown()


@pytest.fixture
def mirror(archive: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(archive) as server:
        yield server


def test_a_whole_set_touches_neither_network_nor_disk(tmp_path: Path, mirror: Mirror) -> None:
    (tmp_path / ".cifar-10-abc" / "half").mkdir(parents=True)  # the rest of a killed download
    cifar10.ensure(tmp_path, mirror.urls("good"))
    assert names(tmp_path) == [cifar10.FOLDER]
    before = tmp_path.stat().st_mtime_ns
    cifar10.ensure(tmp_path, mirror.urls("good"))
    assert contents(tmp_path) == FILES
    assert mirror.asked == ["/good"]
    assert tmp_path.stat().st_mtime_ns == before


@pytest.mark.parametrize("cut", [None, 100], ids=["whole", "truncated"])
def test_an_archive_in_the_folder_is_used_if_whole_and_kept(
    cut: int | None, tmp_path: Path, archive: bytes, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / cifar10.ARCHIVE).write_bytes(archive[:cut])
    cifar10.ensure(tmp_path, mirror.urls("good"))
    assert contents(tmp_path) == FILES
    assert (tmp_path / cifar10.ARCHIVE).read_bytes() == archive[:cut]
    assert mirror.asked == (["/good"] if cut else [])
    assert (f"not using {cifar10.ARCHIVE}: wrong MD5" in capsys.readouterr().err) == bool(cut)


def test_mirrors_are_tried_in_order_until_one_works(
    tmp_path: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "new" / "folder"
    cifar10.ensure(root, mirror.urls("absent", "wrong", "cut", "moved", "never"))
    assert mirror.asked == ["/absent", "/wrong", "/cut", "/moved", "/good"]
    assert contents(root) == FILES
    assert names(root) == [cifar10.FOLDER]
    # And no progress bar where there is no terminal.
    trying = f"downloading CIFAR-10 (170 MB) from {mirror.host}"
    failed = [f"not using {mirror.host}: {reason}" for reason in ("HTTP 404", "wrong MD5", "cut off")]
    assert capsys.readouterr().err.splitlines() == [trying, failed[0], trying, failed[1], trying, failed[2], trying]


def test_one_error_names_all_that_was_tried(tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "TIMEOUT", (1, 0.2))
    (tmp_path / cifar10.ARCHIVE).write_bytes(b"")
    with pytest.raises(InputError) as raised:
        cifar10.ensure(tmp_path, [*mirror.urls("absent", "silent"), "file:///etc/passwd"])
    assert raised.value.cause == (
        f"no CIFAR-10 in {tmp_path} (tried {cifar10.ARCHIVE}: wrong MD5, {mirror.host}: HTTP 404, "
        f"{mirror.host}: timed out, file:///etc/passwd: no HTTP address)"
    )
    assert names(tmp_path) == [cifar10.ARCHIVE]


@pytest.mark.parametrize(
    ("there", "filled"),
    [
        ("MNIST/raw/x FashionMNIST/raw/x cifar-100-python.tar.gz .gitignore", True),  # as torchvision's users keep them
        ("photo.jpg holidays/photo.jpg", False),
        (".bashrc", False),  # a home
        (f"photo.jpg {cifar10.FOLDER}/notes.txt", True),  # a folder of that name asks for it
    ],
)
def test_a_folder_of_other_things_is_not_filled(there: str, filled: bool, tmp_path: Path, mirror: Mirror) -> None:
    for name in there.split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    if filled:
        cifar10.ensure(tmp_path, mirror.urls("good"))
        assert contents(tmp_path).items() >= FILES.items()
        return
    before = sorted(tmp_path.rglob("*"))
    remedy = f"give --data.root {tmp_path}/cifar10, or make {tmp_path}/{cifar10.FOLDER}"
    with pytest.raises(InputError, match=f"other files, such as {there.split()[0]}; {remedy}"):
        cifar10.ensure(tmp_path, mirror.urls("good"))
    assert (mirror.asked, sorted(tmp_path.rglob("*"))) == ([], before)


def test_a_flipped_bit_is_repaired_and_nothing_else_touched(tmp_path: Path, mirror: Mirror) -> None:
    cifar10.ensure(tmp_path, mirror.urls("good"))
    batch, other, notes = (tmp_path / cifar10.FOLDER / name for name in ("data_batch_3", "test_batch", "notes.txt"))
    notes.write_bytes(b"mine")
    batch.write_bytes(bytes([batch.read_bytes()[0] ^ 1]) + batch.read_bytes()[1:])
    before = other.stat()
    cifar10.ensure(tmp_path, mirror.urls("good"))
    assert contents(tmp_path) == FILES | {"notes.txt": b"mine"}
    assert other.stat() == before


def until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 8
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_of_two_at_once_one_downloads(tmp_path: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cifar10.ensure, tmp_path, mirror.urls("slow"))
        until(lambda: bool(mirror.asked))
        second = pool.submit(cifar10.ensure, tmp_path, mirror.urls("slow"))
        until(lambda: f"waiting for another process that fills {tmp_path}" in capsys.readouterr().err)
        mirror.go_on.set()
        first.result()
        second.result()
    assert contents(tmp_path) == FILES
    assert mirror.asked == ["/slow"]
    assert names(tmp_path) == [cifar10.FOLDER]


FULL = OSError(errno.ENOSPC, "No space left on device")  # not blamed on the mirror


@pytest.mark.parametrize(("error", "seen"), [(KeyboardInterrupt("now"), "now"), (FULL, "can't be written .No space")])
def test_ended_half_way_it_leaves_nothing(
    error: BaseException, seen: str, tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unpack(archive: str, *_: object) -> None:
        Path(archive).with_name("data_batch_1").write_bytes(b"half")
        raise error

    monkeypatch.setattr(pooch, "Untar", lambda *_, **__: unpack)
    with pytest.raises((KeyboardInterrupt, InputError), match=seen):
        cifar10.ensure(tmp_path, mirror.urls("good", "good"))
    assert mirror.asked == ["/good"]
    assert names(tmp_path) == []
