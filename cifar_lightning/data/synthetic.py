"""A stand-in for CIFAR-10, drawn on the spot: ten classes of shapes that only their form tells apart.

The same bytes come out on every machine: of floating-point operations there are only those that IEEE 754 rounds exactly
(+ - * / sqrt, comparisons), none whose order a library may choose (sums, matrix products). NumPy may draw other numbers
in a later release; the hash that the tests pin would tell.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from cifar_lightning.data import ImageSet

Floats = NDArray[np.float32]

SIDE = 32
CHUNK = 100  # Images drawn at once: few enough to stay in the processor's cache. Another number gives other images.

# What hides the class, in pixels but for the last three. An MLP pays most for SHIFT, a CNN for NOISE.
SHIFT = 5.0  # how far the shape's middle lies from the image's, at most, along each axis
SCALE = (7.0, 11.0)  # half the side of the square that the shape fills
BLOB = (2.0, 5.0)  # radius of the spot that may cover part of the shape
TILT = 0.25  # tangent of the greatest rotation, either way
OPACITY = (0.6, 1.0)  # how much of the shape's colour shows
NOISE = 20.0  # the most that is added to a channel or taken from it, of 255


# Each shape is the distance of points (u, v) from it, negative inside, within about -1 to 1; u to the right, v down.
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


def make(*, train: bool) -> ImageSet:
    """Draw 50,000 training or 10,000 test images, from different seeds, in random order and as many of each class."""
    seed, count = (20_090_408, 50_000) if train else (20_090_409, 10_000)
    rng = np.random.Generator(np.random.PCG64(seed))
    labels = rng.permutation(np.arange(count) % len(CLASSES))
    images = np.empty((count, 3, SIDE, SIDE), np.uint8)
    for start in range(0, count, CHUNK):
        images[start : start + CHUNK] = _draw(labels[start : start + CHUNK], rng)
    return ImageSet(torch.from_numpy(images), torch.from_numpy(labels))


def _draw(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.uint8]:
    def uniform(low: float, high: float, *channels: int) -> Floats:
        return (low + (high - low) * rng.random((len(labels), *channels, 1, 1))).astype(np.float32)

    def grid(shift: float) -> tuple[Floats, Floats]:
        # x (B, 1, 32) and y (B, 32, 1) in pixels, from points at most `shift` pixels off the middle.
        axis = np.arange(SIDE, dtype=np.float32) - np.float32((SIDE - 1) / 2)
        return axis - uniform(-shift, shift), axis[:, None] - uniform(-shift, shift)

    def cover(inside: Floats) -> Floats:
        # A pixel's middle lies so many pixels inside: covered or not, with a ramp one pixel wide at the edge.
        return (inside[:, None] + np.float32(0.5)).clip(0, 1)

    canvas = np.full((len(labels), 3, SIDE, SIDE), uniform(0, 255, 3))
    x, y = grid(0)
    gradient = x * uniform(-1 / SIDE, 1 / SIDE) + y * uniform(-1 / SIDE, 1 / SIDE)
    canvas += cover(gradient) * (uniform(0, 255, 3) - canvas)
    x, y = grid(SHIFT)
    scale, tilt = uniform(*SCALE), uniform(-TILT, TILT)
    length = scale * np.sqrt(1 + tilt * tilt)  # the rotation by arctan(tilt), without a sine
    u, v = (x + tilt * y) / length, (y - tilt * x) / length
    outside = np.empty_like(u)
    for label, shape in enumerate(SHAPES.values()):
        rows = labels == label
        outside[rows] = shape(u[rows], v[rows])
    canvas += cover(-outside * scale) * uniform(*OPACITY, 1) * (uniform(0, 255, 3) - canvas)
    x, y = grid(12)
    canvas += cover(uniform(*BLOB) - _disc(x, y, 0)) * (uniform(0, 255, 3) - canvas)
    # Every byte is a draw: whole-range integers take a fifth of the time of a narrower range.
    canvas += rng.integers(-128, 128, canvas.shape, np.int8) * np.float32(NOISE / 128)
    return np.clip(canvas, 0, 255, out=canvas).astype(np.uint8)
