"""The validation images: a stratified draw from the training set, with a generator of its own."""

import torch
from torch import Tensor

# Never the run's seed: runs that differ in their seed must be measured on the same validation images.
SPLIT_SEED = 20_100_408


def stratified_split(labels: Tensor, val_size: int) -> tuple[Tensor, Tensor]:
    """Set `val_size` images (0 to N) aside for validation, the same number of every class.

    Returns:
        Row numbers of the training and of the validation images, int64, ascending, together all N.
    """
    val = stratified_sample(labels, val_size)
    train = torch.ones(len(labels), dtype=torch.bool)
    train[val] = False
    return train.nonzero().squeeze(1), val


def stratified_sample(labels: Tensor, size: int) -> Tensor:
    """Draw `size` rows, the same number of every class as far as they last; always the same rows.

    Where the classes do not divide `size`, the first ones give one row more. A smaller sample is part of a larger one.

    Args:
        labels: int64, shape (N,).
        size: Rows to draw, 0 to N; any other is a ValueError.

    Returns:
        Row numbers, int64, shape (size,), ascending.
    """
    if not 0 <= size <= len(labels):
        raise ValueError(f"{size} of {len(labels)} rows can't be drawn")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SPLIT_SEED))
    rank = torch.empty_like(labels)  # of each row within its class: who is first in `order` is 0
    for label in torch.unique(labels):
        rows = order[labels[order] == label]
        rank[rows] = torch.arange(len(rows))
    by_rank_and_class = (rank * (labels.max() + 1) + labels).argsort() if size else order
    return by_rank_and_class[:size].sort().values
