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
        peak_device_bytes: The same of the GPU's memory; None on a CPU.
    """

    seconds: float
    steps: int
    peak_bytes: int | None
    peak_device_bytes: int | None


class Pace:
    """Waits for a turn, and tells how long it took.

    Args:
        connection: To the process that gives the turns.
        synchronize: Whether to wait for the device, which computes behind the program's back, before reading the clock.
    """

    def __init__(self, connection: Connection, *, synchronize: bool = False) -> None:
        self.connection, self.synchronize = connection, synchronize

    def turns(self, steps: int) -> Iterator[None]:
        """Yields at the start of each turn, which ends with the next call; ends the process after the last."""
        while True:
            try:
                self.connection.recv()
            except EOFError:
                sys.exit(0)
            started = time.perf_counter()
            yield
            if self.synchronize:
                torch.accelerator.synchronize()
            seconds = time.perf_counter() - started
            device_bytes = torch.accelerator.max_memory_allocated() if self.synchronize else None
            self.connection.send(Turn(seconds, steps, peak_bytes(), device_bytes))


class Epochs(Callback):
    """Makes each epoch of a `fit` a turn: from one epoch's start, through all that an epoch ends with, to the next."""

    pace: ClassVar[Pace]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gets ready."""
        self.pace.synchronize = pl_module.device.type != "cpu"
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
        print("step", flush=True)


def peak_bytes() -> int | None:
    """The most memory that this process has held, in bytes; None where the system does not tell."""
    status = Path("/proc/self/status")
    if status.is_file():  # Linux: getrusage there starts from what the parent held
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: bytes
