"""The arithmetic that a training step can't do without."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn


def products(network: nn.Module, images: Tensor, dtype: torch.dtype) -> Callable[[], None]:
    """Return a function that runs each convolution and linear layer once, forward and backward, and nothing else.

    Args:
        network: Uses each of these layers once; stays as it is.
        images: A batch for it, shape (B, 3, 32, 32).
        dtype: Of the products.
    """
    network, inputs = copy.deepcopy(network), dict[nn.Module, Tensor]()
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_pre_hook(lambda layer, args: inputs.update({layer: args[0]})) for layer in layers]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    work = []
    for i, (layer, x) in enumerate(inputs.items()):
        layer.to(dtype).register_parameter("bias", None)
        x = torch.randn_like(x, dtype=dtype)
        if x.dim() == 4 and x.device.type != "mps":  # as `fit` keeps them
            layer, x = layer.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
        x.requires_grad_(i > 0)  # training never needs the gradient of the images
        with torch.no_grad():
            work.append((layer, x, torch.randn_like(layer(x))))

    def step() -> None:
        torch.autograd.backward([layer(x) for layer, x, _ in work], [gradient for *_, gradient in work])
        for layer, x, _ in work:
            layer.zero_grad()
            x.grad = None

    return step
