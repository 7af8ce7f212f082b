"""What every source of data gives: images and their labels, as two tensors."""

from typing import NamedTuple

from torch import Tensor


class ImageSet(NamedTuple):
    """Images and labels, row by row.

    Attributes:
        images: uint8, shape (N, 3, 32, 32), RGB, 0 to 255.
        labels: int64, shape (N,), 0 to 9.
    """

    images: Tensor
    labels: Tensor

    def take(self, rows: Tensor) -> "ImageSet":
        """The images in these rows (int64, shape (M,)), in this order."""
        return ImageSet(self.images[rows], self.labels[rows])
