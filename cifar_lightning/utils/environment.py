"""The environment of a run: machine, library versions, data. With seed and settings it decides every last bit."""

import hashlib
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a benchmark describes hardware and software without importing PyTorch
    import torch


def hardware() -> dict[str, str | int]:
    """Return the processor's name, the number of cores that this process may use, and the system."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # not on macOS
    return {"processor": processor(), "cores": cores, "system": f"{platform.system()} {platform.machine()}"}


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return its name, and where Linux lists them which wide arithmetic units it has."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    fields = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
    units = [u for u in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if u in fields.get("flags", "").split()]
    name = fields.get("model name") or platform.processor() or platform.machine()
    return f"{name} ({', '.join(units)})" if units else name


def software() -> dict[str, str]:
    """Return the versions that metrics depend on."""
    names = ("torch", "torchvision", "lightning", "torchmetrics")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def describe(device: "torch.device", *data: "torch.Tensor") -> dict[str, Any]:
    """Return what must be the same for a run to end bit for bit the same; of its data, the start of their SHA-256."""
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
    return [f"{k} {v} (was {there.get(k, 'not recorded')})" for k, v in here.items() if there.get(k) != v]
