from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LambdaCallback

from cifar_lightning.data import ImageSet
from cifar_lightning.data.loader import BatchLoader, steps_per_epoch
from cifar_lightning.models import MLP
from tests.models.conftest import trainer

# On a machine with one core two workers are more than torch advises; from Python 3.12 on a fork of a process with
# threads, which torch has, gets a warning; and there is nothing to validate on here.
pytestmark = pytest.mark.filterwarnings(
    "ignore:This DataLoader will create", "ignore:.*use of fork:DeprecationWarning", "ignore:You defined a `validation_"
)


def numbered(size: int) -> ImageSet:
    """Image i is all i, and so is its label."""
    labels = torch.arange(size)
    return ImageSet(labels.to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, 32, 32), labels)


def training(images: ImageSet, batch_size: int, *, seed: int, num_workers: int = 0) -> BatchLoader:
    return BatchLoader(images, batch_size, training=True, seed=seed, num_workers=num_workers)


def batches(loader: BatchLoader, epoch: int = 0) -> list[list[int]]:
    """The labels of an epoch's batches; asserts that the images are theirs."""
    loader.batches.set_epoch(epoch)
    found = [(batch.images, batch.labels.tolist()) for batch in loader]
    for images, labels in found:
        assert torch.equal(images, torch.tensor(labels).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 32, 32))
    return [labels for _, labels in found]


def order(loader: BatchLoader, epoch: int = 0) -> list[int]:
    return [row for rows in batches(loader, epoch) for row in rows]


@pytest.mark.parametrize(
    ("size", "batch_size", "sizes", "lone"),
    [
        (200, 100, [100, 100], 0),
        (202, 100, [100, 100, 2], 0),
        (2, 10, [2], 0),
        (3, 1, [1, 1, 1], 0),
        (1, 1, [1], 0),
        (0, 5, [], 0),
        # A remainder of one image.
        (201, 100, [100, 100], 1),
        (3, 2, [2], 1),
        (1, 5, [], 1),
    ],
)
def test_every_image_once_per_epoch_but_a_lone_one_in_training(
    size: int, batch_size: int, sizes: list[int], lone: int
) -> None:
    images = numbered(size)
    learnt, evaluation = BatchLoader(images, batch_size, training=True, seed=0), BatchLoader(images, batch_size)
    assert [len(labels) for labels in batches(learnt)] == sizes
    assert [len(labels) for labels in batches(evaluation)] == sizes + [1] * lone
    assert (len(learnt), len(evaluation)) == (len(sizes), len(sizes) + lone)
    assert len(set(order(learnt)) & set(range(size))) == size - lone
    assert order(evaluation, 0) == order(evaluation, 5) == list(range(size))


def test_each_epoch_leaves_out_another_image() -> None:
    loader = training(numbered(101), 50, seed=0)
    assert len({(set(range(101)) - set(order(loader, epoch))).pop() for epoch in range(8)}) > 1


def test_the_order_depends_on_seed_and_epoch_and_nothing_else() -> None:
    loaders = [training(numbered(100), 10, seed=seed) for seed in range(3)]
    orders = [order(loader, epoch) for loader in loaders for epoch in range(3)]
    assert len({tuple(rows) for rows in orders}) == 9
    assert list(range(100)) not in orders
    torch.manual_seed(2)
    other = training(numbered(100), 10, seed=2)
    assert [order(other, epoch) for epoch in (2, 0, 1)] == [orders[8], orders[6], orders[7]]
    # Nor on the size of a batch.
    assert order(training(numbered(100), 33, seed=2), 2)[:99] == orders[8][:99]


def fit(size: int, batch_size: int, *callbacks: Callback, epochs: int = 1, **settings: Any) -> Trainer:
    images, labels = numbered(size)
    fitted = trainer(epochs, *callbacks, **settings)
    fitted.fit(MLP(depth=0), training(ImageSet(images.float(), labels % 10), batch_size, seed=4))
    return fitted


