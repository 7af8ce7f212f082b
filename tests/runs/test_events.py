"""Event files are brought to where the checkpoint is."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from cifar_lightning.runs import events
from tests.faults.compare import points

ROWS = [{"epoch": 1, "val/acc": 0.1, "my/x": 0.5}, {"epoch": 2, "val/acc": 0.2, "my/x": 0.6}]
CURVES = [("val/acc", 1, 0.1), ("my/x", 1, 0.5), ("val/acc", 2, 0.2), ("my/x", 2, 0.6)]
STEPS = 20  # of two epochs


def scalar(tag: str, step: int, value: float) -> Event:
    return Event(step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))


def write(path: Path, records: list[Event]) -> None:
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for record in [Event(file_version="brain.Event:2"), *records]:
        writer.write(record.SerializeToString())
    path.write_bytes(buffer.getvalue())


def expected(*more: tuple[str, int, float]) -> Counter[tuple[str, int, float]]:
    return Counter((tag, step, float(np.float32(value))) for tag, step, value in [*CURVES, *more])


ALL = [scalar(*point) for point in CURVES]
CASES = {
    "whole": ([ALL], []),
    "in two files": ([ALL[:2], ALL[2:]], []),
    "twice": ([ALL, ALL], []),
    "later ones": ([[*ALL, scalar("val/acc", 3, 0.3)]], []),
    "a curve that began later": ([[*ALL, scalar("gap/acc", 3, 0.3)]], []),
    "missing": ([ALL[:1]], []),
    "another value": ([[scalar("val/acc", 2, 0.5), *ALL]], []),
    "another value in its place": ([[*ALL[:2], ALL[3], scalar("val/acc", 2, 0.5)]], []),
    "by steps": ([[scalar("mine", 19, 1), scalar("mine", 20, 1), *ALL]], [("mine", 19, 1.0)]),
    "a row's name by steps": (
        [[scalar("my/x", 1, 0.7), scalar("my/x", 19, 1), *ALL, scalar("my/x", 3, 0.7), scalar("my/x", 20, 1)]],
        [("my/x", 1, 0.7), ("my/x", 19, 1.0)],
    ),
    "of a test": ([[scalar("test/x", 99, 1), scalar("test/x", 99, 1), *ALL]], [("test/x", 99, 1.0)] * 2),
}


@pytest.mark.parametrize("name", CASES)
def test_each_point_is_there_once(name: str, tmp_path: Path) -> None:
    files, more = CASES[name]
    for i, records in enumerate(files):
        write(tmp_path / f"events.out.tfevents.{i}", records)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    events.repair(tmp_path, ROWS, STEPS)
    assert points(tmp_path) == expected(*more)
    after = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert (before == after) is (name in ("whole", "of a test"))
    assert len(after) == 1
    events.repair(tmp_path, ROWS, STEPS)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == after


@pytest.mark.parametrize("cut", [1, 15, 16, 40])
def test_half_a_record_goes(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "events.out.tfevents.0"
    write(path, ALL)
    path.write_bytes(path.read_bytes()[:-cut])
    (tmp_path / "events.out.tfevents.1").touch()
    events.repair(tmp_path, ROWS, STEPS)
    assert points(tmp_path) == expected()
    assert list(tmp_path.iterdir()) == [path]


def test_from_the_beginning_nothing_stays_but_tests(tmp_path: Path) -> None:
    write(tmp_path / "events.out.tfevents.0", [*ALL, scalar("hparams", 0, 1), scalar("test/x", 0, 1)])
    events.repair(tmp_path, [], 0)
    assert points(tmp_path) == Counter([("test/x", 0, 1.0)])


def test_where_there_are_none_none_are_made(tmp_path: Path) -> None:
    events.repair(tmp_path, ROWS, STEPS)
    assert list(tmp_path.iterdir()) == []
