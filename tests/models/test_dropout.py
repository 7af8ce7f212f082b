from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from cifar_lightning.models.dropout import Dropout

COUNT = 1_000_003  # odd: the last 64-bit word is used in part
STEPS = 65_536


def kept_of(p: float) -> int:
    return round((1 - p) * STEPS)


def check_rate(zeros: int, count: int, p: float) -> None:
    """Within 6 standard deviations of the binomial distribution: one in 500 million correct programs fails."""
    dropped = 1 - kept_of(p) / STEPS
    assert abs(zeros - count * dropped) < 6 * (count * dropped * (1 - dropped)) ** 0.5


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("p", [0.001, 0.1, 0.25, 0.3, 0.5, 0.75, 0.9, 0.999])
def test_rate_and_scale(p: float) -> None:
    result = Dropout(p)(torch.ones(COUNT))
    check_rate(int((result == 0).sum()), COUNT, p)
    scale = torch.tensor(STEPS / kept_of(p), dtype=torch.float32)
    assert torch.equal(result[result != 0].unique(), scale.view(1))
    assert result.dtype == torch.float32


def test_a_rate_is_rounded_to_1_in_65536() -> None:
    # 100.4 of 65,536 are kept as 100 are.
    result = Dropout(1 - 100.4 / STEPS)(torch.ones(4 * COUNT))
    assert torch.equal(result[result != 0].unique(), torch.tensor([STEPS / 100]))
    # Rates that round to 0 or 1 are left to the stock module.
    assert torch.equal(Dropout(1e-7)(torch.ones(1000)), nn.Dropout(1e-7)(torch.ones(1000)))


def test_the_four_elements_of_a_word_are_independent() -> None:
    # One 64-bit draw decides four elements: each of the 16 patterns has to come up as often.
    count = 1_000_000
    bits = (Dropout(0.5)(torch.ones(count)) != 0).view(-1, 4).long()
    patterns = torch.bincount(bits @ torch.tensor([1, 2, 4, 8]), minlength=16)
    expected = count / 4 / 16
    assert (patterns - expected).abs().max() < 6 * (expected * 15 / 16) ** 0.5


def test_every_call_and_channel_has_its_own_mask() -> None:
    dropout, ones = Dropout(0.5), torch.ones(8, 16, 32, 32)
    first, second = dropout(ones), dropout(ones)
    check_rate(int((first != second).sum()), ones.numel(), 0.5)
    channels = first.transpose(0, 1).reshape(16, -1)
    for i in range(16):
        for j in range(i):
            check_rate(int((channels[i] != channels[j]).sum()), channels.shape[1], 0.5)
    assert not torch.equal(first[0], first[1])


def test_the_mask_follows_the_seed() -> None:
    dropout, ones = Dropout(0.3), torch.ones(1001)
    torch.manual_seed(1)
    first, second = dropout(ones), dropout(ones)
    torch.manual_seed(1)
    assert torch.equal(dropout(ones), first)
    assert torch.equal(dropout(ones), second)
    torch.manual_seed(2)
    assert not torch.equal(dropout(ones), first)


@pytest.mark.parametrize("p", [0.25, 0.5, 0.9])
def test_values_and_gradient_are_mask_times_scale(p: float) -> None:
    x = torch.randn(7, 5, 9, 11, requires_grad=True)
    torch.manual_seed(1)
    factor = Dropout(p)(torch.ones(7, 5, 9, 11))
    torch.manual_seed(1)
    y = Dropout(p)(x)
    upstream = torch.randn_like(y)
    y.backward(upstream)
    assert torch.equal(y, x * factor)
    assert x.grad is not None
    assert torch.equal(x.grad, upstream * factor)


@pytest.mark.parametrize(("p", "factor"), [(0.0, 1.0), (1.0, 0.0)])
def test_nothing_and_everything(p: float, factor: float) -> None:
    x = torch.randn(100, requires_grad=True)
    y = Dropout(p)(x)
    y.sum().backward()
    assert torch.equal(y, x * factor)
    assert x.grad is not None
    assert torch.equal(x.grad, torch.full((100,), factor))


def test_evaluation_changes_nothing_and_draws_nothing() -> None:
    x, state = torch.randn(1000), torch.get_rng_state()
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_stock_module_in_its_place_takes_the_same_weights() -> None:
    def network(dropout: type[nn.Dropout]) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 4), dropout(0.5), nn.Linear(4, 2))

    ours, stock = network(Dropout), network(nn.Dropout)
    assert list(ours.state_dict()) == list(stock.state_dict())
    stock.load_state_dict(ours.state_dict())
    x = torch.randn(3, 4)
    assert torch.equal(ours.eval()(x), stock.eval()(x))
    assert repr(ours) == repr(stock)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (5, 7), (0,), (4, 0, 3), (3, 5, 7, 11), (2, 3, 5, 7, 3)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    result = Dropout(0.5)(torch.ones(shape))
    assert result.shape == shape
    assert ((result == 0) | (result == 2)).all()


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(1, 3),
    "every other column": lambda x: x[..., ::2],
    "middle": lambda x: x[1:, 3:-2, 1:-1, 5:],
    "channels_last, some channels": lambda x: x.to(memory_format=torch.channels_last)[:, 3:40],
    "expanded": lambda x: x[:1].expand_as(x),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout(layout: str) -> None:
    x = LAYOUTS[layout](torch.rand(16, 64, 33, 31) + 1)
    before = x.clone()
    result = Dropout(0.25)(x)
    assert torch.equal(x, before)
    assert result.shape == x.shape
    check_rate(int((result == 0).sum()), x.numel(), 0.25)
    scale = torch.tensor(STEPS / kept_of(0.25))
    assert torch.equal(result, torch.where(result == 0, torch.zeros(()), x * scale))
    for channel in range(1, x.shape[1]):  # the masks of two channels differ
        assert not torch.equal(result[:, 0] == 0, result[:, channel] == 0)


def test_channels_last_stays_so() -> None:
    x = torch.randn(4, 6, 9, 9).to(memory_format=torch.channels_last).requires_grad_()
    y = Dropout(0.5)(x)
    y.sum().backward()
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert x.grad is not None
    assert x.grad.is_contiguous(memory_format=torch.channels_last)
    # The mask lies in memory as the values do: walking both in step is what makes it fast.
    torch.manual_seed(1)
    plain = Dropout(0.5)(torch.ones(4, 9, 9, 6))
    torch.manual_seed(1)
    assert torch.equal(Dropout(0.5)(torch.ones_like(x)).permute(0, 2, 3, 1), plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_type_stays(dtype: torch.dtype) -> None:
    result = Dropout(0.5)(torch.ones(1001, dtype=dtype))
    assert result.dtype == dtype
    assert result.unique().tolist() == [0, 2]


def test_in_place_is_left_to_the_stock_module() -> None:
    x, y = torch.ones(1001), torch.ones(1001)
    torch.manual_seed(1)
    assert Dropout(0.5, inplace=True)(x) is x
    torch.manual_seed(1)
    assert torch.equal(x, nn.Dropout(0.5, inplace=True)(y))
