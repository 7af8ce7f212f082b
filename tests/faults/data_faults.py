"""CIFAR-10 that is damaged, not there, or not what it says; mirrors that lie; images that are none, or odd ones."""

import pickle
import struct
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cifar_lightning.data import cifar10
from tests.data.test_download import FILES, make_archive, md5, serving
from tests.data.test_user_images import bomb
from tests.faults.children import little_memory, nobody
from tests.faults.steps import both, content, damaged, folder, pipe, removed, unreadable, written
from tests.faults.table import BEST, NEW_RUN, RUN, Damage, Fault, Place, Step, crossed, nothing

FIT = "fit --model=MLP --model.width=8 --trainer.accelerator=cpu --data.source=cifar10"
BATCHES = f"root/{cifar10.FOLDER}"


def official(place: Place) -> bytes:
    """Write a whole small set that passes for the official one; return its archive."""
    archive = make_archive({f"{cifar10.FOLDER}/{name}": text for name, text in FILES.items()})
    place.patch.setattr(cifar10, "CHECKSUMS", {name: md5(text) for name, text in FILES.items()})
    place.patch.setattr(cifar10, "ARCHIVE_MD5", md5(archive))
    for name, text in FILES.items():
        place.write(f"{BATCHES}/{name}", text)
    return archive


def payload(place: Place, path: Path) -> None:
    path.write_bytes(pickle.dumps(place.payload))


def mirror(place: Place) -> None:
    """Serve the archive, where no files are."""
    archive = official(place)
    removed(place, place.folder / BATCHES)
    place.patch.setenv("NO_PROXY", "127.0.0.1")
    place.words["MIRROR"] = f"http://{place.stack.enter_context(serving(archive)).host}"


def hostile_archive(place: Place) -> None:
    """Write an archive with members that lead out of the folder; its MD5 is not the pinned one."""
    official(place)
    removed(place, place.folder / BATCHES)
    hostile = ("../../../canary", str(place.canary), f"{cifar10.FOLDER}/../../../canary")
    place.write(f"root/{cifar10.ARCHIVE}", make_archive({**FILES, **dict.fromkeys(hostile, b"")}))


def nothing_fetched(place: Place) -> None:
    assert not (place.folder / BATCHES).exists()


def read_only(place: Place) -> None:
    (place.folder / "root").mkdir(mode=0o555)


def batch(name: str, damage: Damage, says: str, of: str = "data_batch_2") -> Fault:
    """Return the row of a whole set but for one file."""
    make = both(official, damaged(damage, f"{BATCHES}/{of}"))
    return Fault(name, f"{FIT} --data.root=root --data.mirrors=[]", 2, ("data.root", of, says), make)


def root(name: str, folder: str, *says: str, **more: Any) -> Fault:
    return Fault(name, f"{FIT} --data.root={folder} --data.mirrors=[]", 2, ("data.root", *says), **more)


def web(name: str, address: str, says: str) -> Fault:
    command = f"{FIT} --data.root=root --data.mirrors=[{address}]"
    return Fault(name, command, 2, ("data.root", says), mirror, then=nothing_fetched)


PREDICT = f"predict --ckpt_path={BEST} --data.images"
PREDICTIONS = f"{RUN}/predictions.csv"
NOISE = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
noise = Image.fromarray(NOISE)


def saved(path: str, image: Image.Image = noise, **options: Any) -> Step:
    return lambda place: image.save(path, **options)


