import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cifar_lightning.data import user_images
from cifar_lightning.errors import InputError

NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
WIDE = np.pad(NOISE, ((0, 0), (32, 32), (0, 0)))
LOSSLESS = {"lossless": True}
TURNED = Image.Exif()
TURNED[0x0112] = 6  # to be shown turned a quarter clockwise
FRAMES = [Image.new("RGB", (40, 40), colour) for colour in ("red", "lime", "blue")]


def read(path: Path, image: Image.Image, **options: Any) -> Tensor:
    image.save(path, **options)
    return user_images.read(path)


@pytest.mark.parametrize(
    ("name", "pixels", "options", "expected"),
    [
        *((f"a.{suffix}", NOISE, {}, NOISE) for suffix in ("png", "bmp", "tiff")),
        ("a.webp", NOISE, LOSSLESS, NOISE),
        ("a.jpg", NOISE, {"format": "PNG"}, NOISE),  # told by content, not by name
        ("a.png", WIDE, {}, NOISE),  # the middle square is cut out
        ("a.png", WIDE.transpose(1, 0, 2), {}, NOISE.transpose(1, 0, 2)),
        ("a.png", NOISE, {"exif": TURNED}, np.rot90(NOISE, -1)),
    ],
)
def test_pixels_are_kept(
    tmp_path: Path, name: str, pixels: NDArray[np.uint8], options: dict[str, Any], expected: NDArray[np.uint8]
) -> None:
    found = read(tmp_path / name, Image.fromarray(np.ascontiguousarray(pixels)), **options)
    assert found.is_contiguous()
    assert torch.equal(found, torch.from_numpy(expected.copy()).permute(2, 0, 1))


def test_shrinking_averages(tmp_path: Path) -> None:
    checkers = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)
    assert (read(tmp_path / "a.png", Image.fromarray(checkers)).float() - 127.5).abs().max() < 2


def test_any_shape_is_taken(tmp_path: Path) -> None:
    for size in ((1, 1), (1, 1000), (31, 7)):
        found = read(tmp_path / "a.png", Image.new("RGB", size, (9, 99, 199)))
        assert (found.flatten(1) == torch.tensor([[9], [99], [199]])).all()


@pytest.mark.parametrize(
    ("mode", "value", "suffix", "expected", "options"),
    [
        *((*each, {}) for each in [("1", 1, "png", 255), ("L", 77, "png", 77), ("LA", (77, 255), "png", 77)]),
        *((*each, {}) for each in [("P", 0, "png", 0), ("I;16", 65535, "png", 255), ("I;16", 257 * 77, "png", 77)]),
        *(("I;16", 257 * 77, "tiff", 77, {}), ("I;16B", 257 * 77, "tiff", 77, {})),
        ("I;16", 257 * 77 + 129, "png", 78, {}),  # rounded
        ("CMYK", (0, 255, 255, 0), "tiff", [255, 0, 0], {}),
        ("CMYK", (0, 255, 255, 0), "jpg", [255, 0, 0], {"quality": 100}),
        *(("RGBA", (255, 0, 0, 0), "png", 255, {}), ("RGBA", (0, 0, 0, 51), "png", 204, {})),
        ("RGBA", (10, 20, 30, 255), "webp", [10, 20, 30], LOSSLESS),
        # A colour marked as transparent shows white.
        *((mode, n, "png", 255, {"transparency": n}) for mode, n in [("L", 77), ("P", 0), ("I;16", 30000)]),
        ("RGB", (1, 2, 3), "png", 255, {"transparency": (1, 2, 3)}),
        # Of an animation, the first frame.
        ("RGB", (255, 0, 0), "gif", [255, 0, 0], {"save_all": True, "append_images": FRAMES}),
    ],
)
def test_every_kind_of_pixel_becomes_rgb(
    tmp_path: Path, mode: str, value: Any, suffix: str, expected: int | list[int], options: dict[str, Any]
) -> None:
    found = read(tmp_path / f"a.{suffix}", Image.new(mode, (50, 40), value), **options)
    difference = (found.int() - torch.tensor(expected).view(-1, 1, 1)).abs().max()
    assert difference <= (3 if suffix == "jpg" else 0)  # which JPEG does not store exactly


def bomb() -> bytes:
    """A PNG of a hundred bytes that says it has 20,000 x 20,000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "webp", "tiff"])
def test_a_truncated_image(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(NOISE).resize((64, 64)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"damaged or cut short|not an image in a known format"):
        user_images.read(path)


def test_patterns_that_no_shell_has_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("pics/b.png", "pics/a.png", "pics/.hidden.png", "pics/c.gif", "pics/more/d.png", "pics/[e].png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(NOISE).save(name)
    expected = {
        "pics/*.png": ["pics/[e].png", "pics/a.png", "pics/b.png"],
        "pics/?.*": ["pics/a.png", "pics/b.png", "pics/c.gif"],
        "pics/**/[d]*.png": ["pics/more/d.png"],
        "pics/[e].png": ["pics/[e].png"],  # a file of that name
        str(tmp_path / "p*/more"): [str(tmp_path / "pics/more/d.png")],  # a folder
    }
    for pattern, names in expected.items():
        assert user_images.load([pattern])[0] == names
    with pytest.raises(InputError, match=r"^pics/\*.jpg: No such file"):
        user_images.load(["pics/*.jpg"])


def test_files_are_found_in_order_and_what_is_wrong_with_one_hides_no_other(tmp_path: Path) -> None:
    wanted = [tmp_path / name for name in ("a/z.gif", "b.JPG", "c.png")]
    hidden = [tmp_path / name for name in (".d.png", ".cache/e.png", "a/.f.png")]
    for number, path in enumerate([*wanted, *hidden, tmp_path / "folder.png" / "g.txt"]):
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (32, 32), number).save(path, format="PNG")
    Image.new("F", (40, 40)).save(tmp_path / "a/values.tiff")
    (tmp_path / "b.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    os.mkfifo(tmp_path / "pipe.png")  # must not block
    bad = {"b.eps": "not an image in a known format", "a/values.tiff": "32-bit values, of which no one can say what"}
    names, images, refused = user_images.load([str(tmp_path / "b.eps"), str(tmp_path), str(tmp_path / ".cache")])
    assert names == [str(path) for path in (*wanted, hidden[1])]
    assert images[:, 0, 0, 0].tolist() == [0, 1, 2, 4]
    for error, (name, cause) in zip(refused, {**bad, "pipe.png": "not a regular file"}.items(), strict=True):
        assert str(error).startswith(f"{tmp_path / name}: {cause}")
        assert str(error).endswith("; give an image as JPEG, PNG, GIF, BMP, WEBP, TIFF")
