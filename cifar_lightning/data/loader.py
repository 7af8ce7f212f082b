"""Batches as slices of one permutation: no Python call per image."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cifar_lightning.data import ImageSet
from cifar_lightning.utils.seeding import derive


def steps_per_epoch(images: int, batch_size: int, limit: int | float = 1.0) -> int:
    """Return the number of training steps per epoch: the one place where it is computed.

    `limit` is as Lightning's `limit_train_batches`: an int is a number of batches, a float a fraction, rounded down.
    """
    steps = len(Batches(max(images, 0), batch_size, training=True))  # a study plans with sizes that `fit` will refuse
    return min(steps, limit) if isinstance(limit, int) else int(steps * limit)


class Batches(Sampler[Tensor]):
    """Row numbers, a batch at a time (int64, shape (B,)): shuffled by seed and epoch alone, ascending without seed."""

    def __init__(self, size: int, batch_size: int, *, training: bool = False, seed: int | None = None) -> None:
        self.size, self.batch_size, self.seed, self.epoch = size, batch_size, seed, 0
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
        return -(-self.used // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        order = torch.arange(self.size)
        if self.seed is not None:
            generator = torch.Generator().manual_seed(derive(self.seed, "order", self.epoch))
            order = torch.randperm(self.size, generator=generator)
        if len(order := order[: self.used]):  # an empty order would be split into one empty batch
            yield from torch.split(order, self.batch_size)[self.skipped :]


class Rows(Dataset[ImageSet]):
    """An image set that is indexed by a whole batch of row numbers at a time."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __getitem__(self, rows: Tensor) -> ImageSet:
        return self.images.take(rows)


class BatchLoader:
    """Whole batches of images; it resumes in the middle of an epoch, by the methods that the Trainer looks for.

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
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.batches = Batches(len(images.labels), batch_size, training=training, seed=seed)
        if training:
            self.sampler = self.batches
        self.given = 0  # batches of this epoch, those left out included
        self.loader = DataLoader(
            Rows(images),
            batch_size=None,
            sampler=self.batches,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=pin_memory,
            # Without one of its own, each epoch's loader draws from the global generator, and dropout would depend on
            # it.
            generator=torch.Generator().manual_seed(0),
        )

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[ImageSet]:
        self.given = self.batches.skipped
        for batch in self.loader:
            self.given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.batches.epoch, "batches": self.given}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.batches.done = {state_dict["epoch"]: state_dict["batches"]}
