"""An embedded stand-in for CIFAR-10: ten classes of drawn shapes, made on the spot.

Colour, place, size, tilt, background and noise are drawn independently of the class, so only the form tells it.
The same bytes come out on every machine: of floating-point operations there are only the ones that IEEE 754 rounds
exactly (+ - * / sqrt, comparisons) and none whose order a library may choose (sums, matrix products). NumPy keeps the
right to draw other numbers in a later release; the hash that the tests pin would tell.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from cifar_lightning.data.image_set import ImageSet

Floats = NDArray[np.float32]

SIDE = 32
TRAIN_SEED, TEST_SEED = 20_090_408, 20_090_409
CHUNK = 100  # Images drawn at once: few enough to stay in the processor's cache. Another number gives other images.

# What hides the class, in pixels but for the last three. An MLP pays most for SHIFT, a CNN for NOISE.
SHIFT = 5.0  # how far the shape's middle lies from the image's, at most, along each axis
SCALE = (7.0, 11.0)  # half the side of the square that the shape fills
BLOB = (2.0, 5.0)  # radius of the spot that may cover part of the shape
TILT = 0.25  # tangent of the greatest rotation, either way
OPACITY = (0.6, 1.0)  # how much of the shape's colour shows
NOISE = 20.0  # the most that is added to a channel or taken from it, of 255


# Each shape tells how far the points (u, v) lie outside it, negative inside. It is drawn within about -1 to 1, u to
# the right and v down.
def _disc(u: Floats, v: Floats, radius: float = 0.9) -> Floats:
    return np.sqrt(u * u + v * v) - np.float32(radius)


def _box(u: Floats, v: Floats, half_width: float = 0.8, half_height: float = 0.8) -> Floats:
    return np.maximum(np.abs(u) - np.float32(half_width), np.abs(v) - np.float32(half_height))


def _wedge(u: Floats, v: Floats) -> Floats:
    return np.maximum(np.float32(0.87) * np.abs(u) - np.float32(0.5) * v, v) - np.float32(0.55)


SHAPES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "circle": _disc,
    "square": _box,
    "triangle": _wedge,
    "cross": lambda u, v: np.minimum(_box(u, v, 0.95, 0.25), _box(u, v, 0.25, 0.95)),
    "ring": lambda u, v: np.abs(_disc(u, v, 0.7)) - np.float32(0.2),
    "frame": lambda u, v: np.abs(_box(u, v, 0.65, 0.65)) - np.float32(0.2),
    "star": lambda u, v: np.minimum(_wedge(u, v), _wedge(u, -v)),
    "crescent": lambda u, v: np.maximum(_disc(u, v), -_disc(u - np.float32(0.45), v, 0.7)),
    "bars": lambda u, v: _box(np.abs(u) - np.float32(0.5), v, 0.25, 0.85),
    "dots": lambda u, v: _disc(np.abs(u) - np.float32(0.5), np.abs(v) - np.float32(0.5), 0.35),
}
CLASSES: tuple[str, ...] = tuple(SHAPES)


def make(*, train: bool, count: int | None = None) -> ImageSet:
    """Make the training or the test images.

    Args:
        train: Whether to make the training set; the two are drawn from different seeds.
        count: How many images, a multiple of 10; by default 50,000 to train and 10,000 to test.

    Returns:
        uint8 images of shape (count, 3, 32, 32), and int64 labels in random order, as many of each class.
    """
    rng = np.random.Generator(np.random.PCG64(TRAIN_SEED if train else TEST_SEED))
    if count is None:
        count = 50_000 if train else 10_000
    labels = rng.permutation(np.arange(count) % len(CLASSES))
    images = np.empty((count, 3, SIDE, SIDE), np.uint8)
    for start in range(0, count, CHUNK):
        chunk = slice(start, start + CHUNK)
        images[chunk] = _draw(labels[chunk], rng)
    return ImageSet(torch.from_numpy(images), torch.from_numpy(labels))


def _draw(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one image for each label: background, shape, blob, noise."""
    n = len(labels)
    canvas = np.empty((n, 3, SIDE, SIDE), np.float32)
    canvas[:] = _colour(n, rng)
    _paint(canvas, _gradient(n, rng), _colour(n, rng))
    _paint(canvas, _shape(labels, rng) * _uniform(n, *OPACITY, rng), _colour(n, rng))
    _paint(canvas, _blob(n, rng), _colour(n, rng))
    # Every byte is a draw: whole-range integers take a fifth of the time of a narrower range.
    canvas += rng.integers(-128, 128, canvas.shape, np.int8) * np.float32(NOISE / 128)
    return np.clip(canvas, 0, 255, out=canvas).astype(np.uint8)


def _uniform(n: int, low: float, high: float, rng: np.random.Generator) -> Floats:
    """One number an image, from low to high, shape (n, 1, 1)."""
    return (low + (high - low) * rng.random((n, 1, 1))).astype(np.float32)


def _colour(n: int, rng: np.random.Generator) -> Floats:
    """One colour an image, 0 to 255, shape (n, 3, 1, 1)."""
    return (255 * rng.random((n, 3, 1, 1))).astype(np.float32)


def _paint(canvas: Floats, cover: Floats, colour: Floats) -> None:
    """Lay a colour over the canvas where cover, shape (n, 32, 32), is 1; mix where it lies between 0 and 1."""
    canvas += cover[:, None] * (colour - canvas)


def _cover(inside: Floats) -> Floats:
    """From how far inside a pixel's middle lies, in pixels: 1 within, 0 without, and a ramp one pixel wide between."""
    cover: Floats = np.clip(inside + np.float32(0.5), 0, 1)
    return cover


def _grid(n: int, shift: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Pixel coordinates x (n, 1, 32) and y (n, 32, 1), from a point at most `shift` pixels off the middle."""
    axis = np.arange(SIDE, dtype=np.float32) - np.float32((SIDE - 1) / 2)
    return axis - _uniform(n, -shift, shift, rng), axis[:, None] - _uniform(n, -shift, shift, rng)


def _shape(labels: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """How much of each pixel the label's shape covers, 0 to 1."""
    n = len(labels)
    x, y = _grid(n, SHIFT, rng)
    scale, tilt = _uniform(n, *SCALE, rng), _uniform(n, -TILT, TILT, rng)
    # The rotation by arctan(tilt), without a sine.
    length = scale * np.sqrt(1 + tilt * tilt)
    u, v = (x + tilt * y) / length, (y - tilt * x) / length
    outside = np.empty_like(u)
    for label, shape in enumerate(SHAPES.values()):
        rows = labels == label
        outside[rows] = shape(u[rows], v[rows])
    return _cover(-outside * scale)


def _blob(n: int, rng: np.random.Generator) -> Floats:
    """How much of each pixel a spot anywhere in the image covers, 0 to 1."""
    x, y = _grid(n, 12, rng)
    return _cover(_uniform(n, *BLOB, rng) - _disc(x, y, 0))


def _gradient(n: int, rng: np.random.Generator) -> Floats:
    """From 0 to 1 in a random direction, at a random pace."""
    x, y = _grid(n, 0, rng)
    along: Floats = x * _uniform(n, -1, 1, rng) + y * _uniform(n, -1, 1, rng)
    return _cover(along / np.float32(SIDE))
