"""Where the images come from: the official files, put there if need be, or the stand-in."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from cifar_lightning.errors import InputError

Source = Literal["cifar10", "synthetic", "auto"]


def data_root(root: str | None) -> Path:
    """The folder of the data: `root`, else the environment variable CIFAR10_ROOT, else `data`."""
    return Path(root or os.environ.get("CIFAR10_ROOT") or "data").expanduser()


def prepare(source: Source, root: Path, mirrors: Sequence[str]) -> tuple[Source, str]:
    """Downloads CIFAR-10 if it is wanted and not there, and settles `auto`.

    Returns:
        `cifar10` or `synthetic`, and why `auto` had to take the synthetic stand-in (else nothing).

    Raises:
        InputError: There is no CIFAR-10, and nothing else would do.
    """
    if source == "synthetic":
        return source, ""
    from cifar_lightning.data.download import ensure  # here, because requests takes 0.2 s to import

    try:
        ensure(root, mirrors)
    except InputError as error:
        if source == "auto":
            return "synthetic", error.cause
        raise
    return "cifar10", ""


def settle(source: Source, root: Path, mirrors: Sequence[str]) -> Source:
    """Makes `auto` one of the others, and says aloud if it has to be the stand-in."""
    if source != "auto":
        return source
    settled, reason = prepare(source, root, mirrors)
    if reason:
        print(f"{reason}: using the synthetic stand-in instead of CIFAR-10", file=sys.stderr)
    return settled


def tagged(name: str, source: Source) -> str:
    """The name of a run, which tells where its images are from."""
    return f"{name}-synthetic" if source == "synthetic" else name
