"""Results of `validate`, `test` and `predict`: on the console, in test.json, in predictions.csv, in TensorBoard."""

import csv
import io
import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure  # torchmetrics imports matplotlib anyway, so this costs no time
from torch import Tensor
from tqdm import tqdm

from cifar_lightning.callbacks.tensorboard_extras import run_logger
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.models import ImageClassifier
from cifar_lightning.runs.layout import RunFolder
from cifar_lightning.utils import files
from cifar_lightning.utils.processes import gather_rows

TOP = 3
PREDICTIONS_PRINTED = 10


class EvaluationResults(Callback):
    """Print the results, and write those of `test` and `predict` to the folder of a run, of its checkpoint of an epoch.

    test.json: `loss` in nats; `acc`, `per_class_acc` as fractions, null for a class without images; `confusion_matrix`:
    counts, row = true class, column = predicted class, in the order of `classes`; number and source of the `images`.
    predictions.csv: a row per image with its class, the probability, and the three likeliest classes with theirs; with
    `probabilities` those of all classes follow. `output` is another file for it.
    """

    def __init__(self, folder: Path, epoch: int, *, output: str | None = None, probabilities: bool = False) -> None:
        self.run, self.epoch, self.probabilities = RunFolder(folder), epoch, probabilities
        self.output = self.run.predictions if output is None else Path(output)
        self.predictions: list[list[str]] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        tqdm.write(f"validation set: {CIFAR10DataModule.of(trainer).description}")
        metrics = {name: value.item() for name, value in sorted(trainer.callback_metrics.items())}
        for name, value in metrics.items():
            tqdm.write(f"  {name:18} {value:.6f}")  # every digit that is exact
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=self.epoch)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, ImageClassifier)
        data, counts = CIFAR10DataModule.of(trainer), pl_module.confusion_counts.tolist()
        images, hits = sum(map(sum, counts)), [row[i] for i, row in enumerate(counts)]
        accs = [hit / sum(row) if any(row) else None for hit, row in zip(hits, counts, strict=True)]
        path = trainer.ckpt_path or getattr(pl_module, "path", None)  # an exported file
        results = {
            "loss": (loss := trainer.callback_metrics["test/loss"].item()),
            "acc": (acc := sum(hits) / images),
            "per_class_acc": dict(zip(data.classes, accs, strict=True)),
            "confusion_matrix": counts,
            "classes": list(data.classes),
            "images": images,
            "source": data.source,
            "checkpoint": str(path) if path else None,
        }
        written = _written_to(self.run.test)
        try:
            files.replace(self.run.test, f"{json.dumps(results, indent=1)}\n".encode())
            if logger := run_logger(trainer):
                figure = confusion_figure(counts, data.classes)
                logger.experiment.add_figure("test/confusion_matrix", figure, self.epoch)
            for each in trainer.loggers:
                each.log_metrics({"test/loss": loss, "test/acc": acc}, step=self.epoch)
        finally:  # even where it can't be written, for it took a while
            width, header = max(map(len, data.classes)), " ".join(f"{name[:5]:>5}" for name in data.classes)
            tqdm.write(f"test set: {data.description}\n  loss {loss:.4f}  accuracy {acc:.4f}  ({images:,} images)\n")
            tqdm.write(f"  {'true class':{width}}  {'acc':>6}  {header}  <- predicted")
            for name, acc_of_class, row in zip(data.classes, accs, counts, strict=True):
                shown = "-" if acc_of_class is None else f"{acc_of_class:.4f}"
                tqdm.write(f"  {name:{width}}  {shown:>6}  {' '.join(f'{count:5d}' for count in row)}")
        tqdm.write(written)

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Tensor, *_: Any) -> None:
        """Collect a batch's likeliest classes; outputs are probabilities, shape (B, 10)."""
        data = CIFAR10DataModule.of(trainer)
        # Stable, so that of classes that are equally likely (in bfloat16 some are) the first is taken, as `test` does.
        probabilities = gather_rows(trainer, outputs).cpu()
        ranks = probabilities.sort(descending=True, stable=True).indices[:, :TOP]
        for row, labels in zip(probabilities.tolist(), ranks.tolist(), strict=True):
            every = [f"{probability:.6f}" for probability in row]
            pairs = [(data.classes[label], every[label]) for label in labels]
            name = data.predict_names[len(self.predictions)]
            self.predictions.append([name, *pairs[0], *chain(*pairs), *every * self.probabilities])

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        data, text = CIFAR10DataModule.of(trainer), io.StringIO()
        if data.source == "synthetic":
            tqdm.write(f"classes of {data.description}")
        for file, label, probability, *_ in self.predictions[:PREDICTIONS_PRINTED]:
            tqdm.write(f"  {file}: {label} ({float(probability):.1%})")
        if (more := len(self.predictions) - PREDICTIONS_PRINTED) > 0:
            tqdm.write(f"  and {more:,} more")
        top = [f"top{rank}_{column}" for rank in range(1, TOP + 1) for column in ("class", "probability")]
        header = ["file", "class", "probability", *top, *data.classes * self.probabilities]
        csv.writer(text).writerows([header, *self.predictions])
        written = _written_to(self.output)
        files.replace(self.output, text.getvalue().encode())
        tqdm.write(written)


def _written_to(path: Path) -> str:
    """Return what to print once a file is written: whether it replaces another."""
    return f"written to {path}{', in place of the former one' if path.exists() else ''}"


def confusion_figure(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """Return the counts as a grid, shaded by the fraction of the row, which is the true class."""
    # Not torchmetrics' plot: it hands matplotlib a tensor, which NumPy 2 warns of.
    figure, fractions = Figure(figsize=(8, 7), layout="constrained"), counts / np.sum(counts, 1, keepdims=True).clip(1)
    axes = figure.subplots()
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    for (i, j), count in np.ndenumerate(np.array(counts)):
        color = "white" if fractions[i, j] > 0.5 else "black"
        axes.text(j, i, str(count), ha="center", va="center", fontsize=8, color=color)
    return figure
