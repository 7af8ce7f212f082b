"""Exchange between the processes that train one model, one on each device: all of them must make the same calls."""

from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors


def gather(trainer: Trainer, tensor: Tensor) -> Tensor:
    """Return a tensor of every process, by rank: shape (P, ...), on the CPU."""
    if trainer.world_size == 1:
        return tensor.cpu()[None]
    return torch.stack(gather_all_tensors(tensor.to(trainer.strategy.root_device))).cpu()


def gather_rows(trainer: Trainer, tensor: Tensor) -> Tensor:
    """Return the rows of all processes, by rank; each may have another number of them."""
    return tensor if trainer.world_size == 1 else torch.cat(gather_all_tensors(tensor))


class Agreement:
    """Flags of all processes, by a group of their own on the CPU: to read them no GPU has to finish its work."""

    def __init__(self, trainer: Trainer) -> None:
        self.group: Any = torch.distributed.new_group(backend="gloo") if trainer.world_size > 1 else None

    def largest(self, *flags: int) -> list[int]:
        """Return the largest that any process has of each flag."""
        if self.group is None:
            return list(flags)
        largest = torch.tensor(flags)
        torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX, self.group)
        agreed: list[int] = largest.tolist()
        return agreed
