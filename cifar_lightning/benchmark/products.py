"""The arithmetic that a training step can't do without."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn


def products(network: nn.Module, images: Tensor, dtype: torch.dtype) -> Callable[[], None]:
    """What runs every convolution and linear layer of a network once, forward and backward, and nothing else.

    Args:
        network: Any whose layers of these two kinds are used once each.
        images: A batch for it, shape (B, 3, 32, 32).
        dtype: Of the products.
    """
    found: list[tuple[nn.Module, Tensor]] = []

    def note(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        found.append((layer, inputs[0]))

    hooks = [m.register_forward_pre_hook(note) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    work = []
    for i, (layer, inputs) in enumerate(found):
        alone = copy.deepcopy(layer).to(dtype)
        alone.register_parameter("bias", None)
        x = torch.randn_like(inputs, dtype=dtype)
        if x.dim() == 4 and x.device.type != "mps":
            alone, x = alone.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
        x.requires_grad_(i > 0)  # nobody asks for the gradient of the images
        with torch.no_grad():
            work.append((alone, x, torch.randn_like(alone(x))))

    def step() -> None:
        torch.autograd.backward([layer(x) for layer, x, _ in work], [gradient for *_, gradient in work])
        for layer, x, _ in work:
            layer.zero_grad()
            x.grad = None

    return step
