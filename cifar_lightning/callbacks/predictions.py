"""What `predict` leaves: predictions.csv."""

import csv
import io
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from cifar_lightning.callbacks.console import say
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.runs.layout import RunFolder
from cifar_lightning.utils import files

TOP = 3
SHOWN = 10


class PredictionsFile(Callback):
    """Writes a row a picture: file, class, its probability, and the three likeliest classes with theirs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts empty."""
        self.rows: list[list[str]] = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collects a batch's likeliest classes."""
        data = CIFAR10DataModule.of(trainer)
        # Stable, so that of classes that are equally likely (in bfloat16 some are) the first is taken, as `test` does.
        probabilities, labels = (ranked[:, :TOP] for ranked in outputs.cpu().sort(descending=True, stable=True))
        for p, top in zip(probabilities.tolist(), labels.tolist(), strict=True):
            pairs = [word for x, label in zip(p, top, strict=True) for word in (data.classes[label], f"{x:.6f}")]
            self.rows.append([data.predict_names[len(self.rows)], pairs[0], pairs[1], *pairs])

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the file and shows the first rows."""
        if CIFAR10DataModule.of(trainer).source == "synthetic":
            say(f"classes of {CIFAR10DataModule.of(trainer).description}")
        for row in self.rows[:SHOWN]:
            say(f"  {row[0]}: {row[1]} ({float(row[2]):.1%})")
        if len(self.rows) > SHOWN:
            say(f"  and {len(self.rows) - SHOWN:,} more")
        path = RunFolder(self.folder).predictions
        header = ["file", "class", "probability"]
        header += [f"top{rank}_{what}" for rank in range(1, TOP + 1) for what in ("class", "probability")]
        text = io.StringIO()
        csv.writer(text).writerows([header, *self.rows])
        files.replace(path, text.getvalue().encode())
        say(f"written to {path}")
