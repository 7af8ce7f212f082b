"""Small trained runs of each architecture, and fewer test images than there are."""

from pathlib import Path

import pytest

from cifar_lightning.data import ImageSet, synthetic
from tests.conftest import SMALL, Fit
from tests.test_reproducibility import RECIPES

MODELS = {
    "mlp": "--model=MLP --model.width=32",
    "cnn": "--model=CNN --model.channels=[4,8] --trainer.precision=bf16-mixed",
    "whitened_cnn": f"{RECIPES['whitened_cnn']} --model.views=6",  # with averaged weights
}
IMAGES = 100


@pytest.fixture(scope="session")
def runs(fit: Fit, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each architecture. To read, not to write to."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CIFAR10_ROOT", raising=False)
        for name, flags in MODELS.items():
            logs = tmp_path_factory.mktemp(name)
            found[name] = fit(logs, [*flags.split(), *SMALL, f"--name={name}", "--trainer.max_epochs=1"])
    return found


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    make = synthetic.make

    def fewer(*, train: bool) -> ImageSet:
        images = make(train=train)
        return images if train else ImageSet(images.images[:IMAGES], images.labels[:IMAGES])

    monkeypatch.setattr(synthetic, "make", fewer)
