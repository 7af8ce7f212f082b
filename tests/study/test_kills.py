"""A study that is killed resumes, and comes to the same results."""

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest

from cifar_lightning.results import store
from cifar_lightning.results.records import Record
from cifar_lightning.runs import metrics_csv
from cifar_lightning.runs.checkpoint import read_checkpoint
from cifar_lightning.runs.layout import INTERRUPTED, LAST, RunFolder
from cifar_lightning.utils import files
from tests.conftest import CONFIGS, Once
from tests.faults import processes
from tests.faults.processes import Child, fork_servers
from tests.faults.resume_users import JOB

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals"),
]

# Five runs on the stand-in, one of which fails and one of which is of two experiments; an epoch takes long enough to be
# noticed, so that a kill comes in the middle of a run.
GRID = """
set: {data.source: synthetic, data.train_size: 1000, data.val_size: 500, data.train_clean_size: 200, model.dropout: 0.5}
experiments:
  mlp: {base: mlp.yaml, epochs: 6, seeds: [0, 1], test: true}
  cnn: {base: cnn.yaml, epochs: 3, set: {model.channels: [4, 8]}}
  rate: {base: mlp.yaml, epochs: 4, vary: {model.lr: [0.001, 0.01, 1.0e+30]}}
"""
PATIENCE_SECONDS = 240
NO_CHANGES: Mapping[str, str] = {}


def write_config(folder: Path, grid: str = GRID) -> None:
    for name in ("mlp", "cnn"):
        (folder / f"{name}.yaml").write_text((CONFIGS / f"{name}.yaml").read_text())
    (folder / "grid.yaml").write_text(grid)


def apart(errors: Path, environment: Mapping[str, str]) -> None:
    """Be a group of processes, as of a shell, and have errors go to a file of their own."""
    os.setsid()
    os.environ.update(environment)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)


def as_typed(args: list[str]) -> None:
    """Be a new Python, which has imported nothing."""
    os.execv(sys.executable, [sys.executable, "-m", "cifar_lightning", *args])


def start(
    folder: Path, *more: str, grid: str = GRID, new: bool = False, environment: Mapping[str, str] = NO_CHANGES
) -> Child:
    """Start a study, from a process that has imported everything or as a `new` one, in a changed environment."""
    write_config(folder, grid)
    args = ["study", "--config=grid.yaml", "--output=out", *more]
    begin = partial(as_typed, args) if new else fork_servers
    study = processes.start(folder, args, partial(apart, folder / "errors.txt", environment), begin)
    while os.getpgid(study.pid) != study.pid:
        time.sleep(0.001)
    return study


def end(study: Child, status: int) -> tuple[str, str]:
    found, out = study.run()
    err = study.output.with_suffix("").joinpath("errors.txt").read_text()
    assert found == status, (out, err)
    assert "Traceback" not in out + err
    return out, err


def until(holds: Callable[[], bool], study: Child) -> None:
    ends = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert study.process.is_alive(), study.run()
        assert time.monotonic() < ends, study.output.read_text()
        time.sleep(0.02)


def epochs(run: Path) -> int:
    return len(metrics_csv.read(RunFolder(run).metrics))


def is_saved(run: Path) -> bool:
    """Whether nothing is lost: it was saved in the middle of its epoch, or it was just at the end of one."""
    kept = RunFolder(run)
    return kept.checkpoint(INTERRUPTED).exists() or read_checkpoint(kept.checkpoint(LAST)).epochs == epochs(run)


def at_epoch(output: Path, pattern: str, epoch: int) -> Callable[[], bool]:
    return lambda: any(epochs(run) >= epoch for run in output.glob(f"{pattern}/version_0"))


def timeless(output: Path) -> dict[str, Record]:
    """Every record minus its seconds, by address."""
    records = store.every_record(output)
    for record in records.values():
        for row in record.rows:
            del row["epoch_seconds"]
    return records


