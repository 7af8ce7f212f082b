"""What a figure was measured on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


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
