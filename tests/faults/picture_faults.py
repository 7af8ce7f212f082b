"""Pictures that are none, and pictures of odd kinds."""

import os
import pickle
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.test_user_images import bomb
from tests.faults.table import BEST, RUN, Fault, Place, Step

PREDICT = f"predict --ckpt_path={BEST} --data.images"
WRITES = (f"{RUN}/predictions.csv",)
NOISE = np.random.default_rng(0).integers(0, 256, (48, 40, 3), dtype=np.uint8)


def noise() -> Image.Image:
    """A picture that no decoder can guess."""
    return Image.fromarray(NOISE)


def good(place: Place) -> None:
    noise().save("good.png")


def cut(suffix: str) -> Step:
    """A picture cut in half."""

    def make(place: Place) -> None:
        path = Path(f"bad.{suffix}")
        noise().resize((200, 200)).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return make


def animated(place: Place) -> None:
    frames = [Image.new("P", (40, 40), n) for n in range(3)]
    frames[0].save("odd.gif", save_all=True, append_images=frames[1:])


def rotated(place: Place) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    noise().save("odd.jpg", exif=exif)


def palette(place: Place) -> None:
    noise().quantize(16).save("odd.png", transparency=3)


def pipe(place: Place) -> None:
    os.mkfifo("bad.png")


def unreadable(place: Place) -> None:
    place.folder.chmod(0o755)
    (place.folder / RUN).chmod(0o777)
    place.write("bad.png", b"x").chmod(0)


def folder_of_text(place: Place) -> None:
    place.write("bad.png/a.txt", "hello")


def giant_gif(place: Place) -> None:
    place.write("bad.gif", b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"," + struct.pack(
        "<HHHHB", 0, 0, 65535, 65535, 0) + b"\x08\x01\x00;")  # fmt: skip


FORMATS = "give an image as JPEG"
# Name: how it is made, its file, what is said of it.
BAD: dict[str, tuple[Step, str, str]] = {
    "no bytes": (lambda place: place.write("bad.png", b""), "bad.png", "not an image in a known format"),
    "text": (lambda place: place.write("bad.png", "hello\n"), "bad.png", "not an image in a known format"),
    "cut png": (cut("png"), "bad.png", "cut short"),
    "cut jpeg": (cut("jpg"), "bad.jpg", "cut short"),
    "bomb": (lambda place: place.write("bad.png", bomb()), "bad.png", "more than 89,478,485 pixels"),
    "giant gif": (giant_gif, "bad.gif", "more than 89,478,485 pixels"),
    "pipe": (pipe, "bad.png", "not a regular file"),
    "payload": (lambda place: place.write("bad.png", pickle.dumps(place.payload)), "bad.png", "format"),
}
# What there is to find is not even there.
ABSENT: dict[str, tuple[Step, str, str]] = {
    "dangling link": (lambda place: Path("bad.png").symlink_to("nowhere"), "bad.png", "No such file"),
    "a link to itself": (lambda place: Path("bad.png").symlink_to("bad.png"), "bad.png", ""),
    "missing": (lambda place: None, "bad.png", "No such file"),
    "a folder without pictures": (folder_of_text, "bad.png", "no images in this folder"),
    "a name too long": (lambda place: None, "a" * 300 + ".png", "too long"),
}
ODD: dict[str, tuple[Step, str]] = {
    "animated gif": (animated, "odd.gif"),
    "CMYK": (lambda place: noise().convert("CMYK").save("odd.jpg"), "odd.jpg"),
    "16 bit": (lambda place: Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257).save("odd.png"), "odd.png"),
    "turned": (rotated, "odd.jpg"),
    "1 x 5000": (lambda place: noise().resize((1, 5000)).save("odd.png"), "odd.png"),
    "5000 x 1": (lambda place: noise().resize((5000, 1)).save("odd.png"), "odd.png"),
    "palette with transparency": (palette, "odd.png"),
    "black and white": (lambda place: noise().convert("1").save("odd.png"), "odd.png"),
}


def after_good(make: Step) -> Step:
    """A bad picture beside a good one."""

    def both(place: Place) -> None:
        good(place)
        make(place)

    return both


def predicted(*names: str) -> Step:
    """Just these are in predictions.csv."""

    def check(place: Place) -> None:
        rows = (place.folder / RUN / "predictions.csv").read_text().splitlines()[1:]
        assert [row.partition(",")[0] for row in rows] == list(names)

    return check


def alone(name: str, make: Step, file: str, *says: str) -> Fault:
    """A bad picture alone: nothing is predicted."""
    return Fault(f"picture: {name}", f"{PREDICT} {file}", 2, (file, *says), make)


def mixed(name: str, make: Step, file: str, *says: str) -> Fault:
    """A bad picture between good ones: those are predicted."""
    command = f"{PREDICT} good.png {file} good.png"
    then = predicted("good.png", "good.png")
    return Fault(f"mix: {name}", command, 1, (file, *says), after_good(make), WRITES, then=then)


def all_odd(place: Place) -> None:
    """One folder with a picture of every odd kind, and every bad kind that a file can be."""
    Path("all").mkdir()
    for i, (make, file, _) in enumerate(BAD.values()):
        make(place)
        Path(file).rename(f"all/bad{i}{Path(file).suffix}")
    for i, (make_odd, file) in enumerate(ODD.values()):
        make_odd(place)
        Path(file).rename(f"all/odd{i}{Path(file).suffix}")


def two_bad(place: Place) -> None:
    place.write("one.png", "one")
    place.write("two.png", "two")


ODD_NAMES = sorted(f"all/odd{i}{Path(file).suffix}" for i, (_, file) in enumerate(ODD.values()))

FAULTS = [
    *(alone(name, make, file, says) for name, (make, file, says) in {**BAD, **ABSENT}.items()),
    *(mixed(name, make, file, says) for name, (make, file, says) in {**BAD, **ABSENT}.items()),
    *(
        Fault(f"picture: {name}", f"{PREDICT} {file}", 0, (file,), make, WRITES, then=predicted(file))
        for name, (make, file) in ODD.items()
    ),
    Fault(
        "mix: every kind", f"{PREDICT} all", 1, (), all_odd, WRITES, errors=len(BAD), then=predicted(*ODD_NAMES),
    ),
    Fault("picture: several, all bad", f"{PREDICT} one.png two.png", 2, ("one.png", "two.png"), two_bad, errors=2),
    Fault("mix: several bad", f"{PREDICT} one.png good.png two.png", 1, ("one.png", "two.png"), after_good(two_bad),
          WRITES, errors=2, then=predicted("good.png")),
    Fault("picture: bomb in little memory", f"{PREDICT} bad.png", 2, ("bad.png", "pixels"), BAD["bomb"][0],
          child="little_memory", given=800),
    Fault("picture: unreadable", f"{PREDICT} bad.png", 2, ("bad.png", "denied"), unreadable, child="nobody"),
    Fault("mix: unreadable", f"{PREDICT} good.png bad.png", 1, ("bad.png", "denied"), after_good(unreadable),
          WRITES, child="nobody", then=predicted("good.png")),
]  # fmt: skip
