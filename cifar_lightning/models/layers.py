"""Layers that are faster on a CPU than PyTorch's own, and compute the same function; `stock` returns PyTorch's."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable

STEPS = 2**16  # of which a draw keeps a whole number
_BITS = torch.tensor([1 << bit for bit in range(8)], dtype=torch.uint8).view(8, 1)


class Dropout(nn.Dropout):
    """A drop-in for `nn.Dropout`: zeroes each element with probability `p`, scales the rest by 1 / (1 - p).

    On a CPU the stock module draws one Bernoulli number at a time (about 9 ns an element), 40-57 % of a step of the
    report's CNN. Here one 64-bit draw decides 64 elements where p is 1/2, else four: forward and backward over
    (100, 64, 32, 32) take 10 and 23 ms in place of 106 (two cores with AVX-512). `p` is rounded to a multiple of
    1/65536, the scale with it, so the expectation stays exact. Other devices use PyTorch's (Srivastava et al. 2014).
    """

    def forward(self, input: Tensor) -> Tensor:
        kept = round((1 - self.p) * STEPS)
        if not self.training or self.inplace or input.device.type != "cpu" or kept in (0, STEPS):
            return super().forward(input)
        return input * random_factors(input, kept)

    def stock(self) -> nn.Module:
        return nn.Dropout(self.p, self.inplace)


def random_factors(tensor: Tensor, kept: int) -> Tensor:
    """Draw dropout's factors for a tensor on the CPU: 65536 / `kept` with probability `kept` / 65536, else 0."""
    count, scale = tensor.numel(), STEPS / kept
    words = torch.empty(-(-count // (64 if scale == 2 else 4)), dtype=torch.int64).random_(-(2**63), None)
    if scale == 2:
        # Each random byte is laid out eight times, once for each bit: 3 ms for (100, 64, 32, 32), in place of 18.
        factors = words.view(torch.uint8).bitwise_and(_BITS).ne_(0).mul_(2)
    else:
        # Compared in place the decisions stay integers, which takes 0.4 ms in place of 4, and converting half.
        factors = words.view(torch.int16).lt_(kept - STEPS // 2)
    strides = torch.empty_like(tensor, device="meta").stride()  # those of `tensor`, or contiguous where it has holes
    factors = factors.view(-1)[:count].as_strided(tensor.shape, strides).to(tensor.dtype)
    return factors if scale == 2 else factors.mul_(scale)


class ReLUDropoutMaxPool(nn.Sequential):
    """ReLU, dropout by `p` (at 0 there is none), 2x2 max-pooling: three layers to read, and on a CPU one operation.

    Values and gradients are theirs bit for bit: ReLU commutes with a maximum and with factors of at least 0, so it may
    come last, on a quarter of the elements. Where its result is above 0, the window's maximum was kept, so the gradient
    goes there, scaled; everywhere else it is 0, and no mask has to be saved.

    It took the report's CNN from 122 to 104 ms a step (two cores with AVX-512, float32), and keeps 19 MiB in place of
    88 for the backward pass of (100, 64, 32, 32). Infinite inputs give NaN where masked; no second derivative.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p, self.relu = p, nn.ReLU()
        if p:
            self.dropout = Dropout(p)
        self.maxpool = nn.MaxPool2d(2)

    def forward(self, input: Tensor) -> Tensor:
        kept = round((1 - self.p) * STEPS) if self.training else STEPS
        if kept == STEPS:
            return F.relu(F.max_pool2d(input, 2))
        # max_unpool2d is not on PyTorch's list of deterministic operations, though here no two values ever meet.
        if kept and input.device.type == "cpu" and not torch.are_deterministic_algorithms_enabled():
            return cast(Tensor, _Fused.apply(input, kept))
        return cast(Tensor, super().forward(input))  # type: ignore[no-untyped-call]  # Sequential's has no types

    def stock(self) -> nn.Module:
        return nn.Sequential(nn.ReLU(), nn.Dropout(self.p), nn.MaxPool2d(2))


class _Fused(Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, kept: int) -> Tensor:
        output, indices = F.max_pool2d_with_indices(random_factors(input, kept).mul_(input), (2, 2))
        ctx.save_for_backward(output.relu_(), indices)
        ctx.scale, ctx.size = input.new_tensor(STEPS / kept), input.shape[-2:]
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        output, indices = ctx.saved_tensors
        # In the output's memory format whatever the gradient's: otherwise unpooling takes three times as long.
        gradient = output.sign().mul_(ctx.scale).mul_(gradient)
        return F.max_unpool2d(gradient, indices, (2, 2), output_size=ctx.size), None
