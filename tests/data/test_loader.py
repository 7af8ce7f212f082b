from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from cifar_lightning.data.image_set import ImageSet
from cifar_lightning.data.loader import Batches, BatchLoader, batch_loader, steps_per_epoch
from cifar_lightning.models import MLP


def numbered(size: int) -> ImageSet:
    """Image i is all i, and so is its label."""
    labels = torch.arange(size)
    return ImageSet(labels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 32, 32).contiguous(), labels)


def batches(loader: DataLoader[ImageSet], epoch: int = 0) -> list[ImageSet]:
    assert isinstance(loader.sampler, Batches)
    loader.sampler.set_epoch(epoch)
    return list(loader)


def order(loader: DataLoader[ImageSet], epoch: int = 0) -> list[int]:
    return [int(label) for batch in batches(loader, epoch) for label in batch.labels]


def quiet_trainer(**settings: Any) -> Trainer:
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return Trainer(accelerator="cpu", **off, **settings)


@pytest.mark.parametrize(("size", "batch_size"), [(250, 100), (200, 100), (8, 3), (5, 5), (2, 10), (3, 1), (1, 1)])
@pytest.mark.parametrize("seed", [None, 0])
def test_every_image_once_an_epoch(size: int, batch_size: int, seed: int | None) -> None:
    loader = batch_loader(numbered(size), batch_size, seed=seed)
    found = batches(loader)
    assert len(loader) == len(found) == -(-size // batch_size)
    assert [len(batch.labels) for batch in found[:-1]] == [batch_size] * (len(found) - 1)
    assert torch.equal(torch.cat([batch.labels for batch in found]).sort().values, torch.arange(size))


def test_images_and_labels_stay_together() -> None:
    for batch in batches(batch_loader(numbered(250), 64, seed=3)):
        assert batch.images.dtype == torch.uint8
        assert batch.labels.dtype == torch.int64
        assert torch.equal(batch.images, batch.labels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 32, 32))


@pytest.mark.parametrize(
    ("size", "batch_size", "seed", "sizes"),
    [
        (201, 100, 0, [100, 100]),
        (201, 100, None, [100, 100, 1]),
        (202, 100, 0, [100, 100, 2]),
        (3, 2, 0, [2]),
        (3, 1, 0, [1, 1, 1]),
        (1, 1, 0, [1]),
        (1, 1, None, [1]),
        (1, 5, None, [1]),
        (1, 5, 0, []),
        (0, 5, None, []),
    ],
)
def test_only_training_leaves_out_a_lone_image(size: int, batch_size: int, seed: int | None, sizes: list[int]) -> None:
    loader = batch_loader(numbered(size), batch_size, seed=seed)
    assert [len(batch.labels) for batch in loader] == sizes
    assert len(loader) == len(sizes)


@pytest.mark.parametrize(
    ("size", "limit", "steps"),
    [
        *((40, limit, steps) for limit, steps in [(1.0, 10), (1, 1), (3, 3), (11, 10), (0, 0), (0.0, 0), (0.39, 3)]),
        *((41, limit, steps) for limit, steps in [(1.0, 10), (10, 10), (11, 10), (0.5, 5)]),
        *((42, limit, steps) for limit, steps in [(1.0, 11), (11, 11), (0.5, 5), (0.99, 10)]),
    ],
)
@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")  # on purpose: nothing to validate on here
def test_steps_per_epoch_are_those_of_the_loader_and_of_lightning(size: int, limit: int | float, steps: int) -> None:
    assert steps_per_epoch(size, 4, limit) == steps
    images, labels = numbered(size)
    loader = batch_loader(ImageSet(images.float(), labels % 10), 4, seed=0)
    assert len(loader) == steps_per_epoch(size, 4)
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=limit)
    trainer.fit(MLP(depth=0), loader)
    assert trainer.global_step == steps
    assert trainer.num_training_batches == steps or limit == 0


def test_each_epoch_leaves_out_another_image() -> None:
    loader = batch_loader(numbered(101), 50, seed=0)
    left_out = {(set(range(101)) - set(order(loader, epoch))).pop() for epoch in range(8)}
    assert len(left_out) > 1


