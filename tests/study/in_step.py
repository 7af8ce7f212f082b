"""A callback that keeps two runs of a study under test together."""

import time
from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch import Callback

from cifar_lightning.runs import metrics_csv
from cifar_lightning.runs.layout import RunFolder

EPOCHS_TOGETHER = 2
PATIENCE_SECONDS = 240


def epochs_of_both(output: Path) -> int:
    """How many epochs each of the first two runs has; 0 before both have begun."""
    runs = [*output.glob("mlp/*/version_0")]
    return min(len(metrics_csv.read(RunFolder(run).metrics)) for run in runs) if len(runs) == 2 else 0


class InStep(Callback):
    """Have neither of the two runs begin its third epoch before both have made two, however late one was started."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the other run."""
        gives_up = time.monotonic() + PATIENCE_SECONDS
        while trainer.current_epoch == EPOCHS_TOGETHER and epochs_of_both(Path("out")) < EPOCHS_TOGETHER:
            assert time.monotonic() < gives_up
            time.sleep(0.01)
