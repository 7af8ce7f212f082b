import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from cifar_lightning.data import cifar10
from cifar_lightning.errors import InputError

PER_BATCH = 20


def batch(first: int) -> bytes:
    """A batch in the official form: every value of image i is i, its label the last digit of i."""
    rows = np.arange(first, first + PER_BATCH, dtype=np.uint8)
    return pickle.dumps({"data": np.repeat(rows[:, None], 3072, axis=1), "labels": [int(row) % 10 for row in rows]})


@pytest.fixture
def fake_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny set that passes for the official one."""
    files = {name: batch(PER_BATCH * i) for i, name in enumerate((*cifar10.TRAIN, *cifar10.TEST))}
    monkeypatch.setattr(cifar10, "CHECKSUMS", {n: hashlib.md5(c).hexdigest() for n, c in files.items()})
    (tmp_path / cifar10.FOLDER).mkdir()
    for name, content in files.items():
        (tmp_path / cifar10.FOLDER / name).write_bytes(content)
    return tmp_path


def test_the_table_names_the_seven_official_files() -> None:
    assert set(cifar10.CHECKSUMS) == {*cifar10.TRAIN, *cifar10.TEST, "batches.meta"}


def test_order_shape_and_type(fake_root: Path) -> None:
    assert cifar10.faults(fake_root) == {}
    for train, numbers in ((True, torch.arange(100)), (False, torch.arange(100, 120))):
        images, labels = cifar10.load(fake_root, train=train)
        assert images.dtype == torch.uint8
        assert images.shape == (len(numbers), 3, 32, 32)
        assert torch.equal(images, numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 32, 32))
        assert labels.dtype == torch.int64
        assert torch.equal(labels, numbers % 10)


def test_a_missing_file_is_named(fake_root: Path) -> None:
    (fake_root / cifar10.FOLDER / "test_batch").unlink()
    assert cifar10.faults(fake_root) == {"test_batch": "test_batch is missing"}
    assert len(cifar10.load(fake_root, train=True).labels) == 100
    with pytest.raises(InputError, match=r"^data\.root: test_batch is missing in .*; put cifar-10-python"):
        cifar10.load(fake_root, train=False)


def test_a_named_pipe_does_not_block(fake_root: Path) -> None:
    path = fake_root / cifar10.FOLDER / "test_batch"
    path.unlink()
    os.mkfifo(path)
    assert cifar10.faults(fake_root) == {"test_batch": "test_batch is missing"}


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_what_is_damaged_is_never_unpickled(fake_root: Path) -> None:
    sprung = fake_root / "sprung"
    (fake_root / cifar10.FOLDER / "data_batch_2").write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(InputError, match="data_batch_2 is damaged"):
        cifar10.load(fake_root, train=True)
    assert not sprung.exists()


@pytest.mark.cifar10
@pytest.mark.parametrize(
    ("train", "per_class", "first"),
    [(True, 5000, [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]), (False, 1000, [3, 8, 8, 0, 6, 6, 1, 6, 3, 1])],
)
def test_the_real_set(cifar10_root: Path, train: bool, per_class: int, first: list[int]) -> None:
    images, labels = cifar10.load(cifar10_root, train=train)
    assert images.dtype == torch.uint8
    assert images.shape == (10 * per_class, 3, 32, 32)
    assert labels.bincount().tolist() == [per_class] * 10
    assert labels[:10].tolist() == first


@pytest.mark.cifar10
def test_the_real_set_agrees_with_torchvision(cifar10_root: Path) -> None:
    from torchvision.datasets import CIFAR10

    theirs = CIFAR10(cifar10_root, train=False)
    images, labels = cifar10.load(cifar10_root, train=False)
    assert torch.equal(images, torch.from_numpy(theirs.data).permute(0, 3, 1, 2))
    assert labels.tolist() == theirs.targets
    assert tuple(theirs.classes) == cifar10.CLASSES
