"""Compare two runs to the last bit: files, checkpoints, metrics.csv, config.yaml, and what TensorBoard shows."""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.plugin_event_accumulator import TENSORS, EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch import Tensor

from cifar_lightning.runs.checkpoint import load

# How long things took is not the same twice.
SECONDS = ("epoch_seconds", "seconds")
# Plugins of TensorBoard that show the last of what several processes wrote.
SHOWN_ONCE = ("hparams", "graphs", "graph_run_metadata", "graph_tagged_run_metadata")


def differences(run: Path, whole: Path) -> list[str]:
    """Return what is in one run and not in the other."""
    found = [f"file {name}" for name in sorted(_names(run) ^ _names(whole))]
    for name in sorted(path.name for path in (whole / "checkpoints").iterdir()):
        if (run / "checkpoints" / name).exists():
            ours, theirs = (load(folder / "checkpoints" / name) for folder in (run, whole))
            found += [f"{name}{where}" for where in unequal(ours, theirs)]
    if _csv(run) != _csv(whole):
        found.append("metrics.csv")
    here, there = points(run), points(whole)
    found += [f"TensorBoard {point[:2]} x{here[point]}" for point in (here - there) + (there - here)]
    if (run / "config.yaml").read_text() != (whole / "config.yaml").read_text():
        found.append("config.yaml")
    return found


def points(run: Path) -> Counter[tuple[str, int, Any]]:
    """Return what TensorBoard shows of a run, each with how often: tag, step and value."""
    shown = EventAccumulator(str(run), size_guidance={TENSORS: 0}).Reload()
    found: Counter[tuple[str, int, Any]] = Counter()
    for tag in shown.Tags()[TENSORS]:
        plugin = shown.summary_metadata[tag].plugin_data
        if plugin.plugin_name in SHOWN_ONCE:
            found[tag, 0, _hparams(plugin.content)] = 1
            continue
        for event in shown.Tensors(tag):
            found[tag, event.step, None if tag in SECONDS else event.tensor_proto.SerializeToString()] += 1
    return found


def _hparams(content: bytes) -> str:
    """Return the hyper-parameters in a fixed order: that of the map differs between processes."""
    return str(sorted(HParamsPluginData.FromString(content).session_start_info.hparams.items()))


def _names(run: Path) -> set[str]:
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    return {name for name in names if not name.startswith(("events.", ".lock"))}


def _csv(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{name: x for name, x in row.items() if name not in SECONDS} for row in csv.DictReader(file)]


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
        yield f"{where}: {a!r} in place of {b!r}"
