"""TensorBoard shows each point of a run's curves once, whatever moment it was killed at."""

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cifar_lightning.runs import metrics_csv
from cifar_lightning.runs.checkpoint import Checkpoint
from cifar_lightning.runs.layout import EVENTS, LAST, RunFolder
from cifar_lightning.runs.logger import RunLogger
from cifar_lightning.runs.recovery import purge_step

ROWS = [{"epoch": 1, "val/acc": 0.1}, {"epoch": 2, "val/acc": 0.2}, {"epoch": 3, "val/acc": 0.3}]
REDONE = 0.5  # another value than before, so that the old one would be seen
EXPECTED = [(1, pytest.approx(0.1)), (2, pytest.approx(0.2)), (3, REDONE)]


def checkpoint(run: RunFolder, epochs: int) -> Checkpoint:
    return Checkpoint(run.checkpoint(LAST), {}, {}, 3, epochs, 10 * epochs, 0, ROWS[:epochs], asked={})


def write(run: RunFolder, rows: list[dict[str, float]], purge: int | None = None) -> None:
    """Do what a run does at the end of each epoch: metrics.csv, then the event file."""
    logger = RunLogger(run.path.parent, run.path, purge)
    for row in rows:
        metrics_csv.write(run.metrics, [*metrics_csv.read(run.metrics), row])
        logger.log_metrics({"val/acc": row["val/acc"], "lr": row["val/acc"]}, step=int(row["epoch"]))
        logger.save()
    logger.finalize("aborted")


def resumed(folder: Path, *, cut: int) -> RunFolder:
    """A run that was killed between the row of its third epoch and the checkpoint, and resumed."""
    run = RunFolder(folder / "version_0")
    run.path.mkdir(parents=True)
    write(run, ROWS)
    for first in [*run.path.rglob(EVENTS)]:
        if cut:
            first.write_bytes(first.read_bytes()[:-cut])
        first.rename(first.with_name("events.out.tfevents.0000000001.host.1.0"))  # earlier than what follows
    purge = purge_step(run, checkpoint(run, 2))
    assert purge == 3
    metrics_csv.write(run.metrics, ROWS[:2])
    write(run, [{"epoch": 3, "val/acc": REDONE}], purge)
    return run


@pytest.mark.parametrize("cut", [0, 1, 7])
def test_what_was_superseded_is_hidden(cut: int, tmp_path: Path) -> None:
    run = resumed(tmp_path, cut=cut)
    for folder, tag in ((run.path, "lr"), (run.path / "val", "curves/acc")):
        reader = EventAccumulator(str(folder))
        reader.Reload()
        assert [(point.step, point.value) for point in reader.Scalars(tag)] == EXPECTED


def test_nothing_is_hidden_without_need(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert purge_step(run, checkpoint(run, 2)) is None  # there is no event file
    write(run, ROWS)
    assert purge_step(run, checkpoint(run, 3)) is None
    assert purge_step(run, checkpoint(run, 2)) == 3
    assert purge_step(run, None) == 0
    run.metrics.write_bytes(b"\0\xff,,\n\n")
    assert purge_step(run, checkpoint(run, 3)) == 4


@pytest.mark.slow
@pytest.mark.parametrize("cut", [0, 7])
def test_tensorboard_itself_shows_no_superseded_point(cut: int, tmp_path: Path) -> None:
    resumed(tmp_path, cut=cut)
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr
            line = next(line for line in server.stderr if "http://" in line)
            url = next(word for word in line.split() if word.startswith("http://"))
            deadline = time.monotonic() + 30  # until it has read the files
            while not ask(url, "tags").get("version_0/val") and time.monotonic() < deadline:
                time.sleep(0.5)
            points = ask(url, "scalars?run=version_0%2Fval&tag=curves%2Facc")
            assert [(step, value) for _, step, value in points] == EXPECTED
        finally:
            server.terminate()


def ask(url: str, what: str) -> Any:
    """Return what TensorBoard's page asks for."""
    with urllib.request.urlopen(f"{url}data/plugin/scalars/{what}") as answer:
        return json.load(answer)
