"""How the parts of a benchmark take turns: each in its process, one at a time."""

import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class Turn(NamedTuple):
    """What came of one turn.

    Attributes:
        seconds: How long it took, until the device was done.
        steps: Training steps in it.
        peak_bytes: The most memory that the process has held so far.
        peak_device_bytes: The same of a CUDA device's memory; None elsewhere.
    """

    seconds: float
    steps: int
    peak_bytes: int | None
    peak_device_bytes: int | None


class Pace:
    """Waits for a turn, and tells how long it took.

    Args:
        connection: To the process that gives the turns.
        device: What computes; a GPU does so behind the program's back and is waited for before reading the clock.
    """

    def __init__(self, connection: Connection, device: torch.device) -> None:
        self.connection, self.device = connection, device

    def turns(self, steps: int) -> Iterator[None]:
        """Yields at the start of each turn, which ends with the next call; ends the process after the last."""
        while True:
            try:
                self.connection.recv()
            except (EOFError, OSError):
                sys.exit(0)
            started = time.perf_counter()
            yield
            synchronize(self.device)
            seconds = time.perf_counter() - started
            device_bytes = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None
            self.connection.send(Turn(seconds, steps, peak_bytes(), device_bytes))


def synchronize(device: torch.device) -> None:
    """Waits until a device has computed what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


class Epochs(Callback):
    """Makes each epoch of a `fit` a turn: from one epoch's start, through all that an epoch ends with, to the next."""

    pace: ClassVar[Pace]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gets ready."""
        self.pace.device = pl_module.device
        self.turns = self.pace.turns(int(trainer.num_training_batches))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends a turn and waits for the next."""
        next(self.turns)


class FirstStep(Callback):
    """Says when the first step of a run is done."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Says so, at once, after each."""
        synchronize(pl_module.device)
        print("step", flush=True)


def peak_bytes() -> int | None:
    """The most memory that this process has held, in bytes; None where the system does not tell."""
    status = Path("/proc/self/status")
    if status.is_file():  # Linux: getrusage there starts from what the parent held
        lines = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        line = next(lines, None)
        return int(line.split()[1]) * 1024 if line else None
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: bytes
