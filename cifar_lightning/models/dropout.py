"""Dropout at a fifth of the stock one's cost on a CPU."""

import torch
from torch import Tensor, nn

_STEPS = 2**16


class Dropout(nn.Dropout):
    """A drop-in for `nn.Dropout`: zeroes each element with probability `p`, scales the rest by 1 / (1 - p).

    On a CPU the stock module draws one Bernoulli number at a time (about 9 ns an element), 40-57 % of a step of the
    report's CNN. Here one 64-bit draw decides four elements, 16 bits each: forward and backward over (100, 64, 32, 32)
    took 24 ms in place of 116 (two cores with AVX-512). `p` is rounded to a multiple of 1/65536, the scale with it, so
    the expectation stays exact. Other devices use the stock module.

    Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".
    """

    def forward(self, input: Tensor) -> Tensor:
        """Masks in training, does nothing in evaluation.

        Args:
            input: Any shape and memory format.

        Returns:
            Same shape, type and memory format.
        """
        kept = round((1 - self.p) * _STEPS)  # of every 65536 elements
        stock = input.device.type != "cpu" or self.inplace
        if stock or not self.training or kept in (0, _STEPS):
            return super().forward(input)
        mask = _random_int16_like(input) < kept - _STEPS // 2
        return input * mask.to(input.dtype).mul_(_STEPS / kept)


def _random_int16_like(tensor: Tensor) -> Tensor:
    """Uniform over all 65536 values, in the shape of `tensor` and, where it has no holes, in its order in memory."""
    count = tensor.numel()
    words = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    flat = words.view(torch.int16)[:count]
    strides = torch.empty_like(tensor, device="meta").stride()  # those of `tensor`, or contiguous where it has holes
    return flat.as_strided(tensor.shape, strides)