def test_the_trainer_tells_the_sampler_its_epoch() -> None:
    rows: list[int] = []
    recorder = LambdaCallback(on_train_batch_start=lambda *args: rows.extend(args[2].images[:, 0, 0, 0].int().tolist()))
    fit(40, 8, recorder, epochs=2)
    loader = training(numbered(40), 8, seed=4)
    assert rows == order(loader, 0) + order(loader, 1)


@pytest.mark.parametrize(
    ("size", "limit", "steps"),
    [
        *((40, limit, steps) for limit, steps in [(1.0, 10), (1, 1), (3, 3), (11, 10), (0, 0), (0.0, 0), (0.39, 3)]),
        *((40, limit, steps) for limit, steps in [(2.0, 2), (11.0, 10)]),
        *((41, limit, steps) for limit, steps in [(1.0, 10), (10, 10), (11, 10), (0.5, 5)]),
        *((42, limit, steps) for limit, steps in [(1.0, 11), (11, 11), (0.5, 5), (0.99, 10)]),
    ],
)
def test_steps_per_epoch_are_those_of_the_loader_and_of_lightning(size: int, limit: int | float, steps: int) -> None:
    assert steps_per_epoch(size, 4, limit) == steps
    assert steps_per_epoch(size, 4) == len(training(numbered(size), 4, seed=0))
    fitted = fit(size, 4, limit_train_batches=limit)
    assert fitted.global_step == steps
    assert fitted.num_training_batches == steps or limit == 0


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
@pytest.mark.parametrize(("size", "batch_size"), [(1037, 100), (100, 100), (103, 100), (201, 100), (30, 4), (5, 1)])
def test_processes_share_every_batch_without_a_lone_image(processes: int, size: int, batch_size: int) -> None:
    images, alone = numbered(size), batches(training(numbered(size), batch_size, seed=3), 2)
    loaders = [
        BatchLoader(images, batch_size, training=True, seed=3, process=process, processes=processes)
        for process in range(processes)
    ]
    for loader in loaders:
        loader.batches.set_epoch(2)
    for step, parts in zip(alone, zip(*loaders, strict=True), strict=True):
        assert [row for part in parts for row in part.labels.tolist()] == step
        assert [part.start for part in parts if len(part.labels)] == [
            step.index(part.labels[0]) for part in parts if len(part.labels)
        ]
        assert {part.size for part in parts} == {len(step)}
        assert len({part.seed for part in parts}) == 1
        assert 1 not in [len(part.labels) for part in parts] or batch_size == 1
        # The mean over processes of weighted means is the mean over the batch.
        means = [part.labels.double().mean() if len(part.labels) else 0.0 for part in parts]
        mean = sum(float(x) * part.weight for x, part in zip(means, parts, strict=True)) / processes
        assert mean == pytest.approx(sum(step) / len(step))


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("size", [997, 1000, 10_000, 3, 0])
def test_processes_evaluate_whole_batches_in_turn(processes: int, size: int) -> None:
    alone = batches(BatchLoader(numbered(size), 50))
    loaders = [BatchLoader(numbered(size), 50, process=process, processes=processes) for process in range(processes)]
    assert len({len(loader) for loader in loaders}) == 1  # they meet in every step
    in_turn = [part.labels.tolist() for parts in zip(*loaders, strict=True) for part in parts]
    assert [labels for labels in in_turn if labels] == alone


@pytest.mark.parametrize("workers", [0, 2])
def test_it_resumes_in_the_middle_of_an_epoch(workers: int) -> None:
    images = numbered(26)
    whole = training(images, 4, seed=1)
    first, second, third = (batches(whole, epoch) for epoch in range(3))
    assert whole.state_dict() == {"epoch": 2, "batches": 7}

    whole.batches.set_epoch(1)
    part = iter(whole)
    assert [next(part).labels.tolist() for _ in range(3)] == second[:3]
    state = whole.state_dict()
    assert state == {"epoch": 1, "batches": 3}

    again = training(images, 4, seed=1, num_workers=workers)
    again.load_state_dict(state)
    assert len(again) == 7
    assert batches(again, 1) == second[3:]
    assert again.state_dict() == {"epoch": 1, "batches": 7}
    assert batches(again, 2) == third
    assert batches(again, 0) == first
