"""CIFAR-10 that is damaged, not there, or not what it says; mirrors that lie; images that are none, or odd ones."""

import os
import pickle
import struct
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cifar_lightning.data import cifar10
from tests.data.test_cifar10 import FILES, make_archive, md5, serving
from tests.data.test_user_images import bomb
from tests.faults.processes import little_memory, nobody
from tests.faults.steps import both, content, damaged, dangling, folder, gone, pipe, write, written
from tests.faults.table import BEST, CANARY, NEW_RUN, RUN, SMALL, Damage, Fault, Payload, Place, Step, crossed, nothing

FIT = "fit --model=MLP --model.width=8 --trainer.accelerator=cpu --data.source=cifar10"
BATCHES = Path("root", cifar10.FOLDER)
PAYLOAD = pickle.dumps(Payload())
payload, halved = content(lambda text: PAYLOAD), content(lambda text: text[: len(text) // 2])


def official(place: Place) -> bytes:
    """Write a whole small set that passes for the official one; return its archive."""
    archive = make_archive({f"{cifar10.FOLDER}/{name}": text for name, text in FILES.items()})
    place.patch.setattr(cifar10, "CHECKSUMS", {name: md5(text) for name, text in FILES.items()})
    place.patch.setattr(cifar10, "ARCHIVE_MD5", md5(archive))
    for name, text in FILES.items():
        write(f"{BATCHES}/{name}", text)
    return archive


def mirror(place: Place) -> None:
    """Serve the archive, where no files are."""
    archive = official(place)
    gone(BATCHES)
    place.patch.setenv("NO_PROXY", "127.0.0.1")
    place.patch.setenv("MIRROR", f"http://{place.stack.enter_context(serving(archive)).host}")


def hostile_archive(place: Place) -> None:
    """Write an archive with members that lead out of the folder; its MD5 is not the pinned one."""
    official(place)
    gone(BATCHES)
    hostile = ("../../../canary", str(CANARY.resolve()), f"{cifar10.FOLDER}/../../../canary")
    write(f"root/{cifar10.ARCHIVE}", make_archive({**FILES, **dict.fromkeys(hostile, b"")}))


def root(name: str, folder: str, *says: str, mirrors: str = "", **more: Any) -> Fault:
    return Fault(name, f"{FIT} --data.root={folder} --data.mirrors=[{mirrors}]", 2, ("data.root", *says), **more)


def batch(name: str, damage: Damage, says: str, of: str = "data_batch_2") -> Fault:
    return root(name, "root", of, says, make=both(official, damaged(damage, f"{BATCHES}/{of}")))


PREDICT = f"predict --ckpt_path={BEST} --data.images"
PREDICTIONS = f"{RUN}/predictions.csv"
NOISE = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)
noise = Image.fromarray(NOISE)


def saved(path: str, image: Image.Image = noise, **options: Any) -> Step:
    return lambda place: image.save(path, **options)


GIANT = struct.pack("<6sHHBBBsHHHHB4s", b"GIF89a", 65535, 65535, 0, 0, 0, b",", 0, 0, 65535, 65535, 0, b"\x08\x01\x00;")
FRAMES = [Image.new("P", (40, 40), n) for n in range(3)]
TURNED = Image.Exif()
TURNED[0x0112] = 6  # by a quarter

# Name: file, how it is made, and the cause that is named.
Bad = dict[str, tuple[str, Step, str]]
NO_IMAGE: Bad = {
    "*text": ("bad.png", written("bad.png", "hello\n"), "not an image in a known format"),
    "no bytes": ("bad.png", written("bad.png", ""), "not an image in a known format"),
    "payload": ("bad.png", written("bad.png", PAYLOAD), "format"),
    **{f"cut {kind}": (path, both(saved(path, noise.resize((200, 200))), damaged(halved, path)), "cut short")
       for kind, path in (("png", "bad.png"), ("jpeg", "bad.jpg"))},
}  # fmt: skip
TOO_LARGE: Bad = {
    "*bomb": ("bad.png", written("bad.png", bomb()), "more than 89,478,485 pixels"),
    "giant gif": ("bad.gif", written("bad.gif", GIANT), "more than 89,478,485 pixels"),
}
ABSENT: Bad = {
    "*missing": ("bad.png", nothing, "No such file"),
    "a pipe": ("bad.png", damaged(pipe, "bad.png"), "not a regular file"),
    "a dangling link": ("bad.png", damaged(dangling, "bad.png"), "No such file"),
    "a link to itself": ("bad.png", damaged(partial(os.symlink, "bad.png"), "bad.png"), ""),
    "a folder without images": ("bad.png", written("bad.png/a.txt", "hello"), "no images in this folder"),
    "a name too long": ("a" * 300 + ".png", nothing, "too long"),
}
ODD: dict[str, tuple[str, Step]] = {
    "animated gif": ("odd.gif", saved("odd.gif", FRAMES[0], save_all=True, append_images=FRAMES[1:])),
    "CMYK": ("odd.jpg", saved("odd.jpg", noise.convert("CMYK"))),
    "16 bit": ("odd.png", saved("odd.png", Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257))),
    "turned": ("odd.jpg", saved("odd.jpg", exif=TURNED)),
    "1 x 5000": ("odd.png", saved("odd.png", noise.resize((1, 5000)))),
    "5000 x 1": ("odd.png", saved("odd.png", noise.resize((5000, 1)))),
    "palette with transparency": ("odd.png", saved("odd.png", noise.quantize(16), transparency=3)),
    "black and white": ("odd.png", saved("odd.png", noise.convert("1"))),
}


