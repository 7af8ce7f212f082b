"""What the processes that train one model, one on each device, tell each other; all must call each of these."""

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


def agree(trainer: Trainer, *flags: int) -> list[int]:
    """Return the largest that any process has of each flag."""
    if trainer.world_size == 1:
        return list(flags)
    largest = torch.tensor(flags, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    agreed: list[int] = largest.tolist()
    return agreed
