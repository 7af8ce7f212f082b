"""Whether two runs ended the same, to the last bit."""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from torch import Tensor

from cifar_lightning.runs.checkpoint import load

# How long things took is not the same twice.
SECONDS = ("epoch_seconds", "seconds")


def differences(run: Path, whole: Path) -> list[str]:
    """What is not in one run as in the other: files, checkpoints, metrics.csv, points in TensorBoard, config.yaml."""
    found = [f"file {name}" for name in sorted(_names(run) ^ _names(whole))]
    for name in sorted(path.name for path in (whole / "checkpoints").iterdir()):
        if (run / "checkpoints" / name).exists():
            ours, theirs = (load(folder / "checkpoints" / name) for folder in (run, whole))
            found += [f"{name}{where}" for where in unequal(ours, theirs)]
    if _csv(run) != _csv(whole):
        found.append("metrics.csv")
    here, there = points(run), points(whole)
    found += [f"TensorBoard {point} x{here[point]}" for point in (here - there) | (there - here)]
    if (run / "config.yaml").read_text() != (whole / "config.yaml").read_text():
        found.append("config.yaml")
    return found


def points(run: Path) -> Counter[tuple[str, int, Any]]:
    """What TensorBoard shows of a run, each with how often: tag, step and value."""
    found: Counter[tuple[str, int, Any]] = Counter()
    for path in sorted(run.glob("events.out.tfevents.*")):
        for record in RawEventFileLoader(str(path)).Load():
            event = Event.FromString(record)
            for value in event.summary.value:
                number = value.simple_value if value.HasField("simple_value") else value.SerializeToString()
                found[value.tag, event.step, None if value.tag in SECONDS else number] += 1
            if event.HasField("graph_def"):
                found["graph", event.step, len(event.graph_def)] += 1
    return found


def _names(run: Path) -> set[str]:
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    return {name for name in names if not name.startswith("events.")}


def _csv(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{name: x for name, x in row.items() if name not in SECONDS} for row in csv.DictReader(file)]


def unequal(a: Any, b: Any, where: str = "") -> Iterator[str]:
    """Where two contents of checkpoints differ."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if not torch.equal(a, b):
            yield where
    elif isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys() - set(SECONDS), key=str):
            if key not in SECONDS:
                yield from unequal(a.get(key), b.get(key), f"{where}.{key}")
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        for i, pair in enumerate(zip(a, b, strict=True)):
            yield from unequal(*pair, f"{where}.{i}")
    elif a != b:
        yield f"{where}: {a!r} in place of {b!r}"
