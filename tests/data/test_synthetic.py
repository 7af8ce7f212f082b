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
    images, labels = synthetic.make(train=False)
    assert digest(images) == "1ad3c2f3b1a293696b3a4c5d64970147e88a1bf4acd4e85ec4366f4706025507"
    assert digest(labels) == "027192936193d84764d412b7d322187b9ff48fefbc6ec77435f476cba8fb0ebf"
    assert (
        digest(synthetic.make(train=True).images) == "fd9dee793095e4e000834e8c998e9166a77c456636bc3053051c5160e3620392"
    )


@pytest.mark.parametrize(("train", "per_class"), [(True, 5_000), (False, 1_000)])
def test_sizes_types_and_class_counts(train: bool, per_class: int) -> None:
    images, labels = synthetic.make(train=train)
    assert images.shape == (10 * per_class, 3, 32, 32)
    assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
    assert labels.bincount().tolist() == [per_class] * len(synthetic.CLASSES) == [per_class] * 10
    # Of neighbours in random order a tenth are alike, give or take 0.003.
    assert (labels[1:] == labels[:-1]).float().mean().item() == pytest.approx(0.1, abs=0.015)


def test_count_need_not_fill_the_last_chunk() -> None:
    images, labels = synthetic.make(train=False, count=synthetic.CHUNK + 10)
    assert len(images) == len(labels) == synthetic.CHUNK + 10
    assert (images.flatten(1).max(dim=1).values > 0).all()


def test_no_image_comes_twice_or_is_constant() -> None:
    sets = [synthetic.make(train=train).images for train in (True, False)]
    assert len({image.tobytes() for images in sets for image in images.numpy()}) == 60_000
    assert sets[1].float().std(dim=(2, 3)).min() > 5


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
