from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.accelerators import CPUAccelerator, CUDAAccelerator
from PIL import Image

from cifar_lightning.data import cifar10, synthetic
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.data.image_set import ImageSet
from cifar_lightning.data.source import data_root, resolve_source
from cifar_lightning.data.transforms import normalize
from cifar_lightning.errors import InputError

NOWHERE = ("http://127.0.0.1:9/x.tar.gz",)  # nothing listens on port 9
# The nearest values that are not possible.
TOO_LOW = {"batch_size": 0, "eval_batch_size": 0, "num_workers": -1, "val_size": -1, "train_size": 9}
TOO_HIGH = {"val_size": 49_991, "train_size": 40_001, "train_clean_size": 50_001}


@pytest.fixture(autouse=True)
def read(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Which sets were read: True for the training set, False for the test set."""
    calls: list[bool] = []
    stock = synthetic.make  # made once in a session

    def make(*, train: bool) -> ImageSet:
        calls.append(train)
        return stock(train=train)

    monkeypatch.setattr(synthetic, "make", make)
    return calls


def build(stage: str = "fit", **settings: Any) -> CIFAR10DataModule:
    data = CIFAR10DataModule(source="synthetic", **settings)
    data.prepare_data()
    data.setup(stage)
    return data


def counts(images: ImageSet) -> list[int]:
    return torch.bincount(images.labels, minlength=10).tolist()


def prints(images: ImageSet) -> set[bytes]:
    return {row.tobytes() for row in images.images[:, :, ::8, ::8].contiguous().numpy()}


def same(one: ImageSet, other: ImageSet) -> bool:
    return torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


def test_sizes_and_classes() -> None:
    data = build()
    assert counts(data.train) == [4_000] * 10
    assert counts(data.val) == [1_000] * 10
    assert counts(data.train_clean) == [500] * 10
    assert (len(data.train_dataloader()), [len(x) for x in data.val_dataloader()]) == (400, [20, 10])
    data.setup("test")
    assert counts(data.test) == [1_000] * 10
    assert len(data.test_dataloader()) == 20
    assert len(prints(data.train) | prints(data.val) | prints(data.test)) == 60_000


def test_the_seed_does_not_move_the_split() -> None:
    one, other = build(seed=1), build(seed=2)
    assert same(one.val, other.val)
    assert same(one.train, other.train)
    assert same(one.train_clean, other.train_clean)
    first, second = (next(iter(data.train_dataloader())) for data in (one, other))
    assert not torch.equal(first.images, second.images)


def test_train_size() -> None:
    data, whole = build(train_size=123), build()
    assert counts(data.train) == [13] * 3 + [12] * 7
    assert len(data.train_clean.labels) == 123
    assert same(data.val, whole.val)
    assert prints(data.train) < prints(whole.train)


def test_train_clean_is_trained_on_and_not_validated_on() -> None:
    data = build(train_size=1_000, train_clean_size=500)
    assert len(prints(data.train_clean)) == 500
    assert prints(data.train_clean) < prints(data.train) - prints(data.val)


def test_validating_on_less() -> None:
    data = build(val_size=0)
    assert data.val_dataloader() == []
    assert len(data.train.labels) == 50_000
    assert [len(loader) for loader in build(train_clean_size=0).val_dataloader()] == [20]


@pytest.mark.parametrize("val_size", [1, 45_005, 49_990])
def test_every_size_leaves_something_to_train_on(val_size: int) -> None:
    data = build(val_size=val_size, train_clean_size=50_000)
    assert (len(data.val.labels), len(data.train.labels)) == (val_size, 50_000 - val_size)
    assert same(data.train_clean, data.train)
    assert len(build(val_size=val_size, train_size=50_000 - val_size).train.labels) == 50_000 - val_size


@pytest.mark.parametrize(("stage", "train"), {"fit": True, "validate": True, "test": False, "predict": False}.items())
def test_a_stage_reads_what_it_needs(read: list[bool], stage: str, train: bool) -> None:
    build(stage)
    assert read == [train]


@pytest.mark.parametrize(("field", "value"), [*TOO_LOW.items(), *TOO_HIGH.items(), ("train_clean_size", -1)])
def test_impossible_values(field: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"^{field}: {value} is not possible; use ") as caught:
        CIFAR10DataModule(**{field: value})
    assert caught.value.field == field


def test_only_training_augments(monkeypatch: pytest.MonkeyPatch) -> None:
    data, plain = build(augment="flip-shift"), build(augment="none")
    batch = next(iter(data.train_dataloader()))
    fit, other = SimpleNamespace(training=True), SimpleNamespace(training=False)
    cases = ((data, fit, True), (data, other, False), (data, None, False), (plain, fit, False))
    for module, trainer, augmented in cases:
        monkeypatch.setattr(module, "trainer", trainer)
        result = module.on_after_batch_transfer(batch, 0)
        assert torch.equal(result.images, normalize(batch.images)) != augmented
        assert torch.equal(result.labels, batch.labels)


def test_no_batch_holds_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    data = build(augment="flip-shift")
    data.setup("test")
    monkeypatch.setattr(data, "trainer", SimpleNamespace(training=True, accelerator=CPUAccelerator()))
    for loader in (data.train_dataloader(), *data.val_dataloader(), data.test_dataloader()):
        batch = next(iter(loader))
        moved = data.on_after_batch_transfer(batch, 0)
        assert (batch.images.dtype, batch.labels.dtype) == (torch.uint8, torch.int64)
        assert (moved.images.dtype, moved.labels.dtype) == (torch.float32, torch.int64)
        assert moved.images.shape == (len(batch.labels), 3, 32, 32)


def test_only_cuda_pins_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    data = build()
    for accelerator, pinned in ((CPUAccelerator(), False), (CUDAAccelerator(), True)):
        monkeypatch.setattr(data, "trainer", SimpleNamespace(accelerator=accelerator))
        assert [loader.pin_memory for loader in (data.train_dataloader(), *data.val_dataloader())] == [pinned] * 3


def test_where_the_data_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CIFAR10_ROOT", raising=False)
    assert data_root(None) == data_root("") == Path("data")
    monkeypatch.setenv("CIFAR10_ROOT", str(tmp_path))
    assert data_root(None) == CIFAR10DataModule().root == tmp_path
    assert data_root("elsewhere") == CIFAR10DataModule(root="elsewhere").root == Path("elsewhere")
    assert data_root("~/x") == Path.home() / "x"


def test_no_data_and_no_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reason = f"no CIFAR-10 in {tmp_path} (tried 127.0.0.1:9: no connection)"
    assert resolve_source("auto", tmp_path, NOWHERE) == "synthetic"
    assert capsys.readouterr().err.endswith(f"\n{reason}: using the synthetic stand-in instead of CIFAR-10\n")
    with pytest.raises(InputError) as caught:
        CIFAR10DataModule(root=str(tmp_path), mirrors=NOWHERE).prepare_data()
    assert (caught.value.field, caught.value.cause) == ("data.root", reason)
    for source in ("synthetic", "cifar10"):  # nothing is looked for
        assert resolve_source(source, tmp_path / "none", NOWHERE) == source
    CIFAR10DataModule(source="synthetic", root=str(tmp_path / "none")).prepare_data()
    assert not (tmp_path / "none").exists()
    data = CIFAR10DataModule(source="auto", root=str(tmp_path), mirrors=NOWHERE)
    data.prepare_data()
    data.setup("predict")
    assert (data.source, data.classes) == ("synthetic", synthetic.CLASSES)
    assert "not CIFAR-10" in data.description
    assert CIFAR10DataModule(source="cifar10").classes == cifar10.CLASSES


def test_user_images(tmp_path: Path) -> None:
    for name, colour in (("b.png", (255, 0, 0)), ("a.png", (0, 255, 0))):
        Image.new("RGB", (40, 60), colour).save(tmp_path / name)
    (tmp_path / "c.png").write_bytes(b"broken")
    data = build("predict", images=[str(tmp_path), str(tmp_path / "a.png")])
    assert data.predict_names == [str(tmp_path / name) for name in ("a.png", "b.png", "a.png")]
    (batch,) = data.predict_dataloader()
    assert batch.images.shape == (3, 3, 32, 32)
    assert batch.images[:, :, 5, 5].tolist() == [[0, 255, 0], [255, 0, 0], [0, 255, 0]]
    assert [error.field for error in data.refused] == [str(tmp_path / "c.png")]


@pytest.mark.parametrize("broken", [True, False])
def test_no_image_at_all(tmp_path: Path, broken: bool) -> None:
    (tmp_path / "c.png").write_bytes(b"broken")
    with pytest.raises(InputError) as caught:
        build("predict", images=[str(tmp_path / "c.png")] if broken else [])
    assert caught.value.field == (str(tmp_path / "c.png") if broken else "images")


def test_without_user_images_the_test_set_is_predicted() -> None:
    data = build("predict")
    assert data.predict_names[:2] + data.predict_names[-1:] == ["test/0000", "test/0001", "test/9999"]
    images = torch.cat([batch.images for batch in data.predict_dataloader()])
    assert torch.equal(images, synthetic.make(train=False).images)
