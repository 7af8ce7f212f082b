"""A person's own pictures, brought to the form of CIFAR-10: RGB, 32 by 32, 0 to 255.

How a picture is converted, in this order:

1. JPEG, PNG, GIF, BMP, WEBP or TIFF, told by content and not by name; of an animation, the first frame.
2. Turned upright as its EXIF orientation says.
3. 16-bit grey values are scaled to 8 bits; greyscale, palette, CMYK and so on become RGB. Colour profiles are ignored.
4. The largest square in the middle is cut out and resized to 32x32, bicubic with antialiasing.
5. What is transparent shows white.

So an opaque 32x32 RGB picture comes back byte for byte.
"""

import contextlib
import errno
import stat
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from cifar_lightning.errors import InputError

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"})
SIZE = (32, 32)


def read_all(paths: Sequence[Path]) -> Iterator[tuple[Path, Tensor | InputError]]:
    """Reads the pictures that were asked for.

    Args:
        paths: Files, taken as they are, and folders, searched with all folders below them by suffix. Hidden files and
            folders are skipped, and links to folders are not followed.

    Yields:
        Each file with what `read` gives, or what is wrong with it, in the order of `paths`, those of a folder sorted; a
        folder without pictures with that.
    """
    for path in paths:
        for picture in _search(path) if _is_folder(path) else [path]:
            try:
                yield picture, read(picture)
            except InputError as error:
                yield picture, error


def read(path: Path) -> Tensor:
    """Reads one picture; the module's docstring says how it is converted.

    Args:
        path: The file; a picture of more pixels than Pillow's `MAX_IMAGE_PIXELS`, 89 million, is not decoded.

    Returns:
        uint8, shape (3, 32, 32), RGB, 0 to 255.

    Raises:
        InputError: It is no regular file, not in a known format, too large, damaged or cut short.
    """
    try:
        if path.is_dir():
            raise OSError(errno.EISDIR, "no pictures in this folder")
        if not stat.S_ISREG(path.stat().st_mode):  # a named pipe would block
            raise OSError(errno.EINVAL, "not a regular file")
        with warnings.catch_warnings(action="ignore"):  # what Pillow can mend is no news to the person
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                return _convert(image)
    except Exception as error:  # on broken bytes Pillow's decoders raise anything, struct.error and KeyError included
        raise InputError(str(path), _cause(error), f"give a picture as {', '.join(FORMATS)}") from None


def _is_folder(path: Path) -> bool:
    with contextlib.suppress(OSError):  # a name too long, say: `read` will find out
        return path.is_dir()
    return False


def _search(folder: Path) -> list[Path]:
    """Returns the pictures below a folder, sorted; the folder itself if there are none."""
    below = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.is_dir())
    found = sorted(path for path in below if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    return found or [folder]


def _cause(error: Exception) -> str:
    """What is wrong with a picture, in one line."""
    match error:
        case UnidentifiedImageError():
            return "not a picture in a known format"
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return f"more than {Image.MAX_IMAGE_PIXELS:,} pixels"
        case OSError(strerror=str(reason)):  # the system's words, or those above and below
            return reason
        case _:
            return "damaged or cut short"


def _convert(image: Image.Image) -> Tensor:
    """Does steps 2 to 5 of the module's docstring; returns uint8, shape (3, 32, 32)."""
    if image.mode in ("I", "F"):
        raise OSError(errno.EINVAL, "32-bit values, of which no one can say what is white")
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        upright = _eight_bit(upright)
    small = ImageOps.fit(upright.convert("RGBA"), SIZE, Image.Resampling.BICUBIC)  # weighs colours by their alpha
    white = Image.new("RGBA", SIZE, "white")
    pixels = np.array(Image.alpha_composite(white, small).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scales 16-bit grey values to 8 bits (Pillow's own conversion clips them); a transparent value becomes white."""
    values = np.asarray(image)
    scaled = np.where(values == image.info.get("transparency", -1), 255, (values + 128.0) // 257)
    return Image.fromarray(scaled.astype(np.uint8))
