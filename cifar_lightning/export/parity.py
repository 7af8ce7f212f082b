"""Parity: an exported file predicts every image as the checkpoint does, or is none."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from cifar_lightning.errors import RunError
from cifar_lightning.export.formats import Pixels, Predict, Probabilities

# A runtime may choose another algorithm for one image, and a last batch is smaller than the others.
BATCHES = (1, 7, 500)
# Sums of float32 in another order make about 1e-6, a forgotten normalization makes 1.
LIMIT = 1e-5
# Two classes whose probabilities are as close may change places by rounding alone.
TIE = 1e-6
NAMED = 5


@dataclass(frozen=True)
class Parity:
    """How well a file agrees, and how fast it is."""

    largest: float  # difference of a probability
    ties: Sequence[str]  # images whose class changed between two that are equally likely, with these
    ms: dict[int, float]  # per image, by batch size


def run(predict: Predict, images: Pixels, size: int) -> tuple[Probabilities, float]:
    """Return the probabilities of all images in batches of this size, and milliseconds per image."""
    found = []
    started = time.perf_counter()
    with tqdm(total=len(images), desc=f"batches of {size}", leave=False, disable=None) as bar:  # only at a terminal
        for start in range(0, len(images), size):
            found.append(predict(images[start : start + size]))
            bar.update(len(found[-1]))
    return np.concatenate(found), 1000 * (time.perf_counter() - started) / len(images)


def compare(name: str, predict: Predict, images: Pixels, expected: Probabilities, classes: Sequence[str]) -> Parity:
    """Predict the images in batches of each size; a `RunError` names those that are not predicted as expected."""
    largest, ties, ms = 0.0, dict[str, None](), dict[int, float]()
    for size in BATCHES:
        found, ms[size] = run(predict, images, size)
        differences = np.abs(found - expected).max(1)
        was, now = expected.argmax(1), found.argmax(1)
        rows = np.arange(len(images))
        tied = (was != now) & (expected[rows, was] - expected[rows, now] <= TIE)
        wrong = np.flatnonzero(~(differences < LIMIT) | ((was != now) & ~tied))  # so that NaN is wrong, too
        if len(wrong):
            more = f" and {len(wrong) - NAMED:,} more" if len(wrong) > NAMED else ""
            named = ", ".join(f"test/{row:04d}" for row in wrong[:NAMED])
            cause = f"in batches of {size} it predicts {named}{more} otherwise than the checkpoint"
            cause += f" (probabilities differ by up to {differences.max():.1e})"
            raise RunError(name, cause, "it was not kept; try another --format")
        largest = max(largest, float(differences.max()))
        ties |= {f"test/{row:04d} ({classes[was[row]]} or {classes[now[row]]})": None for row in np.flatnonzero(tied)}
    return Parity(largest, list(ties), ms)
