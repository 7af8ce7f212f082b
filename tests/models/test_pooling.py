"""The fused layer against ReLU, dropout and max-pooling one by one, bit for bit."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from cifar_lightning.models import CNN
from cifar_lightning.models.layers import Dropout, ReLUDropoutMaxPool, Scaling

FORMATS = (torch.contiguous_format, torch.channels_last)
FORMAT = pytest.mark.parametrize("memory_format", FORMATS, ids=str)
PATHS = pytest.mark.parametrize("p", [0.3, 0.5])  # 16 bits decide, one does

INPUTS: dict[str, Callable[[], Tensor]] = {
    "random": lambda: torch.randn(5, 6, 8, 12),
    "odd sizes": lambda: torch.randn(5, 6, 7, 9),
    "ties": lambda: torch.randn(5, 6, 8, 8).round(),  # about -2 to 2, and as many zeros as ones
    "all equal": lambda: torch.ones(5, 6, 8, 8),
    "negatives": lambda: -torch.rand(5, 6, 8, 8) - 0.1,
    "zeros": lambda: torch.zeros(5, 6, 8, 8),
    "huge and tiny": lambda: torch.randn(5, 6, 8, 8) * 10.0 ** torch.randint(-30, 30, (5, 6, 8, 8)),
    "one window": lambda: torch.randn(1, 1, 2, 2),
    "one odd window": lambda: torch.randn(1, 3, 2, 3),
    "no image": lambda: torch.randn(0, 3, 8, 8),
    "one column": lambda: torch.randn(2, 1, 5, 2),
    "transposed": lambda: torch.randn(6, 5, 8, 8).transpose(0, 1),
    "with holes": lambda: torch.randn(5, 6, 8, 16)[..., ::2],
    "overlapping": lambda: torch.randn(1, 6, 8, 8).expand(5, 6, 8, 8),
}


def one_by_one(p: float, scaling: Scaling = "train") -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), Dropout(p, scaling=scaling), nn.MaxPool2d(2))


def run(module: nn.Module, x: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient under the same seed each time."""
    before, x = x.clone(), x.detach().requires_grad_()
    torch.manual_seed(1)
    y = module(x)
    (gradient,) = torch.autograd.grad(y, x, upstream)
    assert torch.equal(x, before)
    return y.detach(), gradient


def check_same(module: nn.Module, other: nn.Module, x: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
    (y, gradient), (expected, expected_gradient) = (run(each, x, upstream) for each in (module, other))
    assert (y.dtype, gradient.dtype, y.stride()) == (x.dtype, x.dtype, expected.stride())
    assert torch.equal(y, expected)
    assert torch.equal(gradient, expected_gradient)
    return y, gradient


@PATHS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("memory_format", [*FORMATS, torch.preserve_format], ids=str)
@pytest.mark.parametrize("name", INPUTS)
def test_it_is_the_three_layers(name: str, p: float, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    x = INPUTS[name]().to(dtype)
    if memory_format != torch.preserve_format:
        x = x.contiguous(memory_format=memory_format)
    pooled = torch.randn(*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2, dtype=dtype)
    for other in FORMATS:  # the gradient may come in either
        y, gradient = check_same(ReLUDropoutMaxPool(p), one_by_one(p), x, pooled.contiguous(memory_format=other))
    if x.numel() > 1000:  # so many are not all dropped
        assert bool(y.any()) == bool(gradient.any()) == (name not in ("negatives", "zeros"))


@PATHS
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("scaling", ["never", "always"])
def test_it_scales_when_dropout_does(scaling: Scaling, training: bool, p: float) -> None:
    fused, layers = ReLUDropoutMaxPool(p, scaling).train(training), one_by_one(p, scaling).train(training)
    check_same(fused, layers, INPUTS["ties"](), torch.randn(5, 6, 4, 4))


@FORMAT
@pytest.mark.parametrize(("p", "training"), [(0.0, 1), (1e-7, 1), (0.0, 0), (0.3, 0), (0.5, 0), (1.0, 0)])
def test_where_nothing_is_dropped_nothing_is_drawn(p: float, training: int, memory_format: torch.memory_format) -> None:
    pool, stock = ReLUDropoutMaxPool(p).train(bool(training)), nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
    x, state = INPUTS["ties"]().contiguous(memory_format=memory_format), torch.manual_seed(1).get_state()
    check_same(pool, stock, x, torch.ones(5, 6, 4, 4))
    assert torch.equal(torch.get_rng_state(), state)


def test_with_nothing_kept_it_is_zero() -> None:
    y, gradient = run(ReLUDropoutMaxPool(1.0), torch.randn(5, 6, 8, 8), torch.randn(5, 6, 4, 4))
    assert not y.any()
    assert not gradient.any()


@PATHS
def test_the_deterministic_way_gives_the_same_bits(p: float) -> None:
    x, upstream = INPUTS["ties"](), torch.randn(5, 6, 4, 4)
    fast = run(ReLUDropoutMaxPool(p), x, upstream)
    torch.use_deterministic_algorithms(True)
    try:
        slow = run(ReLUDropoutMaxPool(p), x, upstream)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(one, other) for one, other in zip(fast, slow, strict=True))


@PATHS
@pytest.mark.parametrize("autocast", [False, True])
@FORMAT
def test_a_whole_network(p: float, autocast: bool, memory_format: torch.memory_format) -> None:
    x, labels, results = torch.randn(16, 3, 32, 32), torch.arange(16) % 10, []
    fused = CNN(channels=(8, 16, 4), dropout=p).network.to(memory_format=memory_format)
    unfused: Any = copy.deepcopy(fused)
    for i in (1, 2, 3):
        unfused.set_submodule(f"pool{i}", nn.Sequential(*unfused.get_submodule(f"pool{i}")))
    for network in (fused, unfused):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = network(x)
        gradients = torch.autograd.grad(F.cross_entropy(logits.float(), labels), list(network.parameters()))
        assert logits.dtype == (torch.bfloat16 if autocast else torch.float32)
        assert all(gradient.any() for gradient in gradients)
        results.append([logits, *gradients, *network.buffers()])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def bytes_kept(module: nn.Module, x: Tensor) -> int:
    """Bytes that autograd keeps for the backward pass; what lies in the same memory counts once."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        return kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        assert module(x).requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@PATHS
def test_a_quarter_of_the_memory_is_kept_for_the_backward_pass(p: float) -> None:
    x = torch.randn(10, 16, 32, 32).requires_grad_()
    fused, layers = (bytes_kept(module, x) for module in (ReLUDropoutMaxPool(p), one_by_one(p)))
    # A quarter of the elements, each with 4 bytes of value and 8 of index.
    assert fused == x.numel() // 4 * 12
    assert fused <= layers / 4