def predicted(names: Sequence[str], place: Place) -> None:
    """Assert that just these are in predictions.csv."""
    rows = Path(PREDICTIONS).read_text().splitlines()[1:]
    assert [row.partition(",")[0] for row in rows] == list(names)


MIXED = partial(Fault, status=1, changes=(PREDICTIONS,))
good, closed = saved("good.png"), damaged(partial(Path.touch, mode=0), "bad.png")


def bad_images(images: Bad) -> list[Fault]:
    """Return two rows of each: alone, where nothing is predicted, and between good ones, which are."""
    return [
        fault for name, (path, make, says) in images.items() for fault in (
            Fault(crossed("*image", name), f"{PREDICT} {path}", 2, (path, says), make),
            MIXED(crossed("*mix", name), f"{PREDICT} good.png {path} good.png", says=(path, says),
                  make=both(good, make), then=partial(predicted, ["good.png"] * 2)),
        )
    ]  # fmt: skip


# Files that can lie in one folder; each of the bad ones has an error of its own.
BAD = [bad[:2] for bad in (*NO_IMAGE.values(), *TOO_LARGE.values(), ABSENT["a pipe"])]
IN_FOLDER = [(f"all/{i:02}{path}", path, make) for i, (path, make) in enumerate([*BAD, *ODD.values()])]
every_kind = both(
    damaged(Path.mkdir, "all"),
    *(both(make, damaged(partial(Path.rename, target=name), path)) for name, path, make in IN_FOLDER),
)
two_bad = both(written("one.png", "one"), written("two.png", "two"))

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
        batch("*batch missing", gone, "missing"),
        batch("batch a folder", folder, "missing"),
        batch("batch a pipe", pipe, "missing"),
    ],
    "no data folder: its check": [
        root("*data folder empty", "empty", "no CIFAR-10 in empty", make=damaged(Path.mkdir, "empty")),
        root("no data folder", "new", "no CIFAR-10 in new"),
        root("data root a file", "a.txt", "a.txt", make=written("a.txt", "hello")),
        root("data root below a file", "a.txt/b", "a.txt/b", make=written("a.txt", "hello")),
        root("data root a dangling link", "link", "link", make=damaged(dangling, "link")),
        root("data root can't be written", "root", "root", "denied", child=nobody,
             make=damaged(partial(Path.mkdir, mode=0o555), "root")),
        Fault("no data for a test", f"test --ckpt_path={BEST} --data.root=new --data.source=cifar10", 2, ("data",)),
    ],
    "an archive that lies: MD5": [
        root("*archive with hostile members", "root", "wrong MD5", make=hostile_archive),
        root("archive a folder", "root", make=both(official, damaged(gone, f"{BATCHES}/test_batch"),
                                                   lambda place: Path("root", cifar10.ARCHIVE).mkdir())),
    ],
    "a mirror that lies: download": [
        *(root(name, "root", says, mirrors=address, make=mirror) for name, address, says in (
            ("*mirror with wrong MD5", "$MIRROR/wrong", "wrong MD5"),
            ("mirror without it", "$MIRROR/absent", "HTTP 404"),
            ("mirror cut off", "$MIRROR/cut", "cut off"),
            ("mirror not there", "http://127.0.0.1:9/x", "no connection"),
            ("mirror no address", "nowhere", "nowhere"),
            ("mirror a file", "file:///etc/passwd", "root"),
        )),
        Fault("*the synthetic stand-in is announced",
              f"{FIT} {SMALL} --data.source=auto --data.root=root --data.mirrors=[$MIRROR/absent]", 0,
              ("using the synthetic stand-in", "HTTP 404", "SYNTHETIC"), mirror, NEW_RUN),
    ],
    "no image in a file: decoder": [
        *bad_images(NO_IMAGE),
        Fault("several images, all bad", f"{PREDICT} one.png two.png", 2, ("one.png", "two.png"), two_bad, errors=2),
        MIXED("several images, some bad", f"{PREDICT} one.png good.png two.png", says=("one.png", "two.png"),
              make=both(good, two_bad), errors=2, then=partial(predicted, ["good.png"])),
    ],
    "an image too large: its size": [
        *bad_images(TOO_LARGE),
        Fault("image bomb in little memory", f"{PREDICT} bad.png", 2, ("bad.png", "pixels"), TOO_LARGE["*bomb"][1],
              child=partial(little_memory, 800)),
    ],
    "no image file: file system": [
        *bad_images(ABSENT),
        Fault("image unreadable", f"{PREDICT} bad.png", 2, ("bad.png", "denied"), closed, child=nobody),
        MIXED("mix unreadable", f"{PREDICT} good.png bad.png", says=("bad.png", "denied"), child=nobody,
              make=both(good, closed), then=partial(predicted, ["good.png"])),
    ],
    "an image of an odd kind: decoder": [
        *(Fault(f"image {name}", f"{PREDICT} {path}", 0, (path,), make, (PREDICTIONS,), then=partial(predicted, [path]))
          for name, (path, make) in ODD.items()),
        MIXED("*images of every kind", f"{PREDICT} all", make=every_kind, errors=len(BAD),
              then=partial(predicted, [name for name, *_ in IN_FOLDER[len(BAD) :]])),
    ],
}  # fmt: skip
