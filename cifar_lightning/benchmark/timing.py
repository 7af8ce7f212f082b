"""The turns of one process: it trains an epoch for each line on stdin, and prints what the epoch took."""

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

STDOUT = sys.stdout  # for these lines alone: what is printed elsewhere is redirected


def timed_epochs(device: torch.device, steps: int, setting: dict[str, Any] | None = None) -> Iterator[None]:
    """Yield at the start of each epoch, which ends when the caller comes back for the next.

    The first line on stdin asks whether all is ready; its answer is the setting.
    """
    sys.stdin.readline()
    _send(setting or {})
    for _ in sys.stdin:
        started = time.perf_counter()
        yield
        if device.type != "cpu":  # it computes asynchronously, and is behind the program
            torch.accelerator.synchronize(device)
        seconds = time.perf_counter() - started
        device_mib = torch.cuda.max_memory_allocated(device) // 2**20 if device.type == "cuda" else None
        _send({"seconds": seconds, "steps": steps, "peak_mib": peak_mib(), "peak_device_mib": device_mib})
    sys.exit(0)  # the benchmark is no more


def _send(value: object) -> None:
    print(json.dumps(value), file=STDOUT, flush=True)


class TimedEpochs(Callback):
    """Times the epochs of `fit`, each from its start through validation, logs and checkpoints to the next one's."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare: only now are device and steps known."""
        self.epochs = timed_epochs(pl_module.device, int(trainer.num_training_batches))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End one epoch and wait for the next."""
        next(self.epochs)


def peak_mib() -> int | None:
    """Return the peak memory of this process so far in MiB; None where the system does not tell."""
    status = Path("/proc/self/status")
    if status.is_file():  # Linux, where getrusage begins with the parent's peak
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        return int(found[1]) // 2**10 if found else None
    if sys.platform != "darwin":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**20  # macOS counts in bytes
