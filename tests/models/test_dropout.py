"""Dropout against the binomial distribution, its own mask and the stock module."""

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cifar_lightning.models.layers import Dropout, Scaling

WHOLE = 1_000_000  # 15,625 words of 64 decisions, 250,000 of four
COUNT = 1_000_003  # odd: the last 64-bit word is used in part
STEPS = 65_536
PATHS = pytest.mark.parametrize("p", [0.5, 0.3])  # at 1/2 a bit decides, elsewhere 16


def kept_of(p: float) -> int:
    return round((1 - p) * STEPS)


def check_rate(zeros: int, count: int, p: float) -> None:
    """Within 6 standard deviations of the binomial distribution: one in 500 million correct programs fails."""
    dropped = 1 - kept_of(p) / STEPS
    assert abs(zeros - count * dropped) < 6 * (count * dropped * (1 - dropped)) ** 0.5


@pytest.mark.parametrize("p", [0.001, 0.1, 0.25, 0.3, 0.5, 0.75, 0.9, 0.999, 1 - 100.4 / STEPS])
def test_rate_and_scale(p: float) -> None:
    result = Dropout(p)(torch.ones(COUNT))
    check_rate(int((result == 0).sum()), COUNT, p)
    assert torch.equal(result[result != 0].unique(), torch.tensor([STEPS / kept_of(p)]))  # rounded to 1 in 65,536


def check_patterns(kept: Tensor, p: float) -> None:
    """Every pattern of a row comes up as often as independent elements make it, within 6 standard deviations."""
    count, width = kept.shape
    found = torch.bincount(kept.long() @ 2 ** torch.arange(width), minlength=2**width)
    ones = (torch.arange(2**width).view(-1, 1) >> torch.arange(width) & 1).sum(1)
    rate = kept_of(p) / STEPS
    chance = rate**ones * (1 - rate) ** (width - ones)
    assert ((found - count * chance).abs() < 6 * (count * chance * (1 - chance)).sqrt()).all()


