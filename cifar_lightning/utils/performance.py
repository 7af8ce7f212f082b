"""Process settings that make a run fast, one function each, with what it gained.

Measured on two cores of a Xeon with AVX-512 and no bfloat16, batch 100, where nothing else is said.
"""

import contextlib
import ctypes
import gc
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator


def prepare() -> None:
    """Set this process up; call it once, before the first tensor."""
    keep_freed_memory()
    # Numbers below 1e-38 become 0. Adam's running means of a unit that died decay through them, and a multiplication
    # takes 13 times as long there. (No unit dies in 50 epochs of either recipe: this is for rates that kill.)
    torch.set_flush_denormal(True)
    cap_threads()
    skip_driver_checks()


def keep_freed_memory() -> None:
    """Have glibc keep large freed buffers instead of returning them to the system.

    A step frees and takes again buffers of tens of MB, and each of their pages, new from the system, is a fault: 8,000
    a step of the CNN, 16 ms of the system's time. Kept, they are under 400, and the step takes 151 ms in place of 161
    (with bfloat16 on an EPYC: 60 in place of 113). Without glibc nothing is done.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return
    glibc = ctypes.CDLL(None)
    # Numbers from malloc.h. Never trim, grow by 256 MiB, and give a buffer a mapping of its own from 1 GiB on (some
    # versions take no more than 32 MiB): the largest ones, if they shared the heap, would leave holes in it.
    m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3
    glibc.mallopt(m_trim_threshold, 2**31 - 1)
    glibc.mallopt(m_top_pad, 2**28)
    if not glibc.mallopt(m_mmap_threshold, 2**30):
        glibc.mallopt(m_mmap_threshold, 2**25)


def cap_threads(quota_file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Use no more threads than a container's quota has cores; return how many are in use.

    PyTorch's default is the number of physical cores, quota or not, and threads beyond the quota wait for each other:
    with one of two cores busy otherwise, two made the MLP ten times slower than one. OMP_NUM_THREADS overrides both.

    The quota file holds microseconds of processor time per period, and the period (Linux's control groups).
    """
    with contextlib.suppress(OSError, ValueError):  # not Linux, or no quota ("max")
        quota, period = map(int, quota_file.read_text().split())
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, min(torch.get_num_threads(), quota // period)))
    return torch.get_num_threads()


def skip_driver_checks() -> None:
    """Keep PyTorch's optimizers from looking for a CUDA driver at every step, where there is none.

    Lightning has PyTorch ask NVML, a library that is loaded anew each time: 0.2 ms of the MLP's 6 ms a step, not 0.004.
    """
    if not torch.cuda.is_available():
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"


@contextlib.contextmanager
def still_heap() -> Iterator[None]:
    """Keep the garbage collector from visiting what was there before: some 400,000 objects of imported libraries."""
    gc.freeze()  # they live to the end, and a full collection that visits them all takes 0.3 s
    try:
        yield
    finally:
        gc.unfreeze()


def best_precision(accelerator: str) -> tuple[str, str]:
    """Return the fastest precision that leaves accuracy where it is: bfloat16 where the hardware computes in it.

    A matrix product runs four times faster in it on an EPYC with AVX-512 BF16; where it is emulated, the CNN's step
    takes twice as long.

    Args:
        accelerator: As `trainer.accelerator` takes it: `auto`, `cpu`, `gpu`, `cuda`, `mps`.

    Returns:
        The precision as `trainer.precision` takes it, and the reason for it.
    """
    if accelerator in ("auto", "gpu", "cuda") and CUDAAccelerator.is_available():
        able, device = torch.cuda.is_bf16_supported(including_emulation=False), "GPU"
    elif accelerator in ("auto", "gpu", "mps") and MPSAccelerator.is_available():
        return "32-true", "Apple's GPUs are used in float32"
    else:
        # PyTorch 2.10 does not have it; nothing is lost there but speed.
        capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        able, device = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16")), "CPU"
    if able:
        return "bf16-mixed", f"this {device} computes in bfloat16"
    return "32-true", f"this {device} has no fast bfloat16"
