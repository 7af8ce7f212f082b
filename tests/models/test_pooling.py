import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from cifar_lightning.models import CNN
from cifar_lightning.models.layers.dropout import Dropout
from cifar_lightning.models.layers.pooling import ReLUDropoutMaxPool

RATES = pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
FORMATS = (torch.contiguous_format, torch.channels_last)
FORMAT = pytest.mark.parametrize("memory_format", FORMATS, ids=str)

INPUTS: dict[str, Callable[[], Tensor]] = {
    "random": lambda: torch.randn(5, 6, 8, 12),
    "odd sizes": lambda: torch.randn(5, 6, 7, 9),
    "ties": lambda: torch.randn(5, 6, 8, 8).round(),  # about -2 to 2, and as many zeros as ones
    "all equal": lambda: torch.ones(5, 6, 8, 8),
    "negatives": lambda: -torch.rand(5, 6, 8, 8) - 0.1,
    "zeros": lambda: torch.zeros(5, 6, 8, 8),
    "huge and tiny": lambda: torch.randn(5, 6, 8, 8) * 10.0 ** torch.randint(-30, 30, (5, 6, 8, 8)),
}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


def one_by_one(p: float) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), Dropout(p), nn.MaxPool2d(2))


def run(module: nn.Module, x: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient under the same seed each time."""
    x = x.clone().requires_grad_()  # of the same memory format
    torch.manual_seed(1)
    y = module(x)
    y.backward(upstream)
    assert x.grad is not None
    return y.detach(), x.grad


def check_same(p: float, x: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor]:
    (y, gradient), (expected, expected_gradient) = (run(m, x, upstream) for m in (ReLUDropoutMaxPool(p), one_by_one(p)))
    assert (y.dtype, gradient.dtype) == (x.dtype, x.dtype)
    assert y.stride() == expected.stride()
    assert torch.equal(y, expected)
    assert torch.equal(gradient, expected_gradient)
    return y, gradient


@RATES
@DTYPES
@FORMAT
@pytest.mark.parametrize("name", INPUTS)
def test_it_is_the_three_layers(name: str, p: float, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    x = INPUTS[name]().to(dtype).contiguous(memory_format=memory_format)
    pooled = torch.randn(5, 6, x.shape[2] // 2, x.shape[3] // 2, dtype=dtype)
    for other in FORMATS:  # the gradient may come in either
        y, gradient = check_same(p, x, pooled.contiguous(memory_format=other))
    if name in ("negatives", "zeros"):
        assert not y.any()
        assert not gradient.any()
    else:
        assert y.any()
        assert gradient.any()


@pytest.mark.parametrize("shape", [(1, 1, 2, 2), (1, 3, 2, 3), (0, 3, 8, 8), (2, 1, 5, 2)])
def test_small_shapes(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    check_same(0.5, x, torch.randn(*shape[:2], shape[2] // 2, shape[3] // 2))


@pytest.mark.parametrize("view", [lambda x: x.transpose(0, 1), lambda x: x[..., ::2], lambda x: x[:1].expand_as(x)])
def test_inputs_with_holes_or_overlaps(view: Callable[[Tensor], Tensor]) -> None:
    leaf, results = torch.randn(6, 6, 8, 8), []
    for module in (ReLUDropoutMaxPool(0.5), one_by_one(0.5)):
        x = leaf.clone().requires_grad_()
        torch.manual_seed(1)
        y = module(view(x))
        (y * torch.arange(y.numel()).view(y.shape)).sum().backward()
        assert x.grad is not None
        results.append((y, x.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_the_input_stays_as_it_was() -> None:
    x = torch.randn(5, 6, 8, 8)
    before = x.clone()
    ReLUDropoutMaxPool(0.5)(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("p", [0.0, 1e-7])
def test_without_dropout_it_is_relu_and_pooling(p: float) -> None:
    pool, x, upstream = ReLUDropoutMaxPool(p), torch.randn(5, 6, 7, 9).round(), torch.randn(5, 6, 3, 4)
    state = torch.get_rng_state()
    for found, expected in zip(
        run(pool, x, upstream), run(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), x, upstream), strict=True
    ):
        assert torch.equal(found, expected)
    torch.set_rng_state(state)
    pool(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert [name for name, _ in pool.named_children()] == ["relu", *["dropout"] * (p > 0), "maxpool"]


def test_with_nothing_kept_it_is_zero() -> None:
    y, gradient = run(ReLUDropoutMaxPool(1.0), torch.randn(5, 6, 8, 8), torch.randn(5, 6, 4, 4))
    assert torch.equal(y, torch.zeros(5, 6, 4, 4))
    assert torch.equal(gradient, torch.zeros(5, 6, 8, 8))


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1.0])
@FORMAT
def test_evaluation_drops_nothing_and_draws_nothing(p: float, memory_format: torch.memory_format) -> None:
    pool, state = ReLUDropoutMaxPool(p).eval(), torch.get_rng_state()
    x = INPUTS["ties"]().contiguous(memory_format=memory_format)
    torch.set_rng_state(state)
    assert torch.equal(pool(x), F.max_pool2d(F.relu(x), 2))
    assert torch.equal(torch.get_rng_state(), state)


def test_evaluation_has_the_gradient_too() -> None:
    x, upstream = INPUTS["ties"](), torch.randn(5, 6, 4, 4)
    assert torch.equal(run(ReLUDropoutMaxPool(0.5).eval(), x, upstream)[1], run(one_by_one(0.5).eval(), x, upstream)[1])


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("p", [0.3, 0.5])
def test_the_deterministic_way_gives_the_same_bits(p: float) -> None:
    x, upstream = INPUTS["ties"](), torch.randn(5, 6, 4, 4)
    slow = run(ReLUDropoutMaxPool(p), x, upstream)
    torch.use_deterministic_algorithms(False)
    fast = run(ReLUDropoutMaxPool(p), x, upstream)
    assert torch.equal(slow[0], fast[0])
    assert torch.equal(slow[1], fast[1])


@pytest.mark.parametrize("p", [0.3, 0.5])
def test_the_gradient_is_the_slope(p: float) -> None:
    pool = ReLUDropoutMaxPool(p)

    def masked(x: Tensor) -> Tensor:
        torch.manual_seed(1)
        result: Tensor = pool(x)
        return result

    x = torch.randn(2, 3, 7, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(masked, (x,))


def test_nothing_of_it_is_in_a_checkpoint() -> None:
    assert list(ReLUDropoutMaxPool(0.5).state_dict()) == []


def test_stock_is_pytorchs_own() -> None:
    stock = ReLUDropoutMaxPool(0.3).stock()
    assert isinstance(stock, nn.Sequential)
    assert [type(layer) for layer in stock] == [nn.ReLU, nn.Dropout, nn.MaxPool2d]
    assert stock[1].p == 0.3
    x = torch.randn(3, 4, 9, 9)
    assert torch.equal(stock.eval()(x), ReLUDropoutMaxPool(0.3).eval()(x))


def unfused(model: CNN) -> CNN:
    """The same with the layers of each pool as layers of a plain Sequential."""
    other = copy.deepcopy(model)
    for name, layer in list(other.network.named_children()):
        if isinstance(layer, ReLUDropoutMaxPool):
            setattr(other.network, name, nn.Sequential(OrderedDict(layer.named_children())))
    assert not any(isinstance(layer, ReLUDropoutMaxPool) for layer in other.modules())
    return other


@pytest.mark.parametrize("p", [0.3, 0.5])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_whole_network(p: float, autocast: bool, channels_last: bool) -> None:
    x, labels, losses = torch.randn(16, 3, 32, 32), torch.arange(16) % 10, []
    model = CNN(channels=(8, 16, 4), dropout=p)
    if channels_last:
        model.setup("fit")
    other = unfused(model)
    for network in (model, other):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = network(x)
        losses.append(F.cross_entropy(logits.float(), labels))
        losses[-1].backward()
        assert logits.dtype == (torch.bfloat16 if autocast else torch.float32)
    assert torch.equal(losses[0], losses[1])
    for one, another in zip(model.parameters(), other.parameters(), strict=True):
        assert one.grad is not None
        assert another.grad is not None
        assert one.grad.any()
        assert torch.equal(one.grad, another.grad)
    buffers = [dict(network.network.named_buffers()) for network in (model, other)]
    assert len(buffers[0]) == 9
    assert all(torch.equal(buffer, buffers[1][name]) for name, buffer in buffers[0].items())


def bytes_kept(module: nn.Module, x: Tensor) -> int:
    """What autograd remembers for the way back, what lies in the same memory counted once."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        y = module(x)
    assert y.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("p", [0.3, 0.5])
def test_a_quarter_of_the_memory_is_kept_for_the_way_back(p: float) -> None:
    x = torch.randn(10, 16, 32, 32).requires_grad_()
    fused, layers = (bytes_kept(module, x) for module in (ReLUDropoutMaxPool(p), one_by_one(p)))
    # A quarter of the elements, each with 4 bytes of value and 8 of index.
    assert fused == x.numel() // 4 * 12
    assert fused <= layers / 4
