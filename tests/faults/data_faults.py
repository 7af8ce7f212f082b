"""CIFAR-10 that is damaged, not there, or not what it says; mirrors that lie; images that are none, or odd ones."""

import os
import pickle
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image

from cifar_lightning.data import cifar10
from tests.data.test_cifar10 import FILES, make_archive, md5, serving
from tests.data.test_user_images import bomb
from tests.faults.processes import little_memory, nobody
from tests.faults.steps import Payload, content, dangling, folder, gone, pipe
from tests.faults.table import BEST, CANARY, NEW_RUN, PREDICTIONS, SMALL, Damage, Fault, Table, write

FIT = "fit --model=MLP --model.width=8 --trainer.accelerator=cpu --data.source=cifar10"
PREDICT = f"predict --ckpt_path={BEST} --data.images"
BATCHES, ARCHIVE = f"root/{cifar10.FOLDER}", f"root/{cifar10.ARCHIVE}"
PACKED = make_archive({f"{cifar10.FOLDER}/{name}": text for name, text in FILES.items()})
CHECKSUMS = {name: md5(text) for name, text in FILES.items()}
PAYLOAD = pickle.dumps(Payload())


def official(root: Path) -> None:
    """Write a whole small set."""
    for name, text in FILES.items():
        write(root / cifar10.FOLDER / name, text)


# Lets the small set pass for the official one.
pinned = partial(patch.multiple, cifar10, CHECKSUMS=CHECKSUMS, ARCHIVE_MD5=md5(PACKED))


@contextmanager
def mirror() -> Iterator[None]:
    with pinned(), serving(PACKED) as at, patch.dict(os.environ, NO_PROXY="127.0.0.1", MIRROR=f"http://{at.host}"):
        yield


def hostile_archive(path: Path) -> None:
    """Write an archive with members that lead out of the folder; its MD5 is not the pinned one."""
    hostile = ("../../../canary", str(CANARY.resolve()), f"{cifar10.FOLDER}/../../../canary")
    write(path, make_archive({**FILES, **dict.fromkeys(hostile, b"")}))


def root(name: str, folder: str, *says: str, mirrors: str = "", **more: Any) -> Fault:
    return Fault(name, f"{FIT} --data.root={folder} --data.mirrors=[{mirrors}]", 2, ("data.root", *says), **more)


def batch(name: str, damage: Damage, says: str, of: str = "data_batch_2") -> Fault:
    return root(name, "root", of, says, files={"root": official, f"{BATCHES}/{of}": damage}, make=pinned)


NOISE = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
noise = Image.fromarray(NOISE)


def drawn(image: Image.Image = noise, **options: Any) -> Damage:
    return lambda path: image.save(path, **options)


def cut(path: Path) -> None:
    noise.resize((200, 200)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


GIANT = struct.pack("<6sHHBBBsHHHHB4s", b"GIF89a", 65535, 65535, 0, 0, 0, b",", 0, 0, 65535, 65535, 0, b"\x08\x01\x00;")
FRAMES = [Image.new("P", (40, 40), n) for n in range(3)]
TURNED = Image.Exif()
TURNED[0x0112] = 6  # by a quarter

# Name: files, how each is made, and the cause that is named.
Bad = dict[str, tuple[str, Damage, str]]
NO_IMAGE: Bad = {
    "text": ("bad.png", "hello\n", "not an image in a known format"),
    "no bytes": ("bad.png", "", "not an image in a known format"),
    "payload": ("bad.png", PAYLOAD, "format"),
    "cut png": ("bad.png", cut, "cut short"),
    "cut jpeg": ("bad.jpg", cut, "cut short"),
}
TOO_LARGE: Bad = {
    "bomb": ("bad.png", bomb(), "more than 89,478,485 pixels"),
    "giant gif": ("bad.gif", GIANT, "more than 89,478,485 pixels"),
}
ABSENT: Bad = {
    "missing": ("bad.png", lambda path: None, "No such file"),
    "a pipe": ("bad.png", pipe, "not a regular file"),
    "a dangling link": ("bad.png", dangling, "No such file"),
    "a link to itself": ("bad.png", partial(os.symlink, "bad.png"), ""),
    "a folder without images": ("bad.png", lambda path: write(path / "a.txt", "hello"), "no images in this folder"),
    "a name too long": ("a" * 300 + ".png", lambda path: None, "too long"),
}
ODD: dict[str, tuple[str, Damage]] = {
    "animated gif": ("odd.gif", drawn(FRAMES[0], save_all=True, append_images=FRAMES[1:])),
    "CMYK": ("odd.jpg", drawn(noise.convert("CMYK"))),
    "16 bit": ("odd.png", drawn(Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257))),
    "turned": ("odd.jpg", drawn(exif=TURNED)),
    "1 x 5000": ("odd.png", drawn(noise.resize((1, 5000)))),
    "5000 x 1": ("odd.png", drawn(noise.resize((5000, 1)))),
    "palette with transparency": ("odd.png", drawn(noise.quantize(16), transparency=3)),
    "black and white": ("odd.png", drawn(noise.convert("1"))),
}


