"""The source of the images, CIFAR-10 or the stand-in. No torch here: importing it takes a study's plan a second."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from cifar_lightning.errors import InputError

Source = Literal["cifar10", "synthetic", "auto"]


def data_root(root: str | None) -> Path:
    """Return the data folder: `root`, else the environment variable CIFAR10_ROOT, else `data`."""
    return Path(root or os.environ.get("CIFAR10_ROOT") or "data").expanduser()


def resolve_source(source: Source, root: Path, mirrors: Sequence[str]) -> Source:
    """Resolve `auto`, downloading CIFAR-10 if it is missing, and print why if it has to be the synthetic stand-in."""
    if source != "auto":
        return source
    from cifar_lightning.data.cifar10 import ensure

    try:
        ensure(root, mirrors)
    except InputError as error:
        print(f"{error.cause}: using the synthetic stand-in instead of CIFAR-10", file=sys.stderr)
        return "synthetic"
    return "cifar10"


def tagged(name: str, source: Source) -> str:
    """Return the name of a run, marked if its images are the stand-in."""
    return f"{name}-synthetic" if source == "synthetic" else name
