"""Layers that are faster on a CPU than PyTorch's own, and compute the same function; `stock` returns PyTorch's."""

from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable

from cifar_lightning.errors import check

STEPS = 2**16  # of which a draw keeps a whole number
_BITS = torch.tensor([1 << bit for bit in range(8)], dtype=torch.uint8).view(8, 1)


Scaling = Literal["train", "never", "always"]


class Dropout(nn.Dropout):
    """A drop-in for `nn.Dropout`: zeroes each element with probability `p`, scales the rest by 1 / (1 - p).

    On a CPU the stock module draws one Bernoulli number at a time (about 9 ns an element), 40-57 % of a step of the
    report's CNN. Here one 64-bit draw decides 64 elements where p is 1/2, else four: forward and backward over
    (100, 64, 32, 32) take 10 and 23 ms in place of 106 (two cores with AVX-512). `p` is rounded to a multiple of
    1/65536, the scale with it, so the expectation stays exact. Other devices use PyTorch's (Srivastava et al. 2014).

    Args:
        p: Probability of zeroing an element, 0 to 1.
        inplace: As in `nn.Dropout`.
        scaling: When the rest is scaled: in `train`ing, as PyTorch does; `never`; or `always`, in evaluation, too.
            Evaluation then sees other activations than training does on average.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False, scaling: Scaling = "train") -> None:
        super().__init__(p, inplace)
        self.scaling = scaling

    def forward(self, input: Tensor) -> Tensor:
        kept, scale = dropout_factors(self.p, self.scaling, self.training)
        if self.training and not self.inplace and input.device.type == "cpu" and 0 < kept < STEPS:
            return input * random_factors(input, kept, scale)
        output = super().forward(input)
        if self.training:
            return output * (1 - self.p) if self.scaling == "never" else output  # it has scaled
        return output if scale == 1 else output * scale

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", scaling={self.scaling}" if self.scaling != "train" else "")

    def stock(self) -> nn.Module:
        return nn.Dropout(self.p, self.inplace)


def check_scaling(scaling: str) -> None:
    """Raise an `InputError` if dropout knows no such scaling."""
    check(scaling in get_args(Scaling), "dropout_scaling", scaling, " or ".join(get_args(Scaling)))


def dropout_factors(p: float, scaling: Scaling, training: bool) -> tuple[int, float]:
    """Return how many of 65,536 elements dropout keeps, and what it multiplies them by."""
    kept = round((1 - p) * STEPS)
    scales = kept > 0 and scaling != "never" and (training or scaling == "always")
    return kept if training else STEPS, STEPS / kept if scales else 1.0


def random_factors(tensor: Tensor, kept: int, scale: float) -> Tensor:
    """Draw dropout's factors for a tensor on the CPU: `scale` with probability `kept` / 65536, else 0."""
    count, half = tensor.numel(), 2 * kept == STEPS
    words = torch.empty(-(-count // (64 if half else 4)), dtype=torch.int64).random_(-(2**63), None)
    if half:
        # Each random byte is laid out eight times, once for each bit: 3 ms for (100, 64, 32, 32), in place of 18.
        factors = words.view(torch.uint8).bitwise_and(_BITS).ne_(0)
        if scale == 2:
            factors.mul_(2)  # of bytes it takes less time
    else:
        # Compared in place the decisions stay integers, which takes 0.4 ms in place of 4, and converting half.
        factors = words.view(torch.int16).lt_(kept - STEPS // 2)
    strides = torch.empty_like(tensor, device="meta").stride()  # those of `tensor`, or contiguous where it has holes
    factors = factors.view(-1)[:count].as_strided(tensor.shape, strides).to(tensor.dtype)
    return factors if scale == 1 or (half and scale == 2) else factors.mul_(scale)


class ReLUDropoutMaxPool(nn.Sequential):
    """ReLU, dropout by `p` (at 0 there is none), 2x2 max-pooling: three layers to read, and on a CPU one operation.

    Values and gradients are theirs bit for bit: ReLU commutes with a maximum and with factors of at least 0, so it may
    come last, on a quarter of the elements. Where its result is above 0, the window's maximum was kept, so the gradient
    goes there, scaled; everywhere else it is 0, and no mask has to be saved.

    It took the report's CNN from 122 to 104 ms a step (two cores with AVX-512, float32), and keeps 19 MiB in place of
    88 for the backward pass of (100, 64, 32, 32). Infinite inputs give NaN where masked; no second derivative.

    Tried and left out: the maximum of what comes into batch norm, which is then computed on a quarter, too. In plain
    PyTorch its backward pass takes more operations than it saves (96 ms a step in place of 89, one core, bfloat16).
    """

    def __init__(self, p: float, scaling: Scaling = "train") -> None:
        super().__init__()
        self.p, self.scaling, self.relu = p, scaling, nn.ReLU()
        if p:
            self.dropout = Dropout(p, scaling=scaling)
        self.maxpool = nn.MaxPool2d(2)

    def forward(self, input: Tensor) -> Tensor:
        kept, scale = dropout_factors(self.p, self.scaling, self.training)
        if kept == STEPS:
            output = F.relu(F.max_pool2d(input, 2))
            return output if scale == 1 else output * scale
        # max_unpool2d is not on PyTorch's list of deterministic operations, though here no two values ever meet.
        if kept and input.device.type == "cpu" and not torch.are_deterministic_algorithms_enabled():
            return cast(Tensor, _Fused.apply(input, kept, scale))
        return cast(Tensor, super().forward(input))  # type: ignore[no-untyped-call]  # Sequential's has no types

    def stock(self) -> nn.Module:
        return nn.Sequential(nn.ReLU(), nn.Dropout(self.p), nn.MaxPool2d(2))


class _Fused(Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, kept: int, scale: float) -> Tensor:
        output, indices = F.max_pool2d_with_indices(random_factors(input, kept, scale).mul_(input), (2, 2))
        ctx.save_for_backward(output.relu_(), indices)
        ctx.scale, ctx.size = input.new_tensor(scale), input.shape[-2:]
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        output, indices = ctx.saved_tensors
        # In the output's memory format whatever the gradient's: otherwise unpooling takes three times as long.
        gradient = output.sign().mul_(ctx.scale).mul_(gradient)
        return F.max_unpool2d(gradient, indices, (2, 2), output_size=ctx.size), None, None
