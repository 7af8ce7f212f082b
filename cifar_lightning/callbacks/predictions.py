"""Results of `predict`: predictions.csv."""

import csv
import io
from itertools import chain
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from tqdm import tqdm

from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.runs.layout import RunFolder
from cifar_lightning.utils import files

TOP = 3
SHOWN = 10


class PredictionsFile(Callback):
    """Write a row per image: file, class, its probability, and the three likeliest classes with theirs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[list[str]] = []

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Tensor, *_: Any) -> None:
        """Collect a batch's likeliest classes; outputs are probabilities, shape (B, 10)."""
        data = CIFAR10DataModule.of(trainer)
        # Stable, so that of classes that are equally likely (in bfloat16 some are) the first is taken, as `test` does.
        probabilities, labels = outputs.cpu().sort(descending=True, stable=True)
        for row in zip(labels[:, :TOP].tolist(), probabilities[:, :TOP].tolist(), strict=True):
            pairs = [(data.classes[label], f"{probability:.6f}") for label, probability in zip(*row, strict=True)]
            self.rows.append([data.predict_names[len(self.rows)], *pairs[0], *chain(*pairs)])

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file and print its first rows."""
        data, path, text = CIFAR10DataModule.of(trainer), RunFolder(self.folder).predictions, io.StringIO()
        if data.source == "synthetic":
            tqdm.write(f"classes of {data.description}")
        for file, label, probability, *_ in self.rows[:SHOWN]:
            tqdm.write(f"  {file}: {label} ({float(probability):.1%})")
        if len(self.rows) > SHOWN:
            tqdm.write(f"  and {len(self.rows) - SHOWN:,} more")
        top = [f"top{rank}_{column}" for rank in range(1, TOP + 1) for column in ("class", "probability")]
        csv.writer(text).writerows([["file", "class", "probability", *top], *self.rows])
        files.replace(path, text.getvalue().encode())
        tqdm.write(f"written to {path}")
