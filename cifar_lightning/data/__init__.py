"""From files, or made on the spot, to batches on the device."""

from typing import NamedTuple

import torch
from torch import Tensor


class ImageSet(NamedTuple):
    """Images and their labels, as every source gives them."""

    images: Tensor  # uint8, shape (N, 3, 32, 32), RGB, 0 to 255
    labels: Tensor  # int64, shape (N,), 0 to 9

    def take(self, rows: Tensor) -> "ImageSet":
        """Return the images in these rows (int64, shape (M,)), in this order."""
        # index_select copies whole rows: 0.05 ms for a batch of 100, in place of 0.22 for images[rows].
        return ImageSet(torch.index_select(self.images, 0, rows), torch.index_select(self.labels, 0, rows))


class Batch(NamedTuple):
    """Images of a batch: all of it or, where several processes train, the slice of this one."""

    images: Tensor  # as in an ImageSet; once on the device, normalized: float32
    labels: Tensor  # int64, shape (N,)
    start: int  # of the slice in the batch
    size: int  # images in the whole batch
    processes: int  # that share it
    seed: int  # of the random draws for the whole batch

    @classmethod
    def whole(cls, images: Tensor, labels: Tensor) -> "Batch":
        """Return one that a single process has all of."""
        return cls(images, labels, start=0, size=len(labels), processes=1, seed=0)

    @property
    def weight(self) -> float:
        """Return the weight of its mean loss, so that the mean over all processes is that of the whole batch."""
        return len(self.labels) * self.processes / self.size
