import re
from contextlib import nullcontext
from multiprocessing import active_children
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.accelerators import CPUAccelerator, CUDAAccelerator

from cifar_lightning.data import ImageSet, cifar10, synthetic
from cifar_lightning.data.datamodule import CIFAR10DataModule, Source, data_root, resolve_source
from cifar_lightning.data.transforms import normalize
from cifar_lightning.errors import InputError
from cifar_lightning.models import MLP
from tests.models.conftest import trainer

NOWHERE = ("http://127.0.0.1:9/x.tar.gz",)  # nothing listens on port 9


def build(stage: str = "fit", **settings: Any) -> CIFAR10DataModule:
    data = CIFAR10DataModule(source="synthetic", **settings)
    data.prepare_data()
    data.setup(stage)
    return data


ALONE = {"global_rank": 0, "world_size": 1}  # as a Trainer on one device has it


def counts(images: ImageSet) -> list[int]:
    return torch.bincount(images.labels, minlength=10).tolist()


def prints(images: ImageSet) -> set[bytes]:
    return {row.tobytes() for row in images.images[:, :, ::8, ::8].contiguous().numpy()}


def same(one: ImageSet, other: ImageSet) -> bool:
    return torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


def test_sizes_and_classes() -> None:
    data = build()
    data.setup("test")
    sets = (data.train, data.val, data.train_clean, data.test)
    assert [counts(images) for images in sets] == [[n] * 10 for n in (4_000, 1_000, 500, 1_000)]
    loaders = (data.train_dataloader(), *data.val_dataloader(), data.test_dataloader())
    assert [len(loader) for loader in loaders] == [400, 20, 10, 20]
    assert len(prints(data.train) | prints(data.val) | prints(data.test)) == 60_000


def test_the_seed_does_not_move_the_split() -> None:
    one, other = build(seed=1), build(seed=2)
    for name in ("train", "val", "train_clean"):
        assert same(getattr(one, name), getattr(other, name))
    first, second = (next(iter(data.train_dataloader())) for data in (one, other))
    assert not torch.equal(first.images, second.images)


def test_train_size() -> None:
    data, whole = build(train_size=123, train_clean_size=50), build()
    assert counts(data.train) == [13] * 3 + [12] * 7
    assert len(build(train_size=123).train_clean.labels) == 123
    assert same(data.val, whole.val)
    assert prints(data.train) < prints(whole.train)
    assert prints(data.train_clean) < prints(data.train) - prints(data.val)
    assert [len(loader) for loader in build(train_clean_size=0).val_dataloader()] == [20]


@pytest.mark.parametrize("val_size", [0, 1, 45_005, 49_990])
def test_every_size_leaves_something_to_train_on(val_size: int) -> None:
    data = build(val_size=val_size, train_size=50_000 - val_size, train_clean_size=50_000)
    assert (len(data.val.labels), len(data.train.labels)) == (val_size, 50_000 - val_size)
    assert same(data.train_clean, data.train)
    assert same(data.train, build(val_size=val_size).train)
    assert len(data.val_dataloader()) == (2 if val_size else 0)


def test_predict_reads_the_test_set_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "make", make := Mock(wraps=synthetic.make))
    build("predict")
    make.assert_called_once_with(train=False)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("batch_size", 0), ("eval_batch_size", 0), ("num_workers", -1), ("val_size", -1), ("val_size", 49_991)),
        *(("train_size", 9), ("train_size", 40_001), ("train_clean_size", -1), ("train_clean_size", 50_001)),
        *(("images", []), ("augment", "flip"), ("max_shift", -1), ("max_shift", 32), ("resolutions", [24, 15])),
        ("resolutions", [33]),
    ],
)
def test_impossible_values(field: str, value: Any) -> None:
    with pytest.raises(InputError, match=re.escape(f"{field}: {value!r} is not possible; use ")):
        CIFAR10DataModule(**{field: value})


@pytest.mark.parametrize(
    ("augment", "training", "augmented"),
    [
        *(("flip-shift", True, True), ("flip-shift", False, False), ("flip-shift", None, False), ("none", True, False)),
        *(("alternating-flip", True, True), ("alternating-flip", False, False)),
    ],
)
def test_only_training_augments(
    monkeypatch: pytest.MonkeyPatch, augment: str, training: bool | None, augmented: bool
) -> None:
    data = build(augment=augment)
    batch = next(iter(data.train_dataloader()))
    monkeypatch.setattr(
        data, "trainer", None if training is None else SimpleNamespace(training=training, current_epoch=0)
    )
    images, *others = data.on_after_batch_transfer(batch, 0)
    assert torch.equal(images, normalize(batch.images)) != augmented
    assert others == [*batch[1:]]


