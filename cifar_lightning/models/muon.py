"""Muon: momentum whose steps are orthogonal matrices (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon)."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

ITERATIONS = 3  # of Newton and Schulz; five trained no better (12 epochs of speedrun.yaml, 3 seeds)
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of x, x^3, x^5 (Jordan et al.): small singular values grow fast


class Muon(Optimizer):
    """SGD with Nesterov's momentum, and steps that are orthogonal matrices.

    All but the smallest singular values of such a step are near 1, so that directions which are rare in the gradients
    are not left behind. A weight of a convolution is a matrix with a row for each output channel: `torch.optim.Muon`
    takes two dimensions alone, and makes steps of tall matrices longer, by the root of rows / columns. Vectors, and
    groups with `orthogonal: False`, take plain steps.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate, the singular values of an orthogonal step.
        momentum: 0 up to 1.
        weight_decay: Decoupled, as in AdamW.
        orthogonal: Whether steps are orthogonal, which groups may change.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        orthogonal: bool = True,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "orthogonal": orthogonal}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        lr, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        step = gradient.add(state["momentum_buffer"].mul_(momentum).add_(gradient), alpha=momentum)
        if group["orthogonal"] and step.dim() > 1:
            step = orthogonalize(step.flatten(1)).view_as(parameter)
        parameter.mul_(1 - lr * decay).add_(step, alpha=-lr)


def orthogonalize(matrix: Tensor) -> Tensor:
    """Return a matrix with the same singular vectors, and singular values of 0.68 to 1.21.

    Those that were less than a fiftieth of the matrix's norm, the root of the sum of their squares, come to less.
    """
    a, b, c = COEFFICIENTS
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x: Tensor = wide / wide.norm().clamp(min=1e-7)  # the iteration needs singular values of at most 1
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if wide is not matrix else x
