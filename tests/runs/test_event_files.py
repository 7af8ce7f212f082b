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

from cifar_lightning.runs.checkpoint import Checkpoint
from cifar_lightning.runs.layout import EVENTS, LAST, RunFolder
from cifar_lightning.runs.tensorboard_logger import RunLogger

ROWS = [{"epoch": 1, "val/acc": 0.1}, {"epoch": 2, "val/acc": 0.2}, {"epoch": 3, "val/acc": 0.3}]
REDONE = 0.5  # another value than before, so that the old one would be seen
EXPECTED = [(1, pytest.approx(0.1)), (2, pytest.approx(0.2)), (3, REDONE)]
STEPS = 10  # per epoch


def checkpoint(run: RunFolder, epochs: int) -> Checkpoint:
    return Checkpoint(run.checkpoint(LAST), {}, {}, 3, epochs, STEPS * epochs, 0, ROWS[:epochs])


def write(run: RunFolder, rows: list[dict[str, float]], done: tuple[int, int] = (0, 0)) -> None:
    """Do what a run does in each epoch: a point per step, then those of the epoch."""
    logger = RunLogger(run.path.parent, run.path, done)
    for row in rows:
        epoch, value = int(row["epoch"]), row["val/acc"]
        for step in range(STEPS * (epoch - 1), STEPS * epoch):
            logger.log_metrics({"train/loss_step": value}, step=step)
        logger.log_epoch({"val/acc": value, "lr": value}, epoch)
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
        # By name after any that begins in the same second: a run that resumes must begin in a later one.
        first.rename(first.with_name(f"events.out.tfevents.{int(time.time()):010d}.~.1.0"))
    write(run, [{"epoch": 3, "val/acc": REDONE}], checkpoint(run, 2).behind())
    return run


@pytest.mark.parametrize("cut", [0, 1, 7])
def test_what_was_superseded_is_hidden(cut: int, tmp_path: Path) -> None:
    run = resumed(tmp_path, cut=cut)
    assert shown(run.path / "train", "lr") == shown(run.path / "val", "curves/acc") == EXPECTED
    per_step = [(step, EXPECTED[step // STEPS][1]) for step in range(3 * STEPS)]
    assert shown(run.path, "train/loss_step") == per_step


def shown(folder: Path, tag: str) -> list[tuple[int, float]]:
    reader = EventAccumulator(str(folder))
    reader.Reload()
    return [(point.step, point.value) for point in reader.Scalars(tag)]


def test_of_a_whole_run_nothing_is_hidden(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "version_0")
    run.path.mkdir()
    write(run, ROWS)
    for done in (checkpoint(run, 3).behind(), None):  # `fit` that resumes, `test`
        logger = RunLogger(tmp_path, run.path, done)
        logger.log_metrics({"test/acc": 0.3}, step=3)
        logger.save()
        logger.finalize("success")
    assert shown(run.path / "val", "curves/acc") == [*EXPECTED[:2], (3, pytest.approx(0.3))]
    assert len(shown(run.path, "train/loss_step")) == 3 * STEPS


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
