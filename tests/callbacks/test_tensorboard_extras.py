"""The content of TensorBoard for a run, read back from the event files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from cifar_lightning.__main__ import main
from cifar_lightning.callbacks.tensorboard_extras import image_grid
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.data.transforms import normalize
from cifar_lightning.runs import metrics_csv
from tests.conftest import SMALL, Fit

STAGES = ("train", "train_clean", "val")


def events(run: Path) -> Any:
    accumulator = EventAccumulator(str(run), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def test_curves_are_those_of_metrics_csv_and_the_stages_of_one_share_a_card(mlp_run: Path) -> None:
    tags = {(mlp_run / "train", tag): tag for tag in ("gap/loss", "gap/acc", "lr", "epoch_seconds")}
    tags |= {(mlp_run / stage, f"curves/{name}"): f"{stage}/{name}" for stage in STAGES for name in ("loss", "acc")}
    folders = {folder: events(folder) for folder, _ in tags}
    assert events(mlp_run).Tags()["scalars"] == []  # its x are steps, and no curve over these was asked for
    assert {(folder, tag) for folder, read in folders.items() for tag in read.Tags()["scalars"]} == set(tags)
    # The first page opens on the first of these, and shows them in this order.
    assert sorted({tag.partition("/")[0] for _, tag in tags}) == ["curves", "epoch_seconds", "gap", "lr"]
    rows = metrics_csv.read(mlp_run / "metrics.csv")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    for (folder, tag), column in tags.items():
        points = [(event.step, event.value) for event in folders[folder].Scalars(tag)]
        assert points == [(row["epoch"], pytest.approx(row[column], rel=1e-6)) for row in rows]


def test_images_of_a_grid_are_those_of_the_data_each_with_its_title() -> None:
    data = CIFAR10DataModule(source="synthetic", train_size=2000, val_size=1000)
    data.setup("fit")
    images = data.train.images[:7]
    (axes,) = image_grid(normalize(images), list("abcdefg")).axes
    assert [each.get_text() for each in axes.texts] == list("abcdefg")
    for image, shown, title in zip(images, axes.images, axes.texts, strict=True):
        pixels = torch.from_numpy(np.asarray(shown.get_array())).permute(2, 0, 1) * 255
        assert (pixels - image).abs().max() < 0.01
        left, right, bottom, top = shown.get_extent()
        x, y = title.get_position()
        assert left < x < right
        assert top - 0.1 < y < top < bottom


def test_samples_at_the_start_and_predictions_after_the_last_epoch(mlp_run: Path) -> None:
    assert [event.step for event in events(mlp_run).Images("samples/train")] == [0]
    assert [event.step for event in events(mlp_run / "val").Images("predictions/val")] == [3]


def test_hyper_parameters_stand_beside_the_final_metrics(mlp_run: Path) -> None:
    content = events(mlp_run).SummaryMetadata
    start = metadata.parse_session_start_info_plugin_data(content("_hparams_/session_start_info").plugin_data.content)
    shown = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    assert (shown["model"], shown["epochs"], shown["batch_norm"], shown["dropout"]) == ("MLP", 3, True, 0.5)
    assert isinstance(shown["batch_norm"], bool)
    assert {"lr", "optimizer", "schedule", "weight_decay", "width", "batch_size", "augment", "seed"} <= set(shown)
    assert start.group_name == ""  # a row for each run, also for two with the same settings


def test_graph_and_origin_of_the_data(mlp_run: Path) -> None:
    assert any("fc1" in node.name for node in events(mlp_run).Graph().node)
    (event,) = events(mlp_run).Tensors("data/text_summary")
    assert b"SYNTHETIC" in event.tensor_proto.string_val[0]


def test_without_validation_there_are_no_empty_curves_and_test_adds_its_results(fit: Fit, tmp_path: Path) -> None:
    run = fit(tmp_path, ["--model=MLP", *SMALL, "--data.val_size=0", "--trainer.max_epochs=2"])
    assert {path.parent.name for path in run.rglob("events.*")} == {run.name, "train"}
    assert main(["test", f"--ckpt_path={run / 'checkpoints/last.ckpt'}"]) == 0
    written = events(run)
    (event,) = written.Images("test/confusion_matrix")
    assert event.step == written.Scalars("test/acc")[0].step == 2  # the epoch of the checkpoint
    assert min(event.width, event.height) >= 500
