"""The environment of a run: machine, library versions, data. With seed and settings it decides every last bit."""

import hashlib
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a benchmark describes the hardware without importing PyTorch
    import torch
    from torch import Tensor


def hardware() -> dict[str, str | int]:
    """The processor's name, the cores this process may use, and the system."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return {
        "processor": processor(),
        "cores": len(affinity(0)) if affinity else os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.machine()}",
    }


def software() -> dict[str, str]:
    """Versions of what the figures depend on."""
    names = ("torch", "torchvision", "lightning", "torchmetrics")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Its name as the system tells it, and which wide arithmetic it has, where Linux lists that."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    fields = dict(reversed([[word.strip() for word in line.split(":", 1)] for line in lines if ":" in line]))
    found = set(fields.get("flags", "").split())
    wide = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in found]
    name = fields.get("model name") or platform.processor() or platform.machine()
    return f"{name} ({', '.join(wide)})" if wide else name


def describe(device: "torch.device", *data: "Tensor") -> dict[str, Any]:
    """What a run must find again to end bit for bit the same.

    Args:
        device: Where it trains.
        data: Images and labels that it trains and validates on.

    Returns:
        Plain values, each under a word for people.
    """
    import torch

    return {
        "python": platform.python_version(),
        "lightning": version("lightning"),
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "data": fingerprint(*data),
    }


def differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """What is not as it was, in words: `threads 2 (was 1)`."""
    names = [name for name in here if there.get(name) != here[name]]
    return [f"{name} {here[name]} (was {there.get(name, 'not recorded')})" for name in names]


def fingerprint(*data: "Tensor") -> str:
    """The first 16 digits of the SHA-256 over images and labels, in their order."""
    digest = hashlib.sha256()  # 0.1 s for the 50,000 images
    for tensor in data:
        digest.update(tensor.numpy().data)
    return digest.hexdigest()[:16]
