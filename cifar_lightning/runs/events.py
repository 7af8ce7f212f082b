"""TensorBoard's event files, put right after a run was killed: each point of the curves once, none that is not kept."""

import io
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from cifar_lightning.utils import files

Row = dict[str, float]
Points = dict[tuple[str, int], np.float32]

# What TensorBoard's format adds to each record: its length and two checksums.
FRAME_BYTES = 16

CURVES = {f"{prefix}/{name}" for prefix in ("train", "val", "train_clean", "gap") for name in ("loss", "acc")}
CURVES |= {"lr", "epoch_seconds"}


def repair(folder: Path, rows: list[Row], steps: int) -> None:
    """Makes the event files of a run tell just what its checkpoint tells.

    Of what stands there twice one is kept; what was written after the checkpoint goes, for it will be written again;
    a point of the rows that is missing is added; half a record at a file's end goes. What `test` wrote stays as it is.
    If there is anything to put right, all files become one.

    Args:
        folder: The run's.
        rows: The curves, as in metrics.csv: each value a point, with the epoch as its step.
        steps: Training steps done; other points are kept up to there. 0 keeps nothing of the training.
    """
    paths = sorted(folder.glob("events.out.tfevents.*"))
    there = [record for path in paths for record in _records(path)]
    points = {(name, int(row["epoch"])): np.float32(x) for row in rows for name, x in row.items() if name != "epoch"}
    kept = list(_kept(there, points, steps))
    whole = sum(len(record) + FRAME_BYTES for record in there) == sum(path.stat().st_size for path in paths)
    if not paths or (whole and kept == there):
        return
    text = io.BytesIO()
    writer = RecordWriter(text)
    for record in kept:
        writer.write(record)
    files.replace(paths[0], text.getvalue())
    for path in paths[1:]:
        path.unlink()


def _records(path: Path) -> Iterator[bytes]:
    """What can be read; half a record at the end can't."""
    if path.stat().st_size:  # TensorBoard's reader takes an empty one for damaged
        yield from RawEventFileLoader(str(path)).Load()


def _kept(records: list[bytes], points: Points, steps: int) -> Iterator[bytes]:
    """The records that stay, and then those that were missing."""
    missing, seen = dict(points), set()
    for record in records:
        event = Event.FromString(record)
        value = event.summary.value[0] if event.summary.value else None
        point = (value.tag if value else event.WhichOneof("what"), event.step)
        number = np.float32(value.simple_value) if value else None
        if point[0].startswith("test/"):
            yield record
        elif number is not None and missing.get(point) == number:
            del missing[point]
            yield record
        elif (*point, number) not in seen and _stays(*point, number, points, steps):
            seen.add((*point, number))
            yield record
    for (name, step), number in missing.items():
        summary = Summary(value=[Summary.Value(tag=name, simple_value=float(number))])
        yield Event(wall_time=time.time(), step=step, summary=summary).SerializeToString()


def _stays(tag: str, step: int, number: np.float32 | None, points: Points, steps: int) -> bool:
    """Whether a record stays that is no point of the rows: a picture, say, or what a model logs step by step."""
    if tag == "file_version":
        return True
    if tag in CURVES:
        return False
    if tag in {name for name, _ in points}:  # in the rows and step by step: the same point again, and that of an epoch
        ahead = 1 + max(epoch for _, epoch in points)  # which the checkpoint has not got, go
        return step < steps and step != ahead and points.get((tag, step)) != number
    return step < steps