def test_the_order_depends_on_seed_and_epoch() -> None:
    orders = [order(batch_loader(numbered(100), 10, seed=seed), epoch) for seed in range(3) for epoch in range(3)]
    assert len({tuple(rows) for rows in orders}) == 9
    assert list(range(100)) not in orders


def test_the_order_depends_on_nothing_else() -> None:
    loader = batch_loader(numbered(100), 10, seed=7)
    torch.manual_seed(1)
    straight = [order(loader, epoch) for epoch in range(3)]
    torch.manual_seed(2)
    torch.rand(5)
    other = batch_loader(numbered(100), 10, seed=7)
    assert [order(other, epoch) for epoch in (2, 0, 1)] == [straight[2], straight[0], straight[1]]
    # Nor on the size of a batch.
    assert order(batch_loader(numbered(100), 33, seed=7), 2)[:99] == straight[2][:99]


@pytest.mark.parametrize("seed", [None, 0])
def test_the_global_generator_is_left_alone(seed: int | None) -> None:
    loader = batch_loader(numbered(20), 5, seed=seed)
    state = torch.get_rng_state()
    for epoch in range(2):
        batches(loader, epoch)
    assert torch.equal(torch.get_rng_state(), state)


# On a machine with one core two workers are more than torch advises; from Python 3.12 on a fork of a process with
# threads, which torch has, gets a warning.
@pytest.mark.filterwarnings("ignore:This DataLoader will create", "ignore:.*use of fork:DeprecationWarning")
def test_workers_change_nothing() -> None:
    alone, helped = (batch_loader(numbered(101), 10, seed=0, num_workers=n) for n in (0, 2))
    state = torch.get_rng_state()
    for epoch in range(2):
        for mine, theirs in zip(batches(alone, epoch), batches(helped, epoch), strict=True):
            assert torch.equal(mine.images, theirs.images)
            assert torch.equal(mine.labels, theirs.labels)
    assert torch.equal(torch.get_rng_state(), state)


def test_evaluation_keeps_order_and_everything() -> None:
    loader = batch_loader(numbered(101), 10)
    assert order(loader, 0) == order(loader, 5) == list(range(101))


class Recorder(Callback):
    def __init__(self) -> None:
        self.epochs: list[list[int]] = []

    def on_train_epoch_start(self, *args: Any) -> None:
        self.epochs.append([])

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: ImageSet, batch_idx: int) -> None:
        images: Tensor = batch.images
        self.epochs[-1] += [int(value) for value in images[:, 0, 0, 0]]


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")  # on purpose: nothing to validate on here
def test_the_trainer_tells_the_sampler_its_epoch() -> None:
    images, labels = numbered(40)
    recorder = Recorder()
    trainer = quiet_trainer(max_epochs=2, callbacks=[recorder])
    trainer.fit(MLP(depth=0), batch_loader(ImageSet(images.float(), labels % 10), 8, seed=4))
    loader = batch_loader(numbered(40), 8, seed=4)
    assert recorder.epochs == [order(loader, 0), order(loader, 1)]


@pytest.mark.parametrize("workers", [0, 2])
def test_it_goes_on_in_the_middle_of_an_epoch(workers: int) -> None:
    def rows(loader: BatchLoader, epoch: int) -> list[list[int]]:
        loader.sampler.set_epoch(epoch)
        return [batch.labels.tolist() for batch in loader]

    images = numbered(26)
    whole = batch_loader(images, 4, seed=1)
    first, second, third = (rows(whole, epoch) for epoch in range(3))
    assert whole.state_dict() == {"epoch": 2, "batches": 7}

    whole.sampler.set_epoch(1)
    part = iter(whole)
    assert [next(part).labels.tolist() for _ in range(3)] == second[:3]
    state = whole.state_dict()
    assert state == {"epoch": 1, "batches": 3}

    again = batch_loader(images, 4, seed=1, num_workers=workers)
    again.load_state_dict(state)
    assert len(again) == 7
    assert rows(again, 1) == second[3:]
    assert again.state_dict() == {"epoch": 1, "batches": 7}
    assert rows(again, 2) == third
    assert rows(again, 0) == first