def predicted(*names: str) -> None:
    """Assert that just these are in predictions.csv."""
    rows = Path(PREDICTIONS).read_text().splitlines()[1:]
    assert [row.partition(",")[0] for row in rows] == list(names)


def images(bad: Bad, **more: Any) -> list[Fault]:
    """Return two rows of each: alone, where nothing is predicted, and between good ones, which are."""
    rows = []
    for name, (files, damage, cause) in bad.items():
        says, damaged = (*files.split(), cause), dict.fromkeys(files.split(), damage)
        rows += [
            Fault(f"image {name}", f"{PREDICT} {files}", 2, says, damaged, **more),
            Fault(f"mix {name}", f"{PREDICT} good.png {files} good.png", 1, says,
                  damaged | {"good.png": drawn()}, (PREDICTIONS,), then=partial(predicted, *["good.png"] * 2), **more),
        ]  # fmt: skip
    return rows


# Files that can lie in one folder; each of the bad ones has an error of its own.
BAD = [bad[:2] for bad in (*NO_IMAGE.values(), *TOO_LARGE.values(), ABSENT["a pipe"])]
IN_FOLDER = {f"all/{i:02}{path}": damage for i, (path, damage) in enumerate([*BAD, *ODD.values()])}

TABLE: Table = [
    "a batch file damaged: MD5",
    batch("batch flipped", content(lambda text: b"\1" + text[1:]), "wrong MD5"),
    batch("batch cut", content(lambda text: text[:-1]), "wrong MD5"),
    batch("batch empty", "", "wrong MD5"),
    batch("batch a payload", PAYLOAD, "wrong MD5"),
    batch("names a payload", PAYLOAD, "wrong MD5", of="batches.meta"),
    batch("test set a payload", PAYLOAD, "wrong MD5", of="test_batch"),
    "no batch file: its check",
    batch("batch missing", gone, "missing"),
    batch("batch a folder", folder, "missing"),
    batch("batch a pipe", pipe, "missing"),
    "no data folder: its check",
    root("data folder empty", "empty", "no CIFAR-10 in empty", files={"empty": Path.mkdir}),
    root("no data folder", "new", "no CIFAR-10 in new"),
    root("data root a file", "a.txt", "a.txt", files={"a.txt": "hello"}),
    root("data root below a file", "a.txt/b", "a.txt/b", files={"a.txt": "hello"}),
    root("data root a dangling link", "link", "link", files={"link": dangling}),
    root("data root can't be written", "root", "root", "denied", child=nobody,
         files={"root": partial(Path.mkdir, mode=0o555)}),
    Fault("no data for a test", f"test --ckpt_path={BEST} --data.root=new --data.source=cifar10", 2, ("data",)),
    "an archive that lies: MD5",
    root("archive with hostile members", "root", "wrong MD5", files={ARCHIVE: hostile_archive}, make=pinned),
    root("archive a folder", "root", make=pinned,
         files={"root": official, f"{BATCHES}/test_batch": gone, ARCHIVE: Path.mkdir}),
    "a mirror that lies: download",
    root("mirror with wrong MD5", "root", "wrong MD5", mirrors="$MIRROR/wrong", make=mirror),
    root("mirror without it", "root", "HTTP 404", mirrors="$MIRROR/absent", make=mirror),
    root("mirror cut off", "root", "cut off", mirrors="$MIRROR/cut", make=mirror),
    root("mirror not there", "root", "no connection", mirrors="http://127.0.0.1:9/x", make=mirror),
    root("mirror no address", "root", "nowhere", mirrors="nowhere", make=mirror),
    root("mirror a file", "root", "root", mirrors="file:///etc/passwd", make=mirror),
    Fault("the synthetic stand-in is announced",
          f"{FIT} {SMALL} --name=mlp --data.source=auto --data.root=root --data.mirrors=[$MIRROR/absent]", 0,
          ("using the synthetic stand-in", "HTTP 404", "SYNTHETIC"), make=mirror, changes=NEW_RUN),
    "no image in a file: decoder",
    *images(NO_IMAGE),
    *images({"several": ("one.png two.png", "hello", "not an image")}, errors=2),
    "an image too large: its size",
    *images(TOO_LARGE),
    Fault("image bomb in little memory", f"{PREDICT} bad.png", 2, ("bad.png", "pixels"), {"bad.png": bomb()},
          child=partial(little_memory, 800)),
    "no image file: file system",
    *images(ABSENT),
    *images({"unreadable": ("bad.png", partial(Path.touch, mode=0), "denied")}, child=nobody),
    "an image of an odd kind: decoder",
    Fault("images of every kind", f"{PREDICT} all", 1, (), {"all": Path.mkdir, **IN_FOLDER}, (PREDICTIONS,),
          errors=len(BAD), then=partial(predicted, *list(IN_FOLDER)[len(BAD) :])),
    *(Fault(f"image {name}", f"{PREDICT} {path}", 0, (path,), {path: damage}, (PREDICTIONS,),
            then=partial(predicted, path)) for name, (path, damage) in ODD.items()),
]  # fmt: skip
