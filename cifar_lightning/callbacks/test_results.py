"""What `test` leaves: figures to read, test.json, and the confusion matrix as a picture."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer

from cifar_lightning.callbacks.console import say
from cifar_lightning.callbacks.tensorboard import writer_of
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.models import ImageClassifier
from cifar_lightning.runs.layout import RunFolder
from cifar_lightning.utils import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class TestReport(Callback):
    """Prints the test figures and writes them beside the run.

    `test.json` holds `loss` (mean cross-entropy in nats), `acc` (fraction), `per_class_acc` (name to fraction),
    `confusion_matrix` (counts: row = true class, column = predicted class, in the order of `classes`), `classes`,
    `images` (how many), `source` of the images and the `checkpoint`.
    """

    __test__ = False  # to pytest it is no test

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints and writes."""
        report, path = self.report(trainer, pl_module), RunFolder(self.folder).test
        try:
            files.replace(path, f"{json.dumps(report, indent=1)}\n".encode())
            if writer := writer_of(trainer):
                writer.add_figure("test/confusion_matrix", figure(report["confusion_matrix"], report["classes"]))
        finally:  # figures that took a while are shown even where they can't be kept
            say(f"test set: {CIFAR10DataModule.of(trainer).description}")
            say(table(report))
        say(f"written to {path}")

    def report(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The figures as plain numbers and lists."""
        data = CIFAR10DataModule.of(trainer)
        assert isinstance(pl_module, ImageClassifier)
        counts = pl_module.confusion_counts.tolist()
        return {
            "loss": trainer.callback_metrics["test/loss"].item(),
            "acc": sum(row[i] for i, row in enumerate(counts)) / sum(map(sum, counts)),
            "per_class_acc": {
                name: row[i] / sum(row) if sum(row) else None
                for i, (name, row) in enumerate(zip(data.classes, counts, strict=True))
            },
            "confusion_matrix": counts,
            "classes": list(data.classes),
            "images": sum(map(sum, counts)),
            "source": data.source,
            "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None,
        }


def table(report: dict[str, Any]) -> str:
    """The figures as lines to read: each class with its accuracy and where its images went."""
    names = report["classes"]
    width = max(map(len, names))
    header = " ".join(f"{name[:5]:>5}" for name in names)
    lines = [f"  loss {report['loss']:.4f}  accuracy {report['acc']:.4f}  ({report['images']:,} images)", ""]
    lines.append(f"  {'true class':{width}}  {'acc':>6}  {header}  <- predicted")
    for name, row in zip(names, report["confusion_matrix"], strict=True):
        acc = report["per_class_acc"][name]
        counts = " ".join(f"{count:5d}" for count in row)
        lines.append(f"  {name:{width}}  {'-' if acc is None else f'{acc:.4f}':>6}  {counts}")
    return "\n".join(lines)


def figure(counts: list[list[int]], names: list[str]) -> "Figure":
    """The confusion matrix: rows are true classes, shaded by their fraction, counts written in."""
    from matplotlib.figure import Figure  # here, because training never needs it

    drawing = Figure(figsize=(8, 7), layout="constrained")
    axes = drawing.subplots()
    fractions = [[count / max(sum(row), 1) for count in row] for row in counts]
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for i, row in enumerate(counts):
        for j, count in enumerate(row):
            dark = fractions[i][j] > 0.5
            axes.text(j, i, str(count), ha="center", va="center", fontsize=8, color="white" if dark else "black")
    return drawing