@pytest.mark.parametrize("count", [WHOLE, COUNT])
def test_the_eight_elements_of_a_byte_are_independent(count: int) -> None:
    # At 1/2 a byte decides eight elements, an eighth of all words' bytes from one to the next.
    apart = 8 * -(-count // 64)
    rest = 8 * apart - count
    together = F.pad(Dropout(0.5)(torch.ones(count)) != 0, (0, rest)).view(8, apart)
    check_patterns(together[:, : apart - rest].T, 0.5)


@pytest.mark.parametrize(("p", "width"), [(0.5, 8), (0.3, 4)])
def test_neighbors_are_independent(p: float, width: int) -> None:
    # Away from 1/2 a 64-bit draw decides four of them.
    check_patterns((Dropout(p)(torch.ones(WHOLE)) != 0).view(-1, width), p)


@PATHS
@pytest.mark.parametrize("count", [WHOLE, COUNT])
def test_no_two_elements_go_together_whatever_lies_between(p: float, count: int) -> None:
    factors = Dropout(p)(torch.ones(count)).double()
    rate = kept_of(p) / STEPS
    deviations = (factors - 1) / ((1 - rate) / rate) ** 0.5  # mean 0, variance 1
    spectrum = torch.fft.rfft(deviations, 2**21)  # padded, so that no end meets a beginning
    correlation = torch.fft.irfft(spectrum.abs().square())[1 : count // 2]
    # Of so many sums one in 2 million correct programs has one beyond 7.5 standard deviations.
    assert correlation.abs().max() < 7.5 * count**0.5


@pytest.mark.parametrize(("p", "decisions"), [(0.5, 64), (0.3, 4)])
@pytest.mark.parametrize("count", [1, 63, 64, 65, 1001])
def test_how_many_elements_a_word_decides(p: float, decisions: int, count: int) -> None:
    Dropout(p)(torch.ones(count))
    state = torch.get_rng_state()
    torch.manual_seed(0)
    torch.empty(-(-count // decisions), dtype=torch.int64).random_(-(2**63), None)
    assert torch.equal(torch.get_rng_state(), state)


@PATHS
def test_every_call_and_channel_has_its_own_mask(p: float) -> None:
    dropout, ones = Dropout(p), torch.ones(8, 16, 32, 32)
    first, second = dropout(ones) != 0, dropout(ones) != 0
    check_patterns(torch.stack([first.flatten(), second.flatten()], dim=1), p)
    for pair in itertools.combinations(first.transpose(0, 1).reshape(16, -1), 2):
        check_patterns(torch.stack(pair, dim=1), p)
    assert not torch.equal(first[0], first[1])


@PATHS
def test_the_masks_follow_the_seed_whatever_the_threads(p: float) -> None:
    def two_masks(seed: int, threads: int) -> Tensor:
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        return torch.stack([Dropout(p)(torch.ones(COUNT)) for _ in range(2)])

    before = torch.get_num_threads()
    expected, *same, other = (two_masks(*each) for each in ((1, 1), (1, 1), (1, 2), (1, 3), (2, 1)))
    torch.set_num_threads(before)
    assert all(torch.equal(masks, expected) for masks in same)
    assert not torch.equal(other, expected)


@pytest.mark.parametrize("p", [0.25, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_values_and_gradient_are_mask_times_scale(p: float, dtype: torch.dtype) -> None:
    factor = Dropout(p)(torch.ones(7, 5, 9, 11, dtype=dtype))
    assert torch.equal(factor.unique(), torch.tensor([0, STEPS / kept_of(p)], dtype=dtype))
    x, upstream = torch.randn(2, 7, 5, 9, 11).to(dtype).requires_grad_()
    torch.manual_seed(0)
    y = Dropout(p)(x)
    (gradient,) = torch.autograd.grad(y, x, upstream)
    assert (y.dtype, gradient.dtype) == (dtype, dtype)
    assert torch.equal(y, x * factor)
    assert torch.equal(gradient, upstream * factor)


# In training (first two), in evaluation.
@pytest.mark.parametrize(("p", "training", "factor"), [(0.0, 1, 1.0), (1.0, 1, 0.0), (0.5, 0, 1.0), (0.3, 0, 1.0)])
def test_where_nothing_is_left_to_chance_nothing_is_drawn(p: float, training: int, factor: float) -> None:
    x, state = torch.randn(100, requires_grad=True), torch.get_rng_state()
    y = Dropout(p).train(bool(training))(x)
    assert torch.equal(y, x * factor)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.full((100,), factor))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("p", "inplace"), [(0.5, True), (1e-7, False)])  # the latter is rounded to 0
def test_what_is_left_to_the_stock_module(p: float, inplace: bool) -> None:
    ours, x = Dropout(p, inplace), torch.ones(1001)
    stock = ours.stock()
    assert repr(ours) == repr(stock) == f"Dropout(p={p}, inplace={inplace})"
    torch.manual_seed(1)
    expected = stock(x.clone())
    torch.manual_seed(1)
    assert torch.equal(y := ours(x), expected)
    assert (y is x) == inplace


@PATHS
@pytest.mark.parametrize("shape", [(), (1,), (3,), (5, 7), (64,), (129,), (0,), (4, 0, 3), (3, 5, 7, 11), (2, 3, 5, 7)])
def test_any_shape(shape: tuple[int, ...], p: float) -> None:
    result = Dropout(p)(torch.ones(shape))
    assert result.shape == shape
    assert ((result == 0) | (result == torch.tensor(STEPS / kept_of(p)))).all()


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(1, 3),
    "every other column": lambda x: x[..., ::2],
    "middle": lambda x: x[1:, 3:-2, 1:-1, 5:],
    "channels_last, some channels": lambda x: x.to(memory_format=torch.channels_last)[:, 3:40],
    "expanded": lambda x: x[:1].expand_as(x),
}


@pytest.mark.parametrize("p", [0.25, 0.5])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout(layout: str, p: float) -> None:
    x = LAYOUTS[layout](torch.rand(16, 64, 33, 31) + 1)
    before = x.clone()
    result = Dropout(p)(x)
    assert torch.equal(x, before)
    check_rate(int((result == 0).sum()), x.numel(), p)
    assert torch.equal(result, (result != 0) * x * (STEPS / kept_of(p)))
    assert len((result == 0).transpose(0, 1).flatten(1).unique(dim=0)) == x.shape[1]  # no two channels' masks agree


@PATHS
def test_channels_last_stays_so(p: float) -> None:
    x = torch.randn(4, 6, 9, 9).to(memory_format=torch.channels_last).requires_grad_()
    y = Dropout(p)(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in (y, gradient))
    # The mask lies in memory as the values do: walking both in step is what makes it fast.
    torch.manual_seed(1)
    plain = Dropout(p)(torch.ones(4, 9, 9, 6))
    torch.manual_seed(1)
    assert torch.equal(Dropout(p)(torch.ones_like(x)).permute(0, 2, 3, 1), plain)


@pytest.mark.parametrize("p", [0.25, 0.3, 0.5, 0.9])
@pytest.mark.parametrize(("scaling", "when"), [("train", (1, 0)), ("never", (0, 0)), ("always", (1, 1))])
@pytest.mark.parametrize("inplace", [False, True])
def test_when_it_scales(scaling: Scaling, when: tuple[int, int], p: float, inplace: bool) -> None:
    dropout, ones = Dropout(p, inplace, scaling), torch.ones(1000)
    scale = 1 / (1 - p) if inplace else STEPS / kept_of(p)  # by the stock module, which does not round
    torch.manual_seed(1)
    train = dropout(ones.clone())
    torch.manual_seed(1)
    assert torch.equal(train != 0, Dropout(p, inplace)(ones.clone()) != 0)  # the same mask
    torch.testing.assert_close(train[train != 0].unique(), torch.tensor([scale if when[0] else 1.0]))
    in_evaluation = torch.tensor([STEPS / kept_of(p) if when[1] else 1.0])
    assert torch.equal(dropout.eval()(ones.clone()).unique(), in_evaluation)


def test_where_all_is_dropped_nothing_is_scaled() -> None:
    dropout = Dropout(1.0, scaling="always")
    assert not dropout(torch.ones(9)).any()
    assert torch.equal(dropout.eval()(torch.ones(9)), torch.ones(9))
