from hashlib import sha256
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from cifar_lightning.data import synthetic
from cifar_lightning.data.image_set import ImageSet


@pytest.fixture(scope="module")
def train() -> ImageSet:
    return synthetic.make(train=True)


@pytest.fixture(scope="module")
def test() -> ImageSet:
    return synthetic.make(train=False)


def digest(tensor: Tensor) -> str:
    return sha256(tensor.numpy().tobytes()).hexdigest()


def channel_means(images: Tensor) -> Tensor:
    return images.float().mean(dim=(2, 3))


def test_there_are_ten_distinct_class_names() -> None:
    assert len(set(synthetic.CLASSES)) == len(synthetic.CLASSES) == 10


@pytest.mark.parametrize(("name", "per_class"), [("train", 5_000), ("test", 1_000)])
def test_sizes_types_and_class_counts(name: str, per_class: int, request: pytest.FixtureRequest) -> None:
    images, labels = request.getfixturevalue(name)
    assert images.shape == (10 * per_class, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64
    assert labels.bincount().tolist() == [per_class] * 10


def test_labels_come_shuffled(test: ImageSet) -> None:
    # Of neighbours in random order a tenth are alike, give or take 0.003.
    assert (test.labels[1:] == test.labels[:-1]).float().mean().item() == pytest.approx(0.1, abs=0.015)


@pytest.mark.parametrize("train", [True, False])
def test_two_calls_give_the_same_bytes(train: bool) -> None:
    first, second = synthetic.make(train=train, count=500), synthetic.make(train=train, count=500)
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.labels, second.labels)


def test_the_bytes_are_those_of_every_machine(test: ImageSet) -> None:
    assert digest(test.images) == "1ad3c2f3b1a293696b3a4c5d64970147e88a1bf4acd4e85ec4366f4706025507"
    assert digest(test.labels) == "027192936193d84764d412b7d322187b9ff48fefbc6ec77435f476cba8fb0ebf"


def test_count_need_not_fill_the_last_chunk() -> None:
    images, labels = synthetic.make(train=False, count=synthetic.CHUNK + 10)
    assert len(images) == len(labels) == synthetic.CHUNK + 10
    assert (images.flatten(1).max(dim=1).values > 0).all()


def test_no_image_comes_twice_in_training_and_test_together(train: ImageSet, test: ImageSet) -> None:
    assert len({image.tobytes() for part in (train, test) for image in part.images.numpy()}) == 60_000


def test_no_image_is_constant(test: ImageSet) -> None:
    assert test.images.float().std(dim=(2, 3)).min() > 5


def test_mean_colour_tells_nothing_of_the_class(train: ImageSet, test: ImageSet) -> None:
    means = channel_means(train.images[:10_000])
    centres = torch.stack([means[train.labels[:10_000] == label].mean(dim=0) for label in range(10)])
    guesses = torch.cdist(channel_means(test.images), centres).argmin(dim=1)
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
