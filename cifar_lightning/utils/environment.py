"""The environment of a run: machine, library versions, data. With seed and settings it decides every last bit."""

import hashlib
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a benchmark describes hardware and software without importing PyTorch
    import torch
    from torch import Tensor


def hardware() -> dict[str, str | int]:
    """Return the processor's name, the number of cores that this process may use, and the system."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return {
        "processor": processor(),
        "cores": len(affinity(0)) if affinity else os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.machine()}",
    }


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return its name, and where Linux lists them which wide arithmetic units it has."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    fields = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
    flags = fields.get("flags", "").split()
    units = [unit for unit in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if unit in flags]
    name = fields.get("model name") or platform.processor() or platform.machine()
    return f"{name} ({', '.join(units)})" if units else name


def software() -> dict[str, str]:
    """Return the versions that metrics depend on."""
    names = ("torch", "torchvision", "lightning", "torchmetrics")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def describe(device: "torch.device", *data: "Tensor") -> dict[str, Any]:
    """Return what must be the same for a run to end bit for bit the same.

    Args:
        device: The device of the training.
        data: Images and labels that it trains and validates on; the first 16 digits of their SHA-256 stand for them.
    """
    import torch

    digest = hashlib.sha256()  # 0.1 s for the 50,000 images
    for tensor in data:
        digest.update(tensor.numpy().data)
    return {
        "python": platform.python_version(),
        "lightning": version("lightning"),
        "torch": str(torch.__version__),  # with the build, 2.15.0+cu132, which installed metadata may lack
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "data": digest.hexdigest()[:16],
    }


def differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """Return each entry that differs, as `threads 2 (was 1)`."""
    names = [name for name in here if there.get(name) != here[name]]
    return [f"{name} {here[name]} (was {there.get(name, 'not recorded')})" for name in names]