@pytest.fixture(scope="module")
def undisturbed(once: Once) -> Path:
    def run(folder: Path) -> None:
        _, err = end(start(folder), 1)
        assert "train/loss: nan at step" in err or "train/loss: inf at step" in err

    return once("undisturbed", run) / "out"


def check_same(output: Path, undisturbed: Path) -> None:
    assert (output / "results.csv").read_bytes() == (undisturbed / "results.csv").read_bytes()
    assert timeless(output) == timeless(undisturbed)
    assert (output / "report.html").exists()
    runs = sorted(str(path.relative_to(output)) for path in output.glob("*/*/version_*"))
    assert runs == sorted(str(path.relative_to(undisturbed)) for path in undisturbed.glob("*/*/version_*"))


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.nightly), 2])
def test_killed_twice(workers: int, tmp_path: Path, undisturbed: Path) -> None:
    output = tmp_path / "out"
    first = start(tmp_path, f"--workers={workers}")
    until(at_epoch(output, "mlp/seed=0*", 2), first)
    os.kill(first.pid, signal.SIGKILL)  # it alone: its runs notice, and save
    first.run()
    for run in output.glob("mlp/*/version_0"):
        with files.locked(run, waiting="until the run has ended"):
            assert is_saved(run)
    second = start(tmp_path, f"--workers={workers}")
    until(at_epoch(output, "cnn/*", 1), second)
    os.killpg(second.pid, signal.SIGKILL)  # every process, in the middle of whatever it does
    second.run()
    assert not (output / "report.html").exists()
    end(start(tmp_path, f"--workers={workers}", new=True), 1)
    check_same(output, undisturbed)


def test_stopped_in_order(tmp_path: Path, undisturbed: Path) -> None:
    """By Ctrl-C, by `kill` and by the end of a SLURM job's time, one after the other."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/requeued\n')
    (tmp_path / "bin/scontrol").chmod(0o755)
    output, job = tmp_path / "out", {**JOB, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    # A terminal and SLURM send theirs to every process, `kill` to the one that is named.
    for signum, status, send, run, environment in (
        (signal.SIGINT, 130, os.killpg, "mlp/seed=1*", NO_CHANGES),
        (signal.SIGTERM, 143, os.kill, "cnn/*", NO_CHANGES),
        (signal.SIGUSR1, 138, os.killpg, "rate/lr=0.01,*", job),
    ):
        study = start(tmp_path, environment=environment)
        until(at_epoch(output, run, 1), study)
        send(study.pid, signum)
        out, err = end(study, status)
        assert "the same command resumes it" in err
        (stopped,) = output.glob(f"{run}/version_0")
        assert is_saved(stopped)
        assert ("out/mlp --name seed=0" in out) == (signum == signal.SIGINT)  # a finished run is never made again
    out, _ = end(start(tmp_path, environment=job), 1)
    assert "out/mlp --name seed=0" not in out
    check_same(output, undisturbed)
    assert not [*output.rglob("slurm_job.json")]  # the study is requeued, and no run
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"


@pytest.mark.parametrize("seconds", [0.5, 1.0, 2.0, 3.0])
def test_stopped_while_it_starts(seconds: float, tmp_path: Path) -> None:
    study = start(tmp_path, new=True)
    time.sleep(seconds)
    os.killpg(study.pid, signal.SIGINT)
    _, err = end(study, 130)
    assert err.splitlines()[-1].startswith("SIGINT: ")


def test_a_run_repeated_by_hand_has_the_same_curves(undisturbed: Path, tmp_path: Path) -> None:
    record = next(record for record in store.read(undisturbed).records.values() if "cnn" in record.folder)
    words = shlex.split(record.command)[1:]
    words[words.index("--logs") + 1] = str(tmp_path)
    status, output = processes.start(undisturbed.parent, words[2:]).run()
    assert status == 0, output
    (by_hand,) = tmp_path.glob("*/version_0/metrics.csv")
    paths = by_hand, undisturbed / record.folder / "version_0/metrics.csv"
    # All but the seconds.
    first, second = ([line.rpartition(",")[0] for line in path.read_text().splitlines()] for path in paths)
    assert first == second
