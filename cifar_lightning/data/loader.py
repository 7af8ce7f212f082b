"""Batches as slices of one permutation: no Python call per image."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cifar_lightning.data.image_set import ImageSet
from cifar_lightning.utils.seeding import derive


def steps_per_epoch(images: int, batch_size: int, limit: int | float = 1.0) -> int:
    """Return the number of training steps per epoch: the one place where it is computed.

    Args:
        images: Training images, 0 or more.
        batch_size: Images per step, at least 1; a remainder of one image is left out.
        limit: As Lightning's `limit_train_batches`: an int is a number of batches, a float a fraction, rounded down.
    """
    steps = -(-_trained_on(images, batch_size) // batch_size)
    return min(steps, limit) if isinstance(limit, int) else int(steps * limit)


def _trained_on(images: int, batch_size: int) -> int:
    # A training batch of one has no variance to normalize by: batch norm refuses it, so a remainder of one is left
    # out, a different image each epoch. Evaluation leaves nothing out.
    return images - (batch_size > 1 and images % batch_size == 1)


class Batches(Sampler[Tensor]):
    """Row numbers, a batch at a time: int64, shape (B,).

    Args:
        size: Number of images.
        batch_size: Images per batch; the last one may be smaller.
        seed: Shuffles: the order is a function of seed and epoch alone. None keeps the order and every image.
    """

    def __init__(self, size: int, batch_size: int, *, seed: int | None) -> None:
        self.size, self.batch_size, self.seed, self.epoch = size, batch_size, seed, 0
        self._done = (0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation; the Trainer calls it before each epoch."""
        self.epoch = epoch

    def skip(self, epoch: int, batches: int) -> None:
        """Leave out the first batches of one epoch, which have been trained on already."""
        self._done = epoch, batches

    @property
    def skipped(self) -> int:
        """Batches left out in this epoch."""
        epoch, batches = self._done
        return batches if self.epoch == epoch else 0

    def __len__(self) -> int:
        if self.seed is None:
            return -(-self.size // self.batch_size)
        return steps_per_epoch(self.size, self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        if self.seed is None:
            order = torch.arange(self.size)
        else:
            generator = torch.Generator().manual_seed(derive(self.seed, "order", self.epoch))
            order = torch.randperm(self.size, generator=generator)[: _trained_on(self.size, self.batch_size)]
        if len(order):  # an empty order would be split into one empty batch
            yield from torch.split(order, self.batch_size)[self.skipped :]


class Rows(Dataset[ImageSet]):
    """An image set that is indexed by a whole batch of row numbers at a time."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images.labels)

    def __getitem__(self, rows: Tensor) -> ImageSet:
        return self.images.take(rows)


class BatchLoader(DataLoader[ImageSet]):
    """A DataLoader that resumes in the middle of an epoch, by the methods that the Trainer looks for."""

    sampler: Batches
    given = 0

    def __iter__(self) -> Iterator[ImageSet]:  # type: ignore[override]  # torch's narrows it to its own iterators
        self.given = self.sampler.skipped
        for batch in super().__iter__():
            self.given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the epoch, and how many of its batches were given out."""
        return {"epoch": self.sampler.epoch, "batches": self.given}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Leave those batches out if that epoch comes again."""
        self.sampler.skip(state_dict["epoch"], state_dict["batches"])


def batch_loader(
    images: ImageSet, batch_size: int, *, seed: int | None = None, num_workers: int = 0, pin_memory: bool = False
) -> BatchLoader:
    """Return a DataLoader over whole batches.

    Args:
        images: Images to load from; they stay in memory as bytes.
        batch_size: Images per batch, at least 1.
        seed: Shuffles; None keeps the order.
        num_workers: Processes that cut the slices. 0 is fastest: a slice takes less time to cut than to send.
        pin_memory: Page-locked batches, which speeds up the copy to a CUDA device.
    """
    return BatchLoader(
        Rows(images),
        batch_size=None,
        sampler=Batches(len(images.labels), batch_size, seed=seed),
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
        # Without one of its own, each epoch's loader draws from the global generator, and dropout would depend on it.
        generator=torch.Generator().manual_seed(0),
    )