def cut(path: str) -> Step:
    """Save an image and cut it in half."""
    half = content(lambda text: text[: len(text) // 2])
    return both(saved(path, noise.resize((200, 200))), damaged(half, path))


def turned(place: Place) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    noise.save("odd.jpg", exif=exif)


GIANT = b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
GIANT += b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x08\x01\x00;"
FRAMES = [Image.new("P", (40, 40), n) for n in range(3)]

# Name: file, how it is made, and the cause that is named.
Bad = dict[str, tuple[str, Step, str]]
NO_IMAGE: Bad = {
    "*text": ("bad.png", written("bad.png", "hello\n"), "not an image in a known format"),
    "no bytes": ("bad.png", written("bad.png", ""), "not an image in a known format"),
    "payload": ("bad.png", damaged(payload, "bad.png"), "format"),
    "cut png": ("bad.png", cut("bad.png"), "cut short"),
    "cut jpeg": ("bad.jpg", cut("bad.jpg"), "cut short"),
}
TOO_LARGE: Bad = {
    "*bomb": ("bad.png", written("bad.png", bomb()), "more than 89,478,485 pixels"),
    "giant gif": ("bad.gif", written("bad.gif", GIANT), "more than 89,478,485 pixels"),
}
ABSENT: Bad = {
    "*missing": ("bad.png", nothing, "No such file"),
    "a pipe": ("bad.png", damaged(pipe, "bad.png"), "not a regular file"),
    "a dangling link": ("bad.png", lambda place: Path("bad.png").symlink_to("nowhere"), "No such file"),
    "a link to itself": ("bad.png", lambda place: Path("bad.png").symlink_to("bad.png"), ""),
    "a folder without images": ("bad.png", written("bad.png/a.txt", "hello"), "no images in this folder"),
    "a name too long": ("a" * 300 + ".png", nothing, "too long"),
}
ODD: dict[str, tuple[str, Step]] = {
    "animated gif": ("odd.gif", saved("odd.gif", FRAMES[0], save_all=True, append_images=FRAMES[1:])),
    "CMYK": ("odd.jpg", saved("odd.jpg", noise.convert("CMYK"))),
    "16 bit": ("odd.png", saved("odd.png", Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257))),
    "turned": ("odd.jpg", turned),
    "1 x 5000": ("odd.png", saved("odd.png", noise.resize((1, 5000)))),
    "5000 x 1": ("odd.png", saved("odd.png", noise.resize((5000, 1)))),
    "palette with transparency": ("odd.png", saved("odd.png", noise.quantize(16), transparency=3)),
    "black and white": ("odd.png", saved("odd.png", noise.convert("1"))),
}


def predicted(*names: str) -> Step:
    """Return the check that just these are in predictions.csv."""

    def check(place: Place) -> None:
        rows = (place.folder / PREDICTIONS).read_text().splitlines()[1:]
        assert [row.partition(",")[0] for row in rows] == list(names)

    return check


def alone(name: str, path: str, make: Step, says: str) -> Fault:
    """Return the row of a bad image alone: nothing is predicted."""
    return Fault(crossed("*image", name), f"{PREDICT} {path}", 2, (path, says), make)


def among(name: str, path: str, make: Step, says: str) -> Fault:
    """Return the row of a bad image between good ones: those are predicted."""
    command = f"{PREDICT} good.png {path} good.png"
    then = predicted("good.png", "good.png")
    return MIXED(crossed("*mix", name), command, says=(path, says), make=both(saved("good.png"), make), then=then)


# Files that can lie in one folder, each with an error of its own.
FILES_NO_IMAGE = [bad[:2] for bad in (*NO_IMAGE.values(), *TOO_LARGE.values(), ABSENT["a pipe"])]
IN_FOLDER = [*FILES_NO_IMAGE, *ODD.values()]
MIXED = partial(Fault, status=1, changes=(PREDICTIONS,))


def every_kind(place: Place) -> None:
    """Make one folder with an image of every odd kind, and every bad kind that a file can be."""
    Path("all").mkdir()
    for i, (path, make) in enumerate(IN_FOLDER):
        make(place)
        Path(path).rename(f"all/{i:02}{path}")


ODD_NAMES = [f"all/{i:02}{path}" for i, (path, _) in enumerate(IN_FOLDER)][len(FILES_NO_IMAGE) :]
two_bad = both(written("one.png", "one"), written("two.png", "two"))
bad_unreadable, good = damaged(unreadable, "bad.png"), saved("good.png")
STANDS_IN = "--data.train_size=200 --data.val_size=100 --data.train_clean_size=50 --trainer.max_epochs=1"

TABLE = {
    "a batch file damaged: MD5": [
        batch("*batch flipped", content(lambda text: b"\1" + text[1:]), "wrong MD5"),
        batch("batch cut", content(lambda text: text[:-1]), "wrong MD5"),
        batch("batch empty", content(lambda text: b""), "wrong MD5"),
        batch("*batch a payload", payload, "wrong MD5"),
        batch("names a payload", payload, "wrong MD5", of="batches.meta"),
        batch("test set a payload", payload, "wrong MD5", of="test_batch"),
    ],
    "no batch file: its check": [
        batch("*batch missing", removed, "missing"),
        batch("batch a folder", folder, "missing"),
        batch("batch a pipe", pipe, "missing"),
    ],
    "no data folder: its check": [
        root("*data folder empty", "empty", "no CIFAR-10 in empty", make=lambda place: Path("empty").mkdir()),
        root("no data folder", "new", "no CIFAR-10 in new"),
        root("data root a file", "a.txt", "a.txt", make=written("a.txt", "hello")),
        root("data root below a file", "a.txt/b", "a.txt/b", make=written("a.txt", "hello")),
        root("data root a dangling link", "link", "link", make=lambda place: Path("link").symlink_to("nowhere")),
        root("data root can't be written", "root", "root", "denied", make=read_only, child=nobody),
        Fault("no data for a test", f"test --ckpt_path={BEST} --data.root=new --data.source=cifar10", 2, ("data",)),
    ],
    "an archive that lies: MD5": [
        root("*archive with hostile members", "root", "wrong MD5", make=hostile_archive),
        root("archive a folder", "root", make=both(official, damaged(removed, f"{BATCHES}/test_batch"),
                                                   lambda place: Path("root", cifar10.ARCHIVE).mkdir())),
    ],
    "a mirror that lies: download": [
        web("*mirror with wrong MD5", "MIRROR/wrong", "wrong MD5"),
        web("mirror without it", "MIRROR/absent", "HTTP 404"),
        web("mirror cut off", "MIRROR/cut", "cut off"),
        web("mirror not there", "http://127.0.0.1:9/x", "no connection"),
        web("mirror no address", "nowhere", "nowhere"),
        web("mirror a file", "file:///etc/passwd", "root"),
        Fault("*the synthetic stand-in is announced",
              f"{FIT} --data.source=auto --data.root=root --data.mirrors=[MIRROR/absent] {STANDS_IN}", 0,
              ("using the synthetic stand-in", "HTTP 404", "SYNTHETIC"), mirror, NEW_RUN),
    ],
    "no image in a file: decoder": [
        *(row(name, *bad) for name, bad in NO_IMAGE.items() for row in (alone, among)),
        Fault("several images, all bad", f"{PREDICT} one.png two.png", 2, ("one.png", "two.png"), two_bad, errors=2),
        MIXED("several images, some bad", f"{PREDICT} one.png good.png two.png", says=("one.png", "two.png"),
              make=both(good, two_bad), errors=2, then=predicted("good.png")),
    ],
    "an image too large: its size": [
        *(row(name, *bad) for name, bad in TOO_LARGE.items() for row in (alone, among)),
        Fault("image bomb in little memory", f"{PREDICT} bad.png", 2, ("bad.png", "pixels"), TOO_LARGE["*bomb"][1],
              child=partial(little_memory, 800)),
    ],
    "no image file: file system": [
        *(row(name, *bad) for name, bad in ABSENT.items() for row in (alone, among)),
        Fault("image unreadable", f"{PREDICT} bad.png", 2, ("bad.png", "denied"), bad_unreadable, child=nobody),
        MIXED("mix unreadable", f"{PREDICT} good.png bad.png", says=("bad.png", "denied"), child=nobody,
              make=both(good, bad_unreadable), then=predicted("good.png")),
    ],
    "an image of an odd kind: decoder": [
        *(Fault(f"image {name}", f"{PREDICT} {path}", 0, (path,), make, (PREDICTIONS,), then=predicted(path))
          for name, (path, make) in ODD.items()),
        MIXED("*images of every kind", f"{PREDICT} all", make=every_kind, errors=len(FILES_NO_IMAGE),
              then=predicted(*ODD_NAMES)),
    ],
}  # fmt: skip
