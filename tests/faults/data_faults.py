"""CIFAR-10 that is damaged, not there, or not what it says; mirrors that lie."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

from cifar_lightning.data import cifar10
from tests.data.test_download import FILES, make_archive, md5, serving
from tests.faults.table import BEST, NEW, Fault, Place, Step, both

HERE = "--data.root=root --data.mirrors=[]"
FIT = "fit --model=MLP --model.width=8 --trainer.accelerator=cpu --data.source=cifar10"
BATCHES = f"root/{cifar10.FOLDER}"


def official(place: Place) -> bytes:
    """A whole small set that passes for the official one, and its archive."""
    archive = make_archive({f"{cifar10.FOLDER}/{name}": content for name, content in FILES.items()})
    place.patch.setattr(cifar10, "CHECKSUMS", {name: md5(content) for name, content in FILES.items()})
    place.patch.setattr(cifar10, "ARCHIVE_MD5", md5(archive))
    for name, content in FILES.items():
        place.write(f"{BATCHES}/{name}", content)
    return archive


def batch(change: Callable[[Place, Path], object], name: str = "data_batch_2") -> Step:
    """A whole set but for one file."""
    return both(official, lambda place: change(place, place.folder / BATCHES / name))


def pipe(place: Place, path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(place: Place, path: Path) -> None:
    path.unlink()
    path.mkdir()


def payload(place: Place, path: Path) -> None:
    path.write_bytes(pickle.dumps(place.payload))


def mirror(place: Place) -> None:
    """A mirror that has the archive, and a folder that has nothing."""
    archive = official(place)
    for name in FILES:
        (place.folder / BATCHES / name).unlink()
    (place.folder / BATCHES).rmdir()
    place.patch.setenv("NO_PROXY", "127.0.0.1")
    place.words["MIRROR"] = f"http://{place.stack.enter_context(serving(archive)).host}"


def wrong_archive(place: Place) -> None:
    """An archive that is not the official one."""
    (place.folder / BATCHES / "test_batch").unlink()
    place.write(f"root/{cifar10.ARCHIVE}", b"hello")


def no_canary_asked(place: Place) -> None:
    """Nothing was fetched from where it redirected."""
    assert not (place.folder / BATCHES).exists()


def file(name: str, change: Callable[[Place, Path], object], *says: str, of: str = "data_batch_2") -> Fault:
    """A fault in a batch file."""
    return Fault(f"data: {name}", f"{FIT} {HERE}", 2, ("data.root", of, *says), batch(change, of))


def web(name: str, address: str, *says: str, make: Step = mirror) -> Fault:
    """A fault of a mirror."""
    command = f"{FIT} --data.root=root --data.mirrors=[{address}]"
    return Fault(f"mirror: {name}", command, 2, ("data.root", *says), make, then=no_canary_asked)


def read_only(place: Place) -> None:
    place.folder.chmod(0o755)
    (place.folder / "root").mkdir(mode=0o555)


FAULTS = [
    file("missing", lambda place, path: path.unlink(), "missing"),
    file("a bit flipped", lambda place, path: path.write_bytes(b"\1" + path.read_bytes()[1:]), "wrong MD5"),
    file("cut", lambda place, path: path.write_bytes(path.read_bytes()[:-1]), "wrong MD5"),
    file("empty", lambda place, path: path.write_bytes(b""), "wrong MD5"),
    file("payload", payload, "wrong MD5"),
    file("payload in the names", payload, "wrong MD5", of="batches.meta"),
    file("payload in the test set", payload, "wrong MD5", of="test_batch"),
    file("a folder", folder, "missing"),
    file("a pipe", pipe, "missing"),
    Fault("data: folder empty", f"{FIT} --data.root=empty --data.mirrors=[]", 2, ("data.root", "no CIFAR-10 in empty"),
          lambda place: Path("empty").mkdir()),
    Fault("data: no folder", f"{FIT} --data.root=new --data.mirrors=[]", 2, ("data.root", "no CIFAR-10 in new")),
    Fault("data: root is a file", f"{FIT} --data.root=a.txt --data.mirrors=[]", 2, ("data.root", "a.txt"),
          lambda place: place.write("a.txt", "hello")),
    Fault("data: root below a file", f"{FIT} --data.root=a.txt/b --data.mirrors=[]", 2, ("data.root", "a.txt/b"),
          lambda place: place.write("a.txt", "hello")),
    Fault("data: root a dangling link", f"{FIT} --data.root=link --data.mirrors=[]", 2, ("data.root", "link"),
          lambda place: Path("link").symlink_to("nowhere")),
    Fault("data: root can't be written", f"{FIT} {HERE}", 2, ("data.root", "root", "denied"), read_only,
          child="nobody"),
    Fault("data: none for a test", f"test --ckpt_path={BEST} --data.root=new --data.source=cifar10", 2, ("data",)),
    Fault("archive: wrong MD5", f"{FIT} {HERE}", 2, ("data.root", "wrong MD5"),
          both(official, wrong_archive)),
    Fault("archive: a folder", f"{FIT} {HERE}", 2, ("data.root",),
          both(official, lambda place: (place.folder / BATCHES / "test_batch").unlink(),
               lambda place: (place.folder / "root" / cifar10.ARCHIVE).mkdir())),
    web("404", "MIRROR/absent", "HTTP 404"),
    web("wrong MD5", "MIRROR/wrong", "wrong MD5"),
    web("cut off", "MIRROR/cut", "cut off"),
    web("nobody there", "http://127.0.0.1:9/x", "no connection"),
    web("not an address", "nowhere", "nowhere"),
    web("a file as address", "file:///etc/passwd", "root"),
    Fault("mirror: the synthetic stand-in is said aloud",
          f"{FIT} --data.source=auto --data.root=root --data.mirrors=[MIRROR/absent] --data.train_size=200 "
          "--data.val_size=100 --data.train_clean_size=50 --trainer.max_epochs=1", 0,
          ("using the synthetic stand-in", "HTTP 404", "SYNTHETIC"), mirror, (NEW, f"{NEW}/*")),
]  # fmt: skip
