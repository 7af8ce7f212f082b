"""Compare two runs to the last bit: files, checkpoints, metrics.csv, config.yaml, and what TensorBoard shows."""

import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.plugin_event_accumulator import TENSORS, EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import Tensor

from cifar_lightning.runs.checkpoint import load
from cifar_lightning.runs.tensorboard_logger import STAGES

# How long things took is not the same twice.
SECONDS = ("epoch_seconds", "seconds")
# Plugins of TensorBoard that show the last of what several processes wrote.
SHOWN_ONCE = ("hparams", "graphs", "graph_run_metadata", "graph_tagged_run_metadata")


def differences(run: Path, whole: Path) -> list[str]:
    """Return what is in one run and not in the other."""
    return list(unequal(_content(run), _content(whole)))


def _content(run: Path) -> dict[str, Any]:
    files = [str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()]
    return {
        "files": sorted(name for name in files if "events." not in name and not name.startswith(".lock")),
        "checkpoints": {path.name: load(path) for path in run.glob("checkpoints/*.ckpt")},
        "metrics.csv": list(csv.DictReader((run / "metrics.csv").read_text().splitlines())),
        "config.yaml": (run / "config.yaml").read_text(),
        "TensorBoard": {name: _shown(run / name) for name in ("", *STAGES) if (run / name).is_dir()},
    }


def _shown(folder: Path) -> dict[str, Any]:
    """Return the steps of each tag in TensorBoard, and hashes of the values."""
    events, shown = EventAccumulator(str(folder), size_guidance={TENSORS: 0}).Reload(), {}
    for tag in events.Tags()[TENSORS]:
        plugin = events.summary_metadata[tag].plugin_data
        if plugin.plugin_name in SHOWN_ONCE:
            # In a fixed order: that of the map differs between processes.
            parameters = sorted(HParamsPluginData.FromString(plugin.content).session_start_info.hparams.items())
            shown[f"tag {tag}"] = [(0, str(parameters))]
            continue
        values = [(x.step, b"" if tag in SECONDS else x.tensor_proto.SerializeToString()) for x in events.Tensors(tag)]
        shown[f"tag {tag}"] = sorted((step, hashlib.sha256(value).hexdigest()) for step, value in values)
    return shown


def unequal(a: Any, b: Any, where: str = "") -> Iterator[str]:
    """Name each place where the contents of two checkpoints differ."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if not torch.equal(a, b):
            yield where
    elif isinstance(a, dict) and isinstance(b, dict):
        for key in sorted((a.keys() | b.keys()) - set(SECONDS), key=str):
            yield from unequal(a.get(key), b.get(key), f"{where}.{key}")
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        for i, pair in enumerate(zip(a, b, strict=True)):
            yield from unequal(*pair, f"{where}.{i}")
    elif a != b:
        yield f"{where}: {a!r:.300} in place of {b!r:.300}"
