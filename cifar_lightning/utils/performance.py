"""What makes a run fast on the machine at hand: one trick a function, each with what it gained and where.

Measured on two cores of a Xeon with AVX-512 and no bfloat16, batch 100, where nothing else is said.
"""

import contextlib
import ctypes
import gc
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from lightning.pytorch.profilers import PassThroughProfiler

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def prepare() -> None:
    """Sets this process up; to be called once, before the first tensor."""
    keep_freed_memory()
    flush_denormals()
    cap_threads()
    skip_driver_checks()


def keep_freed_memory() -> bool:
    """Has glibc keep large freed buffers instead of returning them to the system.

    A step frees and takes again buffers of tens of MB, and each of their pages, new from the system, is a fault: 8,000
    a step of the CNN, 16 ms of the system's time. Kept, they are under 400, and the step takes 151 ms in place of 161
    (with bfloat16 on an EPYC: 60 in place of 113).

    Returns:
        Whether this is a Linux with glibc; elsewhere nothing is done.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    glibc = ctypes.CDLL(None)
    # Numbers from malloc.h. Never trim, grow by 256 MiB, and give a buffer a mapping of its own from 1 GiB on (some
    # versions take no more than 32 MiB): the largest ones, if they shared the heap, would leave holes in it.
    m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3
    done = glibc.mallopt(m_trim_threshold, 2**31 - 1) and glibc.mallopt(m_top_pad, 2**28)
    return bool(done and (glibc.mallopt(m_mmap_threshold, 2**30) or glibc.mallopt(m_mmap_threshold, 2**25)))


def flush_denormals() -> bool:
    """Takes numbers below 1e-38 for 0.

    A unit that died gets no gradient, and Adam's running means of it decay through such numbers, where a multiplication
    takes 13 times as long. (In 50 epochs of either recipe no unit does: this is for rates and depths that kill.)

    Returns:
        Whether the processor can. Threads that exist already do not; new ones do on Linux.
    """
    return torch.set_flush_denormal(True)


def cap_threads(quota_file: Path = CPU_QUOTA) -> int:
    """Takes no more threads than a container may use cores; else as many as there are physical cores.

    The latter is PyTorch's own default. It knows nothing of a container's quota, and threads beyond it wait for each
    other: with one of two cores busy otherwise, two made the MLP ten times slower than one. OMP_NUM_THREADS overrides
    both.

    Args:
        quota_file: Where Linux's control groups tell microseconds of processor time a period, and the period.

    Returns:
        Threads in use.
    """
    with contextlib.suppress(OSError, ValueError):  # not Linux, or no quota ("max")
        quota, period = map(int, quota_file.read_text().split())
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, min(torch.get_num_threads(), quota // period)))
    return torch.get_num_threads()


def skip_driver_checks() -> None:
    """Keeps PyTorch's optimisers from looking for a CUDA driver at every step, where there is none.

    Lightning has PyTorch ask NVML (`PYTORCH_NVML_BASED_CUDA_CHECK`), and each time it asks, PyTorch loads that library
    anew: 0.2 ms of the MLP's 6 ms a step, in place of 0.004.
    """
    if not torch.cuda.is_available():
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"


@contextlib.contextmanager
def still_heap() -> Iterator[None]:
    """Keeps the garbage collector from walking what was there before: some 400,000 objects of imported libraries.

    They live to the end, and a full collection that visits them all takes 0.3 s.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class NoProfiler(PassThroughProfiler):
    """Measures nothing, in 0.2 us a hook, of which a step has 68; Lightning's own takes 1.1 us each."""

    _nothing = contextlib.nullcontext()

    # Lightning's is written as a generator; a context manager is all that it uses of it.
    def profile(self, action_name: str) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        """The same empty context for every action."""
        return self._nothing


class Precision(NamedTuple):
    """A precision in Lightning's words, and why it is the one."""

    name: str
    reason: str


def best_precision(accelerator: str) -> Precision:
    """The fastest precision that leaves accuracy where it is: bfloat16 where the hardware computes in it.

    A matrix product runs four times faster in it on an EPYC with AVX-512 BF16; where it is emulated, the CNN's step
    takes twice as long. Apple's GPUs stay with float32.

    Args:
        accelerator: As `trainer.accelerator` takes it: `auto`, `cpu`, `gpu`, `cuda`, `mps`.
    """
    if accelerator in ("auto", "gpu", "cuda") and CUDAAccelerator.is_available():
        able, device = torch.cuda.is_bf16_supported(including_emulation=False), "GPU"
    elif accelerator in ("auto", "gpu", "mps") and MPSAccelerator.is_available():
        return Precision("32-true", "Apple's GPUs are used in float32")
    else:
        # The names are private, and PyTorch has no public ones for these two; without them nothing is lost but speed.
        signs = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        able, device = any(getattr(torch.cpu, name, bool)() for name in signs), "CPU"
    if able:
        return Precision("bf16-mixed", f"this {device} computes in bfloat16")
    return Precision("32-true", f"this {device} has no fast bfloat16")
