"""The export itself: the model and the images of a checkpoint's `predict`, written as a file instead."""

import hashlib
import json
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cifar_lightning.cli.lightning_cli import CLI
from cifar_lightning.data import Batch, user_images
from cifar_lightning.data.transforms import normalize
from cifar_lightning.errors import check
from cifar_lightning.export.formats import FORMATS, by
from cifar_lightning.export.parity import BATCHES, compare, run
from cifar_lightning.runs import metrics_csv
from cifar_lightning.runs.checkpoint import LACKING, Checkpoint, load
from cifar_lightning.runs.layout import RunFolder
from cifar_lightning.utils import files


class Exporter(CLI):
    """`predict` up to where the Trainer would begin, so that what is exported is what is predicted with."""

    def __init__(self, options: Namespace, flags: Sequence[str]) -> None:
        self.options = options
        float32 = ("--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.precision=32-true")
        super().__init__(["predict", f"--ckpt_path={options.ckpt_path}", *float32, *flags])

    def predict(self, **_: Any) -> None:
        """Write the file, unless it predicts otherwise than the checkpoint."""
        assert self.start
        assert self.restored
        form, checkpoint = FORMATS[self.options.format], self.restored.path
        output = self.options.output or checkpoint.with_suffix(form.suffix)
        check(output.suffix == form.suffix, "output", str(output), f"a name that ends in {form.suffix}")
        files.check_new(output, force=self.options.force)
        self.datamodule.prepare_data()
        self.datamodule.setup("test")
        images, classes = self.datamodule.test.images.numpy(), self.datamodule.classes
        self.model.load_state_dict(load(checkpoint)["state_dict"])
        expected, ms = run(by(self._reference), images, BATCHES[-1])
        content = form.write(self.model, self._metadata(self.start.run, self.restored))
        found = compare(str(output), form.read(content), images, expected, classes)
        files.replace(output, content)
        print(f"all {len(images):,} test images are predicted as by the checkpoint: {self.datamodule.description}")
        print(f"  largest difference of a probability: {found.largest:.1e}")
        if found.ties:
            print(f"  equally likely classes changed places: {', '.join(found.ties)}")
        times = ", ".join(f"{each:.3f} in batches of {size}" for size, each in found.ms.items())
        print(f"  ms per image: {times}; checkpoint: {ms:.3f} in batches of {BATCHES[-1]}")
        print(f"written to {output} ({len(content) / 1e6:.1f} MB)")

    def _reference(self, images: Tensor) -> Tensor:
        batch = Batch.whole(normalize(images), torch.zeros(len(images)))
        probabilities: Tensor = self.model.eval().predict_step(batch, 0)
        return probabilities

    def _metadata(self, run: RunFolder, checkpoint: Checkpoint) -> dict[str, str]:
        settings: dict[str, Any] = json.loads(json.dumps(checkpoint.config))
        settings["model"]["init_args"] = dict(self.model.hparams)  # those that it was built with
        settings["data"].pop("root", None)  # of this machine
        return {
            "classes": json.dumps(self.datamodule.classes),
            "input": "images: uint8, N x 3 x 32 x 32, RGB, 0 to 255",
            "output": "probabilities: float32, N x 10, in the order of the classes",
            "preparation": " ".join(str(user_images.__doc__).split()),
            "architecture": settings["model"]["class_path"],
            "source": str(self.datamodule.source),
            "run": str(run.path),
            "checkpoint": str(checkpoint.path),
            "checkpoint_sha256": hashlib.sha256(checkpoint.path.read_bytes()).hexdigest(),
            "settings": json.dumps(settings),
            **_accuracies(run, checkpoint),
        }


def _accuracies(run: RunFolder, checkpoint: Checkpoint) -> dict[str, str]:
    """Return the accuracies that a run's files tell of the checkpoint: of a copied one, none."""
    found: dict[str, float] = {}
    with suppress(OSError, *LACKING):
        (found["val_acc"],) = (
            row["val/acc"] for row in metrics_csv.read(run.metrics) if row["epoch"] == checkpoint.epochs
        )
    with suppress(OSError, *LACKING):
        test = json.loads(run.test.read_text())
        if Path(test["checkpoint"]).absolute() == checkpoint.path.absolute():
            found["test_acc"] = test["acc"]
    return {name: f"{accuracy:.4f}" for name, accuracy in found.items()}
