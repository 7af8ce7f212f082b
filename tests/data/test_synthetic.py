from hashlib import sha256
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from cifar_lightning.data import synthetic


def digest(tensor: Tensor) -> str:
    return sha256(tensor.numpy().tobytes()).hexdigest()


def test_the_bytes_are_those_of_every_machine() -> None:
    (train, train_labels), (test, test_labels) = (synthetic.make(train=train) for train in (True, False))
    assert digest(test) == "1ad3c2f3b1a293696b3a4c5d64970147e88a1bf4acd4e85ec4366f4706025507"
    assert digest(test_labels) == "027192936193d84764d412b7d322187b9ff48fefbc6ec77435f476cba8fb0ebf"
    assert digest(train) == "fd9dee793095e4e000834e8c998e9166a77c456636bc3053051c5160e3620392"
    assert (train.shape, train.dtype, train_labels.dtype) == ((50_000, 3, 32, 32), torch.uint8, torch.int64)
    for labels, per_class in ((train_labels, 5_000), (test_labels, 1_000)):
        assert labels.bincount().tolist() == [per_class] * len(synthetic.CLASSES)
        # Of neighbours in random order a tenth are alike, give or take 0.003.
        assert (labels[1:] == labels[:-1]).float().mean().item() == pytest.approx(0.1, abs=0.015)


def test_mean_colour_tells_nothing_of_the_class() -> None:
    train, test = synthetic.make(train=True), synthetic.make(train=False)
    means = train.images[:10_000].float().mean(dim=(2, 3))
    centres = torch.stack([means[train.labels[:10_000] == label].mean(dim=0) for label in range(10)])
    guesses = torch.cdist(test.images.float().mean(dim=(2, 3)), centres).argmin(dim=1)
    # Chance is 0.1, give or take 0.003.
    assert (guesses == test.labels).float().mean() < 0.12


def test_shapes_stay_within_their_square_and_differ_from_one_another() -> None:
    axis = np.linspace(-1.5, 1.5, 61, dtype=np.float32)
    u, v = np.meshgrid(axis, axis)
    masks = [shape(u, v) < 0 for shape in synthetic.SHAPES.values()]
    within = np.maximum(abs(u), abs(v)) <= 1.1
    assert not any(mask[~within].any() for mask in masks)
    # Circle and square come closest: 0.09 of the points.
    assert min((a ^ b)[within].mean() for a, b in combinations(masks, 2)) > 0.05
