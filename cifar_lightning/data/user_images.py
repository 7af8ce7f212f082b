"""A person's own images, brought to the form of CIFAR-10: RGB, 32 by 32, 0 to 255. An opaque one of 32x32 is kept.

The format is told by content, not by name; of an animation the first frame counts. In this order an image is turned
upright (EXIF), scaled from 16 bits to 8, cut to its largest middle square, resized (bicubic, antialiased), and laid on
white where it is transparent. Colour profiles are ignored.
"""

import errno
import glob
import os
import stat
import sys
import warnings
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from cifar_lightning.errors import InputError

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"})
SIZE = (32, 32)


def load(paths: Sequence[str]) -> tuple[list[str], Tensor, list[InputError]]:
    """Return the names of all images, the images (N, 3, 32, 32; see `read`), and what is wrong with other files.

    Files stay in the order of `paths`, which may be patterns. Folders are searched by suffix, with all folders below
    them, sorted; hidden files and folders are skipped, links to folders not followed. If there is no image at all, the
    last error is raised.
    """
    names, images, refused = list[str](), list[Tensor](), list[InputError]()
    for file in chain.from_iterable(_files(Path(path)) for pattern in paths for path in _expanded(pattern)):
        try:
            images.append(read(file))
            names.append(str(file))
        except InputError as error:
            refused.append(error)
    if not images:
        for each in refused[:-1]:
            print(f"error: {each}", file=sys.stderr)
        raise refused[-1]
    return names, torch.stack(images), refused


def _expanded(pattern: str) -> list[str]:
    """Return the files of a pattern such as `pics/*.png`, sorted, where no shell has; else what was given."""
    if os.path.lexists(pattern):
        return [pattern]
    return sorted(glob.glob(pattern, recursive=True)) or [pattern]  # noqa: PTH207 - a Path's own takes hidden files


def _files(path: Path) -> list[Path]:
    try:
        below = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and not file.is_dir())
    except OSError:  # a name too long, say: `read` will find out
        below = []
    shown = [file for file in below if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    return shown or [path]


def read(path: Path) -> Tensor:
    """Return an image as uint8, shape (3, 32, 32), RGB, 0 to 255; InputError if it can't be read or is too large."""
    try:
        if path.is_dir():
            raise OSError(errno.EISDIR, "no images in this folder")
        if not stat.S_ISREG(path.stat().st_mode):  # a named pipe would block
            raise OSError(errno.EINVAL, "not a regular file")
        with warnings.catch_warnings(action="ignore"):  # about what Pillow repairs by itself
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                return _convert(image)
    except UnidentifiedImageError:
        cause = "not an image in a known format"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        cause = f"more than {Image.MAX_IMAGE_PIXELS:,} pixels"
    except Exception as error:  # on broken bytes Pillow's decoders raise anything, struct.error and KeyError included
        cause = getattr(error, "strerror", None) or "damaged or cut short"
    raise InputError(str(path), cause, f"give an image as {', '.join(FORMATS)}")


def _convert(image: Image.Image) -> Tensor:
    if image.mode in ("I", "F"):
        raise OSError(errno.EINVAL, "32-bit values, of which no one can say what is white")
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):  # Pillow's own conversion clips these values
        values = np.asarray(upright)
        scaled = np.where(values == image.info.get("transparency", -1), 255, (values + 128.0) // 257)
        upright = Image.fromarray(scaled.astype(np.uint8))
    small = ImageOps.fit(upright.convert("RGBA"), SIZE, Image.Resampling.BICUBIC)  # weighs colours by their alpha
    white = Image.new("RGBA", SIZE, "white")
    pixels = np.array(Image.alpha_composite(white, small).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
