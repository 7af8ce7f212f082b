import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from cifar_lightning.data import cifar10
from cifar_lightning.errors import InputError


def batch(first: int) -> bytes:
    """20 images in the official form: every value of image i is i, its label the last digit of i."""
    rows = np.arange(first, first + 20, dtype=np.uint8)
    return pickle.dumps({"data": np.repeat(rows[:, None], 3072, axis=1), "labels": [int(row) % 10 for row in rows]})


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny set that passes for the official one."""
    files = {name: batch(20 * i) for i, name in enumerate((*cifar10.TRAIN, *cifar10.TEST))}
    monkeypatch.setattr(cifar10, "CHECKSUMS", {name: hashlib.md5(files[name]).hexdigest() for name in files})
    (tmp_path / cifar10.FOLDER).mkdir()
    for name, content in files.items():
        (tmp_path / cifar10.FOLDER / name).write_bytes(content)
    return tmp_path


def test_the_table_names_the_seven_official_files() -> None:
    assert set(cifar10.CHECKSUMS) == {*cifar10.TRAIN, *cifar10.TEST, "batches.meta"}


def test_order_shape_and_type(root: Path) -> None:
    assert cifar10.faults(root) == {}
    for train, numbers in ((True, torch.arange(100)), (False, torch.arange(100, 120))):
        images, labels = cifar10.load(root, train=train)
        assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
        assert images.shape == (len(numbers), 3, 32, 32)
        assert torch.equal(images, numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 32, 32))
        assert torch.equal(labels, numbers % 10)


@pytest.mark.parametrize("pipe", [False, True])  # one must not block
def test_a_missing_file_is_named(root: Path, pipe: bool) -> None:
    path = root / cifar10.FOLDER / "test_batch"
    path.unlink()
    if pipe:
        os.mkfifo(path)
    assert cifar10.faults(root) == {"test_batch": "test_batch is missing"}
    assert len(cifar10.load(root, train=True).labels) == 100
    with pytest.raises(InputError, match=r"^data\.root: test_batch is missing in .*; put cifar-10-python"):
        cifar10.load(root, train=False)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_damaged_files_are_never_unpickled(root: Path) -> None:
    sprung = root / "sprung"
    (root / cifar10.FOLDER / "data_batch_2").write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(InputError, match="data_batch_2 is damaged"):
        cifar10.load(root, train=True)
    assert not sprung.exists()


@pytest.mark.cifar10
@pytest.mark.parametrize(("train", "per_class"), [(True, 5000), (False, 1000)])
def test_the_real_set_is_that_of_torchvision(cifar10_root: Path, train: bool, per_class: int) -> None:
    theirs = CIFAR10(cifar10_root, train=train)
    images, labels = cifar10.load(cifar10_root, train=train)
    assert torch.equal(images, torch.from_numpy(theirs.data).permute(0, 3, 1, 2))
    assert labels.tolist() == theirs.targets
    assert labels.bincount().tolist() == [per_class] * 10
    assert tuple(theirs.classes) == cifar10.CLASSES
