"""Muon against PyTorch's own, which takes matrices alone, against SGD, and against the singular values of its steps."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cifar_lightning.models import CNN, WhitenedCNN
from cifar_lightning.models.muon import Muon, orthogonalize
from tests.models.conftest import batch, loader, trainer


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (16, 16), (1, 5)])
def test_an_orthogonal_matrix_keeps_the_singular_vectors(shape: tuple[int, int]) -> None:
    matrix = random(*shape).double()
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    found = u.T @ orthogonalize(matrix) @ v.T
    torch.testing.assert_close(found, found.diag().diag())
    known = values / values.norm() >= 0.02
    assert known.sum() >= len(values) - 2
    assert found.diag()[known].min() > 0.68
    assert found.diag()[known].max() < 1.21
    torch.testing.assert_close(orthogonalize(1e6 * matrix), orthogonalize(matrix))


def test_nothing_makes_no_step() -> None:
    assert torch.equal(orthogonalize(torch.zeros(3, 4)), torch.zeros(3, 4))


def steps(optimizer: Any, parameter: nn.Parameter) -> Tensor:
    for seed in range(1, 5):
        parameter.grad = random(*parameter.shape, seed=seed)
        optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize(("shape", "longer"), [((8, 30), 1.0), ((30, 8), (30 / 8) ** 0.5)])
def test_it_is_pytorchs_for_matrices(shape: tuple[int, int], longer: float) -> None:
    settings: dict[str, Any] = {"lr": 0.02, "momentum": 0.6, "weight_decay": 0.1}
    ours, theirs = (nn.Parameter(random(*shape)) for _ in range(2))
    found = steps(Muon([ours], **settings | {"lr": 0.02 * longer, "weight_decay": 0.1 / longer}), ours)
    expected = steps(torch.optim.Muon([theirs], **settings, ns_steps=3), theirs)
    torch.testing.assert_close(found, expected, atol=4e-3, rtol=0)  # theirs iterates in bfloat16
    assert (found - random(*shape)).abs().max() > 0.02


def test_a_convolution_is_a_matrix_with_a_row_per_output_channel() -> None:
    matrix, weight = nn.Parameter(random(8, 3 * 9)), nn.Parameter(random(8, 3 * 9).view(8, 3, 3, 3))
    found, expected = (steps(Muon([each], lr=0.1), each) for each in (weight, matrix))
    torch.testing.assert_close(found.flatten(1), expected)
    last = nn.Parameter(random(8, 3 * 9).view(8, 3, 3, 3).contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(steps(Muon([last], lr=0.1), last), found)


@pytest.mark.parametrize(("shape", "orthogonal"), [((8, 30), False), ((8,), True)])
def test_plain_steps_are_those_of_sgd(shape: tuple[int, ...], orthogonal: bool) -> None:
    ours, theirs = (nn.Parameter(random(*shape)) for _ in range(2))
    settings: dict[str, Any] = {"lr": 0.02, "momentum": 0.6}
    found = steps(Muon([ours], **settings, orthogonal=orthogonal), ours)
    torch.testing.assert_close(found, steps(torch.optim.SGD([theirs], **settings, nesterov=True), theirs))


def test_decay_is_decoupled() -> None:
    weight = nn.Parameter(random(4, 4))
    weight.grad = torch.zeros(4, 4)
    Muon([weight], lr=0.5, weight_decay=0.2).step()
    torch.testing.assert_close(weight.detach(), 0.9 * random(4, 4))


def test_what_moves_how() -> None:
    model: Any = WhitenedCNN(channels=[4], lr=0.1, optimizer="muon", weight_decay=0.2, head_lr_factor=5.0)
    filters, head, biases = model.new_optimizer().param_groups
    assert {tuple(p.shape) for p in filters["params"]} == {(4, 24, 3, 3), (4, 4, 3, 3)}
    assert [tuple(p.shape) for p in head["params"]] == [(10, 4)]
    assert [group["orthogonal"] for group in (filters, head, biases)] == [True, False, False]
    rates = [(group["lr"], group["weight_decay"]) for group in (filters, head, biases)]
    assert rates == [(0.1, 0.2), (0.5, pytest.approx(0.04)), (pytest.approx(6.4), pytest.approx(0.2 / 64))]


def test_every_model_learns_by_it() -> None:
    model = CNN(channels=(4,), optimizer="muon", lr=0.02, dropout=0.0)
    data, run = batch(16), trainer(30)
    before = nn.functional.cross_entropy(model(data[0]), data[1])
    run.fit(model, loader(data), loader(data))
    assert nn.functional.cross_entropy(model.train()(data[0]), data[1]) < 0.2 * before
