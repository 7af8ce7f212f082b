import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cifar_lightning.data import user_images
from cifar_lightning.errors import InputError

NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def tensor(pixels: np.ndarray) -> Tensor:
    """Rows x columns x channels to the form of `user_images.read`."""
    return torch.from_numpy(pixels).permute(2, 0, 1)


def colour(image: Tensor) -> list[int]:
    """The one colour of a image of one colour."""
    assert torch.equal(image, image[:, :1, :1].expand(3, 32, 32))
    return [int(value) for value in image[:, 0, 0]]


def save(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize(("suffix", "options"), [("png", {}), ("bmp", {}), ("tiff", {}), ("webp", {"lossless": True})])
def test_a_32_by_32_image_comes_back_unchanged(tmp_path: Path, suffix: str, options: dict[str, object]) -> None:
    read = user_images.read(save(Image.fromarray(NOISE), tmp_path / f"a.{suffix}", **options))
    assert read.dtype == torch.uint8
    assert read.is_contiguous()
    assert torch.equal(read, tensor(NOISE))


def test_the_name_does_not_matter(tmp_path: Path) -> None:
    path = save(Image.fromarray(NOISE), tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert torch.equal(user_images.read(path), tensor(NOISE))


def test_the_middle_square_is_cut_out(tmp_path: Path) -> None:
    wide = np.zeros((32, 96, 3), dtype=np.uint8)
    wide[:, 32:64] = NOISE
    assert torch.equal(user_images.read(save(Image.fromarray(wide), tmp_path / "a.png")), tensor(NOISE))
    tall = np.ascontiguousarray(wide.transpose(1, 0, 2))
    expected = tensor(np.ascontiguousarray(NOISE.transpose(1, 0, 2)))
    assert torch.equal(user_images.read(save(Image.fromarray(tall), tmp_path / "b.png")), expected)


def test_shrinking_averages(tmp_path: Path) -> None:
    checkers = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)
    shrunk = user_images.read(save(Image.fromarray(checkers), tmp_path / "a.png"))
    assert (shrunk.float() - 127.5).abs().max() < 2


def test_any_shape_is_taken(tmp_path: Path) -> None:
    for size in ((1, 1), (1, 1000), (31, 7)):
        assert colour(user_images.read(save(Image.new("RGB", size, (9, 99, 199)), tmp_path / "a.png"))) == [9, 99, 199]


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned a quarter clockwise
    path = save(Image.fromarray(NOISE), tmp_path / "a.png", exif=exif)
    assert torch.equal(user_images.read(path), tensor(np.rot90(NOISE, -1).copy()))


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "lime", "blue")]
    path = save(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert colour(user_images.read(path)) == [255, 0, 0]


@pytest.mark.parametrize(
    ("mode", "value", "suffix", "expected"),
    [
        ("1", 1, "png", [255, 255, 255]),
        ("L", 77, "png", [77, 77, 77]),
        ("LA", (77, 255), "png", [77, 77, 77]),
        ("P", 0, "png", [0, 0, 0]),
        ("I;16", 65535, "png", [255, 255, 255]),
        ("I;16", 257 * 77, "png", [77, 77, 77]),
        ("I;16", 257 * 77, "tiff", [77, 77, 77]),
        ("I;16B", 257 * 77, "tiff", [77, 77, 77]),
        ("CMYK", (0, 255, 255, 0), "tiff", [255, 0, 0]),
        ("RGBA", (255, 0, 0, 0), "png", [255, 255, 255]),
        ("RGBA", (0, 0, 0, 51), "png", [204, 204, 204]),
        ("RGBA", (10, 20, 30, 255), "webp", [10, 20, 30]),
    ],
)
def test_every_kind_of_pixel_becomes_rgb(
    tmp_path: Path, mode: str, value: int | tuple[int, ...], suffix: str, expected: list[int]
) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    assert (
        colour(user_images.read(save(Image.new(mode, (50, 40), value), tmp_path / f"a.{suffix}", **options)))
        == expected
    )


@pytest.mark.parametrize(("mode", "value"), [("L", 77), ("P", 0), ("RGB", (1, 2, 3)), ("I;16", 30000)])
def test_a_colour_marked_as_transparent_shows_white(tmp_path: Path, mode: str, value: int | tuple[int, ...]) -> None:
    path = save(Image.new(mode, (40, 40), value), tmp_path / "a.png", transparency=value)
    assert colour(user_images.read(path)) == [255, 255, 255]


def test_a_cmyk_jpeg(tmp_path: Path) -> None:
    path = save(Image.new("CMYK", (40, 40), (0, 255, 255, 0)), tmp_path / "a.jpg", quality=100)
    assert np.allclose(colour(user_images.read(path)), [255, 0, 0], atol=3)


def bomb() -> bytes:
    """A PNG of a hundred bytes that says it has 20,000 x 20,000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "not an image in a known format"),
        (b"just text\n", "not an image in a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image in a known format"),
        (bomb(), "more than 89,478,485 pixels"),
    ],
)
def test_what_is_no_image_is_one_line(tmp_path: Path, content: bytes, cause: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(InputError) as raised:
        user_images.read(path)
    assert str(raised.value) == f"{path}: {cause}; give an image as JPEG, PNG, GIF, BMP, WEBP, TIFF"


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "webp", "tiff"])
def test_a_truncated_image(tmp_path: Path, suffix: str) -> None:
    path = save(Image.fromarray(NOISE).resize((64, 64)), tmp_path / f"a.{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"(damaged or cut short|not an image in a known format); give"):
        user_images.read(path)


def test_pixels_without_a_known_range(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="32-bit values"):
        user_images.read(save(Image.new("F", (40, 40), 0.5), tmp_path / "a.tiff"))


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    for name, cause in (
        ("link.png", "No such file"),
        ("pipe.png", "not a regular file"),
        ("", "no images in this folder"),
    ):
        with pytest.raises(InputError, match=cause) as raised:
            user_images.read(tmp_path / name)
        assert raised.value.field == str(tmp_path / name)


def test_the_order_is_kept_and_folders_are_sorted(tmp_path: Path) -> None:
    wanted = [tmp_path / name for name in ("a/z.gif", "b.JPG", "c.png")]
    hidden = [tmp_path / name for name in (".d.png", ".cache/e.png", "a/.f.png")]
    for path in [*wanted, *hidden, tmp_path / "notes.txt", tmp_path / "folder.png" / "g.txt"]:
        path.parent.mkdir(exist_ok=True)
        path.touch()

    def names(*paths: Path) -> list[Path]:
        return [path for path, _ in user_images.read_all(paths)]

    assert names(tmp_path / "notes.txt", tmp_path) == [tmp_path / "notes.txt", *wanted]
    assert names(tmp_path / ".cache") == [tmp_path / ".cache" / "e.png"]
    assert names() == []


def test_what_is_wrong_with_one_does_not_hide_the_others(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "good.png")
    (tmp_path / "empty").mkdir()
    asked = [tmp_path / name for name in ("absent.png", "empty", "good.png", "x" * 300)]
    found = dict(user_images.read_all(asked))
    assert list(found) == asked
    causes = [getattr(each, "cause", None) for each in found.values()]
    assert causes == ["No such file or directory", "no images in this folder", None, "File name too long"]
    assert isinstance(found[tmp_path / "good.png"], torch.Tensor)
