"""What, besides seed and settings, decides every last bit of a run: the machine, the libraries, the data."""

import hashlib
import platform
from typing import Any

import lightning
import torch

from cifar_lightning.data.imageset import ImageSet


def describe(device: torch.device, *sets: ImageSet) -> dict[str, Any]:
    """What a run must find again to end bit for bit the same.

    Args:
        device: Where it trains.
        sets: What it trains and validates on.

    Returns:
        Plain values, each under a word for people.
    """
    return {
        "python": platform.python_version(),
        "lightning": lightning.__version__,
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "data": fingerprint(*sets),
    }


def differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """What is not as it was, in words: `threads 2 (was 1)`."""
    names = [name for name in here if there.get(name) != here[name]]
    return [f"{name} {here[name]} (was {there.get(name, 'not recorded')})" for name in names]


def fingerprint(*sets: ImageSet) -> str:
    """The first 16 digits of the SHA-256 over images and labels, in their order."""
    digest = hashlib.sha256()  # 0.1 s for the 50,000 images
    for images, labels in sets:
        digest.update(images.numpy().data)
        digest.update(labels.numpy().data)
    return digest.hexdigest()[:16]
