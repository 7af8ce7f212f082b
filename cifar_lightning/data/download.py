"""Puts the official CIFAR-10 files into a folder, from an archive lying there or else from a mirror."""

import contextlib
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pooch
import requests
from tqdm import tqdm

from cifar_lightning.data import cifar10
from cifar_lightning.errors import InputError
from cifar_lightning.utils import files

ARCHIVE_MD5, ARCHIVE_BYTES = "c58f30108f718f92721af3b95e74349a", 170_498_071
SCRATCH = ".cifar-10-"
TIMEOUT = (5, 30)  # seconds: to connect, and between two pieces of the answer


def ensure(root: Path, mirrors: Sequence[str]) -> None:
    """Makes `root/cifar-10-batches-py` whole; if it is already, neither disk nor network is touched.

    Only official files that are damaged or missing are ever written, and each appears under its name only once it is
    verified. Of several processes that do this at once, one downloads and the others wait for it; one that is killed
    keeps nobody waiting, and what it had so far (a folder `.cifar-10-*`) the next one removes.

    Args:
        root: The folder to hold it; created if need be. An archive `cifar-10-python.tar.gz` in it is used and kept.
        mirrors: Addresses of the official archive, tried in order.

    Raises:
        InputError: No source gave the official files, or `root` can't be written.
    """
    if not cifar10.faults(root):
        return
    new = not root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
        failures = _obtain_alone(root, mirrors)
        if new:
            with contextlib.suppress(OSError):  # it is not empty, as it should be
                root.rmdir()
    except OSError as error:
        cause = f"{root} can't be written ({error.strerror})"
        raise InputError("data.root", cause, "name another folder with --data.root or CIFAR10_ROOT") from None
    if faults := cifar10.faults(root):
        there = ", ".join(faults.values()) if (root / cifar10.FOLDER).exists() else "no CIFAR-10"
        raise InputError("data.root", f"{there} in {root} (tried {', '.join(failures) or 'no mirror'})", cifar10.REMEDY)


def _obtain_alone(root: Path, mirrors: Sequence[str]) -> list[str]:
    """Obtains the files while no other process does, unless one has meanwhile; returns what failed."""
    with files.locked(root, waiting=f"waiting for another process that fills {root}"):
        if not cifar10.faults(root):
            return []
        for left in root.glob(f"{SCRATCH}*"):  # by a process that was killed: a living one would have the lock
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=root) as scratch:
            return _obtain(root, Path(scratch), mirrors)


def _obtain(root: Path, scratch: Path, mirrors: Sequence[str]) -> list[str]:
    """Tries each source until one works; returns those that did not, each with the reason."""
    failures: list[str] = []
    own = root / cifar10.ARCHIVE
    if own.is_file():
        try:
            _install(own, root, scratch)
            return failures
        except (OSError, ValueError) as error:
            failures.append(f"{own.name}: {_reason(error)}")
            print(f"not using {own}: {_reason(error)}", file=sys.stderr)
    for url in mirrors:
        host = urlsplit(url).netloc or url
        print(f"downloading CIFAR-10 (170 MB) from {host}", file=sys.stderr)
        try:
            _install(_download(url, scratch), root, scratch)
            return failures
        except (requests.RequestException, ValueError) as error:  # any other OSError is the disk's, not the mirror's
            failures.append(f"{host}: {_reason(error)}")
    return failures


def _download(url: str, scratch: Path) -> Path:
    """Fetches the archive; raises RequestException, or ValueError if its MD5 is wrong."""
    pooch.get_logger().setLevel("WARNING")  # `_obtain` says what is going on
    # disable=None: a bar only on a terminal
    with tqdm(total=ARCHIVE_BYTES, unit="B", unit_scale=True, leave=False, disable=None) as bar:
        fetch = pooch.HTTPDownloader(bar, chunk_size=2**20, timeout=TIMEOUT, hooks={"response": _stay_on_https})
        return Path(pooch.retrieve(url, f"md5:{ARCHIVE_MD5}", cifar10.ARCHIVE, scratch, downloader=fetch))


def _stay_on_https(response: requests.Response, *_: object, **__: object) -> None:
    """Raises InvalidSchema if an https address redirects to one that is not."""
    target = urljoin(response.url, response.headers.get("location", ""))
    if response.is_redirect and response.url.startswith("https:") and not target.startswith("https:"):
        raise requests.exceptions.InvalidSchema(target)


def _reason(error: Exception) -> str:
    """Why a source failed, in two or three words."""
    match error:
        case requests.HTTPError(response=requests.Response() as response):
            return f"HTTP {response.status_code}"
        case requests.exceptions.MissingSchema():
            return "not an address"
        case requests.exceptions.InvalidSchema():
            return "redirects away from https"
        case requests.exceptions.SSLError():
            return "bad certificate"
        case requests.exceptions.ChunkedEncodingError():
            return "cut off"
        case requests.ConnectionError():  # a time-out in mid-answer is one of these too, told only by its words
            return "timed out" if "timed out" in str(error) else "no connection"
        case requests.ReadTimeout():
            return "timed out"
        case requests.RequestException():
            return type(error).__name__
        case OSError():
            return error.strerror or "can't be read"
        case _:
            return "wrong MD5"


def _install(archive: Path, root: Path, scratch: Path) -> None:
    """Unpacks the official files and moves them to their place; raises ValueError if the archive is not official."""
    if pooch.file_hash(archive, alg="md5") != ARCHIVE_MD5:
        raise ValueError(archive)
    staged, final = scratch / cifar10.FOLDER, root / cifar10.FOLDER
    staged.mkdir(exist_ok=True)
    _unpack(archive, staged)
    if faults := cifar10.faults(scratch):
        raise ValueError(faults)
    try:
        staged.rename(final)
    except OSError:  # a folder is there already: a damaged one, or another process was faster
        for name in cifar10.faults(root):
            (staged / name).replace(final / name)


def _unpack(archive: Path, folder: Path) -> None:
    """Copies the official files out of the archive; links, odd paths and everything else in it are passed over."""
    wanted = {f"{cifar10.FOLDER}/{name}": folder / name for name in cifar10.checksums()}
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name in wanted and member.isreg() and (content := tar.extractfile(member)):
                with wanted[member.name].open("wb") as file:
                    shutil.copyfileobj(content, file)
