"""Batches as slices of one permutation: no Python call per image."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cifar_lightning.data import Batch, ImageSet
from cifar_lightning.utils.seeding import derive


def steps_per_epoch(images: int, batch_size: int, limit: int | float = 1.0) -> int:
    """Return the number of training steps per epoch: the one place where it is computed.

    `limit` is as Lightning's `limit_train_batches`: an int, or a float above 1, is a number of batches, another float a
    fraction, rounded down. (A parser may make 4.0 of 4: `typing` takes int | float and float | int for the same.)
    """
    steps = len(Batches(max(images, 0), batch_size, training=True))  # a study plans with sizes that `fit` will refuse
    return min(steps, int(limit)) if isinstance(limit, int) or limit > 1 else int(steps * limit)


class Part(NamedTuple):
    """Rows of a batch that are for one process."""

    rows: Tensor  # int64, shape (N,)
    start: int
    size: int
    seed: int


class Batches(Sampler[Part]):
    """Row numbers, a batch at a time: shuffled by seed and epoch alone, ascending without seed.

    All processes cut the same batches. In training each takes its slice of every batch; elsewhere whole batches in
    turn, so that an image is in the same batch, and its logits the same, whatever the number of processes.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        training: bool = False,
        seed: int | None = None,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self.size, self.batch_size, self.training, self.seed, self.epoch = size, batch_size, training, seed, 0
        self.process, self.processes = process, processes
        # A training batch of one has no variance to normalize by: batch norm refuses it, so a remainder of one is left
        # out, a different image each epoch. Evaluation leaves nothing out.
        self.used = size - (training and batch_size > 1 and size % batch_size == 1)
        self.done: dict[int, int] = {}  # by epoch, how many batches have been trained on already: they are left out

    def set_epoch(self, epoch: int) -> None:  # the Trainer calls it before each epoch
        self.epoch = epoch

    @property
    def skipped(self) -> int:
        return self.done.get(self.epoch, 0)

    def __len__(self) -> int:
        batches = -(-self.used // self.batch_size)
        return batches if self.training else -(-batches // self.processes)

    def __iter__(self) -> Iterator[Part]:
        order = torch.arange(self.size)
        if self.seed is not None:
            generator = torch.Generator().manual_seed(derive(self.seed, "order", self.epoch))
            order = torch.randperm(self.size, generator=generator)
        batches = order[: self.used].split(self.batch_size)
        for number in range(self.skipped, len(self)):
            if self.training:
                yield self._slice(batches[number], derive(self.seed or 0, f"draws of epoch {self.epoch}", number))
            else:
                mine = number * self.processes + self.process
                # As many batches for each: processes that meet in every step must have as many of them.
                rows = batches[mine] if mine < len(batches) else order[:0]
                yield Part(rows, 0, len(rows), 0)

    def _slice(self, batch: Tensor, seed: int) -> Part:
        # Of at least two images, because of batch norm; where there are too few, for the first processes alone.
        slices = batch.tensor_split(max(1, min(self.processes, len(batch) // 2)))
        if self.process >= len(slices):
            return Part(batch[:0], 0, len(batch), seed)
        start = sum(map(len, slices[: self.process]))
        return Part(slices[self.process], start, len(batch), seed)


class Rows(Dataset[Batch]):
    """An image set that is indexed by a whole batch of row numbers at a time."""

    def __init__(self, images: ImageSet, processes: int) -> None:
        self.images, self.processes = images, processes

    def __getitem__(self, part: Part) -> Batch:
        return Batch(*self.images.take(part.rows), part.start, part.size, self.processes, part.seed)


class BatchLoader:
    """Batches of images, cut at once; it resumes in the middle of an epoch, by the methods that the Trainer looks for.

    It has a DataLoader and is none: those Lightning rebuilds with a sampler of its own, of single rows, to overfit or
    to train in several processes. Workers only slow it down: a slice takes longer to send than to cut.
    """

    sampler: Batches  # of training alone: the Trainer tells it the epoch, and takes any in validation for shuffled

    def __init__(
        self,
        images: ImageSet,
        batch_size: int,
        *,
        training: bool = False,
        seed: int | None = None,
        process: int = 0,
        processes: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        shared = {"process": process, "processes": processes}
        self.batches = Batches(len(images.labels), batch_size, training=training, seed=seed, **shared)
        if training:
            self.sampler = self.batches
        self.given = 0  # batches of this epoch, those left out included
        self.build = partial(
            DataLoader,
            Rows(images, processes),
            batch_size=None,
            sampler=self.batches,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=pin_memory,
            # Without one of its own, each epoch's loader draws from the global generator, and dropout would depend on
            # it.
            generator=torch.Generator().manual_seed(0),
        )
        self.loader = self.build()

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        self.given = self.batches.skipped
        for batch in self.loader:
            self.given += 1
            yield batch

    def close(self) -> None:
        """End its workers: a loader that the garbage collector takes waits 5 seconds for each. It may be used again."""
        self.loader = self.build()

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.batches.epoch, "batches": self.given}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.batches.done = {state_dict["epoch"]: state_dict["batches"]}