def test_only_training_images_grow_from_epoch_to_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    data = build(resolutions=[16, 24])
    batch = next(iter(data.train_dataloader()))
    for training, epoch, side in ((True, 0, 16), (True, 1, 24), (True, 2, 32), (False, 0, 32)):
        monkeypatch.setattr(data, "trainer", SimpleNamespace(training=training, current_epoch=epoch))
        assert data.on_after_batch_transfer(batch, 0).images.shape == (100, 3, side, side)


@pytest.mark.parametrize(("accelerator", "pinned"), [(CPUAccelerator(), False), (CUDAAccelerator(), True)])
def test_only_cuda_pins_memory(monkeypatch: pytest.MonkeyPatch, accelerator: Any, pinned: bool) -> None:
    data = CIFAR10DataModule(source="synthetic")
    monkeypatch.setattr(data, "trainer", SimpleNamespace(accelerator=accelerator, **ALONE))
    data.setup("fit")
    assert [each.loader.pin_memory for each in (data.train_dataloader(), *data.val_dataloader())] == [pinned] * 3


class Fails(Callback):
    def on_train_batch_end(self, *args: Any) -> None:
        raise RuntimeError("in the middle of an epoch")


class Count(Callback):
    """The workers after each epoch."""

    def __init__(self) -> None:
        self.found: list[int] = []

    def on_train_epoch_end(self, *args: Any) -> None:
        self.found.append(len(active_children()))


@pytest.mark.parametrize("fails", [False, True])
def test_no_worker_outlives_the_training(fails: bool) -> None:
    data = build(train_size=400, val_size=10, train_clean_size=10, num_workers=1)
    loader, _ = data.val_dataloader()
    with pytest.raises(RuntimeError, match="in the middle") if fails else nullcontext():
        trainer(1, *([Fails()] if fails else [])).fit(MLP(width=4), data)
    assert active_children() == []
    trainer(3, count := Count(), reload_dataloaders_every_n_epochs=1).fit(MLP(width=4), data)
    assert (count.found, active_children()) == ([3] * 3, [])
    assert [len(batch.labels) for batch in loader] == [10]  # a person's own
    del loader
    data.teardown("fit")


def test_overfitting_sees_the_first_images_in_one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    data = CIFAR10DataModule(source="synthetic", batch_size=30, train_size=200)
    monkeypatch.setattr(data, "trainer", SimpleNamespace(accelerator=CPUAccelerator(), overfit_batches=2, **ALONE))
    data.setup("fit")
    loader, seen = data.train_dataloader(), []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        seen.append([batch.labels.tolist() for batch in loader][:2])
    assert seen[0] == seen[1] == [data.train.labels[:30].tolist(), data.train.labels[30:60].tolist()]
    assert len(data.train_clean.labels) == 60  # what is measured again is what was learnt
    assert prints(data.train_clean) == prints(data.train.take(torch.arange(60)))


def test_where_the_data_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CIFAR10_ROOT", raising=False)
    assert data_root(None) == data_root("") == Path("data")
    monkeypatch.setenv("CIFAR10_ROOT", str(tmp_path))
    assert data_root(None) == CIFAR10DataModule().root == tmp_path
    assert data_root("elsewhere") == CIFAR10DataModule(root="elsewhere").root == Path("elsewhere")
    assert data_root("~/x") == Path.home() / "x"


def test_auto_without_network_is_the_stand_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reason = f"no CIFAR-10 in {tmp_path} (tried 127.0.0.1:9: no connection)"
    data = CIFAR10DataModule(source="auto", root=str(tmp_path), mirrors=NOWHERE)
    data.prepare_data()
    assert capsys.readouterr().err.endswith(f"\n{reason}: using the synthetic stand-in instead of CIFAR-10\n")
    data.setup("predict")
    assert (data.source, data.classes) == ("synthetic", synthetic.CLASSES)
    assert "not CIFAR-10" in data.description
    with pytest.raises(InputError) as caught:
        CIFAR10DataModule(root=str(tmp_path), mirrors=NOWHERE).prepare_data()
    assert (caught.value.field, caught.value.cause) == ("data.root", reason)


def test_a_named_source_is_not_looked_for(tmp_path: Path) -> None:
    for source in get_args(Source):
        if source != "auto":
            assert resolve_source(source, tmp_path / "none", NOWHERE) == source
    CIFAR10DataModule(source="synthetic", root=str(tmp_path / "none")).prepare_data()
    assert not (tmp_path / "none").exists()
    assert CIFAR10DataModule(source="cifar10").classes == cifar10.CLASSES


def test_a_place_in_an_epoch_is_for_the_next_trainer_alone() -> None:
    data = CIFAR10DataModule(source="synthetic", train_size=500)
    data.setup("fit")
    data.load_state_dict({"epoch": 0, "batches": 3})
    assert [len(list(data.train_dataloader())) for _ in range(2)] == [2, 5]
