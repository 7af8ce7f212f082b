"""The content of TensorBoard for a run, read back from the event file."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2, metadata
from tensorboard.plugins.hparams import plugin_data_pb2
from torchvision.utils import make_grid

from cifar_lightning.__main__ import main
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.runs import metrics_csv
from tests.conftest import SMALL, Fit

CURVES = {f"{stage}/{name}" for stage in ("train", "train_clean", "val") for name in ("loss", "acc")}


def events(run: Path) -> Any:
    accumulator = EventAccumulator(str(run), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def test_curves_are_those_of_metrics_csv_against_the_epoch(mlp_run: Path) -> None:
    written, rows = events(mlp_run), metrics_csv.read(mlp_run / "metrics.csv")
    assert set(written.Tags()["scalars"]) == CURVES | {"gap/loss", "gap/acc", "lr", "epoch_seconds"}
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    for tag in written.Tags()["scalars"]:
        points = [(event.step, event.value) for event in written.Scalars(tag)]
        assert points == [(row["epoch"], pytest.approx(row[tag], rel=1e-6)) for row in rows]


def test_training_and_validation_share_a_chart(mlp_run: Path) -> None:
    (event,) = events(mlp_run).Tensors(metadata.CONFIG_SUMMARY_TAG)
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    charts = {chart.title: set(chart.multiline.tag) for category in layout.category for chart in category.chart}
    assert charts["loss"] == {"train/loss", "train_clean/loss", "val/loss"}
    assert charts["accuracy"] == {"train/acc", "train_clean/acc", "val/acc"}


def test_sample_images_are_the_training_images(mlp_run: Path) -> None:
    (event,) = events(mlp_run).Images("samples/train")
    grid = torch.from_numpy(np.array(Image.open(io.BytesIO(event.encoded_image_string)))).permute(2, 0, 1)
    data = CIFAR10DataModule(source="synthetic", train_size=2000, val_size=1000)
    data.setup("fit")
    assert (grid.int() - make_grid(data.train.images[:64], nrow=8).int()).abs().max() <= 1


def test_hyper_parameters_stand_beside_the_final_metrics(mlp_run: Path) -> None:
    content = events(mlp_run).SummaryMetadata
    start = plugin_data_pb2.HParamsPluginData.FromString(content("_hparams_/session_start_info").plugin_data.content)
    values = start.session_start_info.hparams
    assert (values["dropout"].number_value, values["batch_norm"].number_value) == (0.5, 1)
    assert values["source"].string_value == "synthetic"
    assert {"lr", "optimizer", "schedule", "weight_decay", "width", "batch_size", "augment", "seed"} <= set(values)
    experiment = plugin_data_pb2.HParamsPluginData.FromString(content("_hparams_/experiment").plugin_data.content)
    assert {metric.name.tag for metric in experiment.experiment.metric_infos} == CURVES


def test_graph_and_origin_of_the_data(mlp_run: Path) -> None:
    assert any("fc1" in node.name for node in events(mlp_run).Graph().node)
    (event,) = events(mlp_run).Tensors("data/text_summary")
    assert b"SYNTHETIC" in event.tensor_proto.string_val[0]


def test_without_validation_there_are_no_empty_curves_and_test_adds_its_matrix(fit: Fit, tmp_path: Path) -> None:
    run = fit(tmp_path, ["--model=MLP", *SMALL, "--data.val_size=0", "--trainer.max_epochs=1"])
    assert set(events(run).Tags()["scalars"]) == {"train/loss", "train/acc", "lr", "epoch_seconds"}
    assert main(["test", f"--ckpt_path={run / 'checkpoints/last.ckpt'}"]) == 0
    (event,) = events(run).Images("test/confusion_matrix")
    assert min(event.width, event.height) >= 500
