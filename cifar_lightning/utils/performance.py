"""Process settings that make a run fast; gains are of batch 100 on two cores of a Xeon with AVX-512, not bfloat16."""

import contextlib
import ctypes
import functools
import gc
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import torch


def prepare(cpu_quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> None:
    """Set this process up; call it once, before the first tensor."""
    # A step frees and takes again buffers of tens of MB, and each of their pages, new from the system, is a fault:
    # 8,000 a step of the CNN, 16 ms of the system's time. Kept by glibc, they are under 400, and the step takes 151 ms
    # in place of 161 (with bfloat16 on an EPYC: 60 in place of 113).
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: never return memory
        mallopt(-2, 2**28)  # M_TOP_PAD: grow by 256 MiB
        # M_MMAP_THRESHOLD: buffers from 1 GiB on get a mapping of their own; in the heap they would leave holes.
        if not mallopt(-3, 2**30):
            mallopt(-3, 2**25)  # some versions take no more than 32 MiB
    # Numbers below 1e-38 become 0. Adam's running means of a unit that died decay through them, and a multiplication
    # takes 13 times as long there. (No unit dies in 50 epochs of either recipe: this is for rates that kill.)
    torch.set_flush_denormal(True)
    # PyTorch's default is a thread per physical core, and those beyond a container's quota wait for each other: with
    # one of two cores busy otherwise, two made the MLP ten times slower than one. OMP_NUM_THREADS overrides both.
    if "OMP_NUM_THREADS" not in os.environ:
        threads = torch.get_num_threads()
        with contextlib.suppress(OSError, ValueError):  # not Linux, or no quota ("max")
            quota, period = map(int, cpu_quota.read_text().split())  # microseconds of processor time, and in how many
            threads = min(threads, quota // period)
        # The processes of one command, one per device, share the cores.
        torch.set_num_threads(max(1, threads // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    if sys.platform == "linux":
        _openmp_threads(os.getpid())  # now, while no others begin
    # Lightning has PyTorch's optimizers ask NVML at every step whether there is a CUDA driver, and that library is
    # loaded anew each time: 0.2 ms of the MLP's 6 ms a step, not 0.004.
    if not torch.cuda.is_available():
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"


@contextlib.contextmanager
def steady(device: torch.device) -> Iterator[None]:
    """Keep what else this process or the machine does from slowing a run down: see `still_heap` and `own_cores`."""
    with still_heap(), own_cores() if device.type == "cpu" else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def own_cores() -> Iterator[None]:
    """Bind each of OpenMP's threads to a core, where this process has one for each (Linux).

    They wait for each other at every operation, and two that the system puts on one core, beside another program or for
    minutes on a quiet machine, made steps 2 to 30 times as long. Bound, the CNN takes 100 ms a step beside one busy
    program in place of 140, and 105 each in two runs at once in place of 210 (alone: 50; two cores, bfloat16).
    """
    threads = [0, *_openmp_threads(os.getpid())] if sys.platform == "linux" else []
    cores = sorted(os.sched_getaffinity(0)) if threads else []
    if not 1 < len(threads) == len(cores) == torch.get_num_threads():  # as where other processes have the other cores
        yield
        return
    # A worker of a DataLoader begins with what its parent, the first thread, is bound to.
    _free_in_children(frozenset(cores))
    for thread, core in zip(threads, cores, strict=True):
        os.sched_setaffinity(thread, {core})
    try:
        yield
    finally:
        for thread in threads:
            with contextlib.suppress(ProcessLookupError):  # a callback set fewer threads
                os.sched_setaffinity(thread, cores)


@functools.cache
def _openmp_threads(process: int) -> list[int]:
    """Return the system's numbers of the threads that OpenMP adds to the first one of this process."""
    tasks = Path("/proc/self/task")
    before = {*tasks.iterdir()}
    torch.ones(2**20)  # starts them
    return sorted(int(thread.name) for thread in {*tasks.iterdir()} - before)


@functools.cache
def _free_in_children(cores: frozenset[int]) -> None:
    os.register_at_fork(after_in_child=lambda: os.sched_setaffinity(0, cores))


@contextlib.contextmanager
def still_heap() -> Iterator[None]:
    """Keep the garbage collector from visiting what was there before: some 400,000 objects of imported libraries."""
    gc.freeze()  # they live to the end, and a full collection that visits them all takes 0.3 s
    try:
        yield
    finally:
        gc.unfreeze()
