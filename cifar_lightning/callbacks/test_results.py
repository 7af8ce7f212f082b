"""Results of `test`: a table to read, test.json, and the confusion matrix as an image."""

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure  # torchmetrics imports matplotlib anyway, so this costs no time
from torch import Tensor
from tqdm import tqdm

from cifar_lightning.callbacks.tensorboard import writer_of
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.models import ImageClassifier
from cifar_lightning.runs.layout import RunFolder
from cifar_lightning.utils import files


class TestResults(Callback):
    """Print the test metrics and write them beside the run.

    `test.json` holds `loss` (mean cross-entropy in nats), `acc` (fraction), `per_class_acc` (name to fraction),
    `confusion_matrix` (counts: row = true class, column = predicted class, in the order of `classes`), `classes`,
    `images` (how many), `source` of the images and the `checkpoint`.
    """

    __test__ = False  # by its name pytest would take it for a test

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write test.json and the image; print the table even where they can't be written, for it took a while."""
        assert isinstance(pl_module, ImageClassifier)
        data, results, path = CIFAR10DataModule.of(trainer), _results(trainer, pl_module), RunFolder(self.folder).test
        try:
            files.replace(path, f"{json.dumps(results, indent=1)}\n".encode())
            if writer := writer_of(trainer):
                writer.add_figure("test/confusion_matrix", _figure(pl_module.confusion_counts.cpu(), data.classes))
        finally:
            tqdm.write(f"test set: {data.description}\n{_table(results)}")
        tqdm.write(f"written to {path}")


def _results(trainer: Trainer, model: ImageClassifier) -> dict[str, Any]:
    data, counts = CIFAR10DataModule.of(trainer), model.confusion_counts.tolist()
    images, hits = sum(map(sum, counts)), [row[i] for i, row in enumerate(counts)]
    accs = [hit / sum(row) if any(row) else None for hit, row in zip(hits, counts, strict=True)]
    return {
        "loss": trainer.callback_metrics["test/loss"].item(),
        "acc": sum(hits) / images,
        "per_class_acc": dict(zip(data.classes, accs, strict=True)),  # None for a class without images
        "confusion_matrix": counts,
        "classes": list(data.classes),
        "images": images,
        "source": data.source,
        "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None,
    }


def _table(results: dict[str, Any]) -> str:
    names, width = results["classes"], max(map(len, results["classes"]))
    header = " ".join(f"{name[:5]:>5}" for name in names)
    lines = [f"  loss {results['loss']:.4f}  accuracy {results['acc']:.4f}  ({results['images']:,} images)", ""]
    lines.append(f"  {'true class':{width}}  {'acc':>6}  {header}  <- predicted")
    for (name, acc), row in zip(results["per_class_acc"].items(), results["confusion_matrix"], strict=True):
        counts = " ".join(f"{count:5d}" for count in row)
        lines.append(f"  {name:{width}}  {'-' if acc is None else f'{acc:.4f}':>6}  {counts}")
    return "\n".join(lines)


def _figure(counts: Tensor, classes: Sequence[str]) -> Figure:
    # Not torchmetrics' plot: it hands matplotlib a tensor, which NumPy 2 warns of.
    figure, fractions = Figure(figsize=(8, 7), layout="constrained"), counts / counts.sum(1, keepdim=True).clamp(min=1)
    axes = figure.subplots()
    axes.imshow(fractions.numpy(), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    for i, j in product(range(len(classes)), repeat=2):
        color = "white" if fractions[i, j] > 0.5 else "black"
        axes.text(j, i, str(counts[i, j].item()), ha="center", va="center", fontsize=8, color=color)
    return figure
