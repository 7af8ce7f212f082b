"""Small trained runs of each architecture."""

from pathlib import Path

import pytest

from tests.conftest import SMALL, Fit, Once, run_folder
from tests.test_reproducibility import RECIPES

MODELS = {
    "mlp": "--model=MLP --model.width=32",
    "cnn": "--model=CNN --model.channels=[4,8] --trainer.precision=bf16-mixed",
    "whitened_cnn": f"{RECIPES['whitened_cnn']} --model.views=6",  # with averaged weights
}


@pytest.fixture(scope="session")
def runs(fit: Fit, once: Once) -> dict[str, Path]:
    """A run of each architecture. To read, not to write to."""

    def train(logs: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("CIFAR10_ROOT", raising=False)
            for name, flags in MODELS.items():
                fit(logs / name, [*flags.split(), *SMALL, f"--name={name}", "--trainer.max_epochs=1"])

    logs = once("export", train)
    return {name: run_folder(logs / name) for name in MODELS}
