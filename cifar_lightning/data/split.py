"""Which training images validate: a stratified draw with a generator of its own."""

import torch
from torch import Tensor

from cifar_lightning.errors import InputError

# Never the run's seed: runs that differ in their seed must be measured on the same validation images.
SPLIT_SEED = 20_100_408


def stratified_split(labels: Tensor, val_size: int) -> tuple[Tensor, Tensor]:
    """Sets `val_size` images aside for validation, the same number of every class.

    Args:
        labels: int64, shape (N,).
        val_size: Images to set aside, 0 to N.

    Returns:
        Row numbers of the training and of the validation images, int64, ascending, together all N.
    """
    val = stratified_sample(labels, val_size)
    train = torch.ones(len(labels), dtype=torch.bool)
    train[val] = False
    return train.nonzero().squeeze(1), val


def stratified_sample(labels: Tensor, size: int) -> Tensor:
    """Draws `size` rows, the same number of every class; always the same rows.

    Where the classes do not divide `size`, the first ones give one row more. A smaller sample is part of every larger
    one.

    Args:
        labels: int64, shape (N,).
        size: Rows to draw, 0 to N.

    Returns:
        Row numbers, int64, shape (size,), ascending.

    Raises:
        InputError: A class has too few rows.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SPLIT_SEED))
    classes = torch.unique(labels)
    quota, rest = divmod(size, len(classes))
    chosen = []
    for position, label in enumerate(classes):
        rows = order[labels[order] == label]
        wanted = quota + (position < rest)
        if wanted > len(rows):
            raise InputError("val_size", f"{wanted} images of one class asked, {len(rows)} there", "ask for fewer")
        chosen.append(rows[:wanted])
    return torch.cat(chosen).sort().values
