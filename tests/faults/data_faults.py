"""CIFAR-10 that is damaged, not there, or not what it says; mirrors that lie; images that are none."""

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

from cifar_lightning.data import cifar10, synthetic
from tests.conftest import rows
from tests.data.test_cifar10 import FILES, make_archive, md5, serving
from tests.data.test_user_images import bomb
from tests.faults.processes import little_memory, nobody
from tests.faults.steps import Payload, content, gone, pipe
from tests.faults.table import BEST, CANARY, PREDICTIONS, Damage, Fault, Table, write

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


def batch(name: str, damage: Damage, says: str) -> Fault:
    files = {"root": official, f"{BATCHES}/data_batch_2": damage}
    return root(name, "root", "data_batch_2", says, files=files, make=pinned)


def drawn(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)).save(path)


GIANT = struct.pack("<6sHHBBBsHHHHB4s", b"GIF89a", 65535, 65535, 0, 0, 0, b",", 0, 0, 65535, 65535, 0, b"\x08\x01\x00;")

# Name: files, how each is made, and the cause that is named.
Bad = dict[str, tuple[str, Damage, str]]
NO_IMAGE: Bad = {
    "text": ("bad.png", "hello\n", "not an image in a known format"),
    "payload": ("bad.png", PAYLOAD, "format"),
}
TOO_LARGE: Bad = {
    "bomb": ("bad.png", bomb(), "more than 89,478,485 pixels"),
    "giant gif": ("bad.gif", GIANT, "more than 89,478,485 pixels"),
}
ABSENT: Bad = {
    "missing": ("bad.png", lambda path: None, "No such file"),
    "a pipe": ("bad.png", pipe, "not a regular file"),
    "a link to itself": ("bad.png", partial(os.symlink, "bad.png"), ""),
    "a folder without images": ("bad.png", lambda path: write(path / "a.txt", "hello"), "no images in this folder"),
    "a name too long": ("a" * 300 + ".png", lambda path: None, "too long"),
}


def predicted(*names: str) -> None:
    """Assert that just these are in predictions.csv, each with a class."""
    found = rows(Path(PREDICTIONS))
    assert [row["file"] for row in found] == list(names)
    assert {row["class"] for row in found} <= set(synthetic.CLASSES)


def images(bad: Bad, **more: Any) -> list[Fault]:
    """Return a row of each alone: nothing is predicted."""
    return [
        Fault(f"image {name}", f"{PREDICT} {files}", 2, (*files.split(), cause),
              dict.fromkeys(files.split(), damage), **more)
        for name, (files, damage, cause) in bad.items()
    ]  # fmt: skip


# Files that can lie in one folder, where each of the bad ones has an error of its own; the good are predicted.
BAD = [bad[:2] for bad in (*NO_IMAGE.values(), *TOO_LARGE.values(), ABSENT["a pipe"])]
IN_FOLDER = {f"all/{i:02}{path}": damage for i, (path, damage) in enumerate([*BAD, ("a.png", drawn), ("b.jpg", drawn)])}

TABLE: Table = [
    "a batch file damaged: MD5",
    batch("batch flipped", content(lambda text: b"\1" + text[1:]), "wrong MD5"),
    batch("batch a payload", PAYLOAD, "wrong MD5"),
    "no batch file: its check",
    batch("batch missing", gone, "missing"),
    batch("batch a pipe", pipe, "missing"),
    "no data folder: its check",
    root("data folder empty", "empty", "no CIFAR-10 in empty", files={"empty": Path.mkdir}),
    root("no data folder", "new", "no CIFAR-10 in new", "CIFAR10_ROOT", "--data.source synthetic"),
    root("data root a file", "a.txt", "a.txt", files={"a.txt": "hello"}),
    root("data root can't be written", "root", "root", "denied", child=nobody,
         files={"root": partial(Path.mkdir, mode=0o555)}),
    Fault("no data for a test", f"test --ckpt_path={BEST} --data.root=new --data.source=cifar10", 2, ("data",)),
    "an archive that lies: MD5",
    root("archive with hostile members", "root", "wrong MD5", files={ARCHIVE: hostile_archive}, make=pinned),
    root("archive a folder", "root", make=pinned,
         files={"root": official, f"{BATCHES}/test_batch": gone, ARCHIVE: Path.mkdir}),
    "a mirror that lies: download",
    root("mirror with wrong MD5", "root", "wrong MD5", mirrors="$MIRROR/wrong", make=mirror),
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
    "images among files that are none: predicted",
    Fault("a folder and a file", f"{PREDICT} all good.png", 1, (), {"all": Path.mkdir, **IN_FOLDER, "good.png": drawn},
          (PREDICTIONS,), errors=len(BAD), then=partial(predicted, *list(IN_FOLDER)[len(BAD) :], "good.png")),
    Fault("one between two", f"{PREDICT} good.png bad.png good.png", 1, ("bad.png", "No such file"),
          {"good.png": drawn}, (PREDICTIONS,), then=partial(predicted, *["good.png"] * 2)),
]  # fmt: skip
