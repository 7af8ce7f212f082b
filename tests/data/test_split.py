import hashlib
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cifar_lightning.data import cifar10
from cifar_lightning.data.split import stratified_sample, stratified_split

BALANCED = torch.arange(50_000) % 10


def counts(labels: Tensor, rows: Tensor) -> list[int]:
    return torch.bincount(labels[rows], minlength=10).tolist()


def check_rows(labels: Tensor, sha256: str) -> None:
    state = torch.get_rng_state()
    train, val = stratified_split(labels, 10_000)
    assert torch.equal(torch.get_rng_state(), state)
    assert (counts(labels, train), counts(labels, val)) == ([4_000] * 10, [1_000] * 10)
    # 2,000 of 10,000 in each fifth of the file are expected; 6 standard deviations are 215.
    assert (torch.bincount(val // 10_000, minlength=5) - 2_000).abs().max() < 215
    # Another digest means another split: no metric would compare with an earlier one.
    assert hashlib.sha256(val.numpy().astype("<i8").tobytes()).hexdigest() == sha256


def test_the_rows_are_pinned_whatever_the_global_random_state() -> None:
    for seed in (1, 2):
        torch.manual_seed(seed)
        check_rows(BALANCED, "c6a35043f073725d9884834629066d75b59438762ec850ad41138142fb0094b0")


@pytest.mark.cifar10
def test_the_rows_of_the_real_validation_set_are_pinned(cifar10_root: Path) -> None:
    labels = cifar10.load(cifar10_root, train=True).labels
    check_rows(labels, "5a6f2a2a6cdd2be896eebd192ce63c0c20121e6ee59d843a2fe5f70292d16c01")


@pytest.mark.parametrize("val_size", [0, 1, 9, 10, 12_345, 49_990, 50_000])
def test_the_two_parts_are_disjoint_and_together_all(val_size: int) -> None:
    train, val = stratified_split(BALANCED, val_size)
    assert (len(train), len(val)) == (50_000 - val_size, val_size)
    assert torch.equal(torch.cat([train, val]).sort().values, torch.arange(50_000))
    for rows in (train, val):
        assert rows.dtype == torch.int64
        assert torch.equal(rows, rows.sort().values)


def test_a_smaller_sample_is_part_of_every_larger_one() -> None:
    samples = [set(stratified_sample(BALANCED, size).tolist()) for size in (0, 3, 10, 17, 500, 501, 9_999, 50_000)]
    assert all(smaller < larger for smaller, larger in pairwise(samples))


@pytest.mark.parametrize(
    ("labels", "size", "drawn"),
    [
        (BALANCED, 37, [4] * 7 + [3] * 3),  # the remainder goes to the first classes
        (BALANCED, 3, [1] * 3 + [0] * 7),
        (torch.tensor([0] * 3 + [1] * 30), 6, [3, 3] + [0] * 8),
        (torch.tensor([0] * 3 + [1] * 30), 16, [3, 13] + [0] * 8),  # classes of different size
    ],
)
def test_as_many_rows_of_every_class_as_there_are(labels: Tensor, size: int, drawn: list[int]) -> None:
    assert counts(labels, stratified_sample(labels, size)) == drawn


def test_no_such_size() -> None:
    for size in (-1, 50_001):
        with pytest.raises(ValueError, match=f"{size} of 50000 rows"):
            stratified_split(BALANCED, size)
