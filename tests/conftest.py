"""Fixtures that all tests share: a quiet process, stand-in images made once, and one small trained run."""

import csv
import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from cifar_lightning.__main__ import main
from cifar_lightning.cli.quiet import be_quiet
from cifar_lightning.data import ImageSet, synthetic

CONFIGS = Path(__file__).parent.parent / "configs"

# A small run: a few seconds on one core.
SMALL = ["--data.source=synthetic", "--data.train_size=2000", "--data.val_size=1000", "--data.train_clean_size=500"]
TINY = ["--model=MLP", "--model.width=8", *SMALL, "--trainer.max_epochs=2"]

IMAGES = 100  # of the test set, with the fixture `few_images`

# The networks here are too small to gain from more, and two threads wait for each other on a busy machine; the variable
# is for the processes that tests start.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=4, help="random moments at which a run of each model is killed")
    parser.addoption("--kill-seed", dest="kill_seed", type=int, default=1, help="chooses those moments")


def pytest_report_header(config: pytest.Config) -> str:
    return f"random moments to kill at: --kills {config.getoption('kills')} --kill-seed {config.getoption('kill_seed')}"


@pytest.fixture(autouse=True)
def _quiet() -> None:
    be_quiet()


@pytest.fixture(scope="session", autouse=True)
def _images_made_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "make", functools.cache(synthetic.make))
        yield


def ray_alone() -> FileLock:
    """Have no other test start Ray at the same time: two clusters of one machine mix up."""
    return FileLock(Path(tempfile.gettempdir(), "cifar_lightning_ray.lock"))


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, empty, with no real data in reach."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CIFAR10_ROOT", raising=False)
    return tmp_path


def fewer_test_images(count: int, patch: pytest.MonkeyPatch) -> None:
    make = synthetic.make

    def fewer(*, train: bool) -> ImageSet:
        images = make(train=train)
        return images if train else ImageSet(images.images[:count], images.labels[:count])

    patch.setattr(synthetic, "make", fewer)


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test images, a hundred of ten thousand."""
    fewer_test_images(IMAGES, monkeypatch)


def run_folder(logs: Path) -> Path:
    """The one run below a folder of runs."""
    (folder,) = logs.glob("*/version_*")
    return folder


def curves(run: Path) -> list[str]:
    """The lines of a run's metrics.csv without the seconds."""
    return [line.rpartition(",")[0] for line in (run / "metrics.csv").read_text().splitlines()]


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table such as metrics.csv or predictions.csv."""
    return list(csv.DictReader(path.read_text().splitlines()))


Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Makes a folder for all processes of the tests: the first that asks for it fills it, others wait. To read only."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder, done = shared / name, shared / f"{name}.done"
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # what another failed to make
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return make


Fit = Callable[[Path, Sequence[str]], Path]


@pytest.fixture(scope="session")
def fit() -> Fit:
    """Trains by the command line into a folder of runs and returns the run's folder."""

    def train(logs: Path, args: Sequence[str]) -> Path:
        assert main(["fit", f"--logs={logs}", *args]) == 0
        return run_folder(logs)

    return train


@pytest.fixture(scope="session")
def mlp_run(fit: Fit, once: Once) -> Path:
    """An MLP after three epochs on 2,000 stand-in images. To read, not to write to."""

    def train(logs: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("CIFAR10_ROOT", raising=False)
            torch.manual_seed(0)
            fit(logs, [f"--config={CONFIGS / 'mlp.yaml'}", *SMALL, "--name=mlp", "--trainer.max_epochs=3"])

    return run_folder(once("mlp_run", train))


@pytest.fixture(scope="session")
def cifar10_root() -> Path:
    """The folder of the real data set."""
    root = os.environ.get("CIFAR10_ROOT")
    if not root:
        pytest.skip("CIFAR10_ROOT is not set: it names the folder of the real data set")
    return Path(root)
