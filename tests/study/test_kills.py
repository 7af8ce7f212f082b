"""A study that is killed resumes, and comes to the same results."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cifar_lightning.results import store
from cifar_lightning.results.records import Record
from cifar_lightning.runs import metrics_csv
from cifar_lightning.runs.checkpoint import read_checkpoint
from cifar_lightning.runs.layout import INTERRUPTED, LAST, RunFolder
from cifar_lightning.utils import files
from tests.conftest import CONFIGS
from tests.faults.resume_users import JOB

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals"),
]

# Six runs on the stand-in, one of which fails; each takes some seconds, so that a kill comes in the middle of one.
GRID = """
set: {data.source: synthetic, data.train_size: 2000, data.val_size: 500, data.train_clean_size: 200, model.dropout: 0.5}
experiments:
  mlp: {base: mlp.yaml, epochs: 6, seeds: [0, 1], test: true}
  cnn: {base: cnn.yaml, epochs: 3, set: {model.channels: [8, 8]}}
  rate: {base: mlp.yaml, epochs: 4, vary: {model.lr: [0.001, 0.01, 1.0e+30]}}
"""
PATIENCE_SECONDS = 240


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(CONFIGS.parent), "OMP_NUM_THREADS": "1", "CIFAR10_ROOT": "none"}


def start(folder: Path, *more: str, grid: str = GRID, **environment: str) -> subprocess.Popen[str]:
    for name in ("mlp", "cnn"):
        (folder / f"{name}.yaml").write_text((CONFIGS / f"{name}.yaml").read_text())
    (folder / "grid.yaml").write_text(grid)
    args = [sys.executable, "-m", "cifar_lightning", "study", "--config=grid.yaml", "--output=out", *more]
    return subprocess.Popen(
        args, cwd=folder, env=ENVIRONMENT | environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def end(study: subprocess.Popen[str], status: int) -> tuple[str, str]:
    out, err = study.communicate()
    assert study.returncode == status, (out, err)
    assert "Traceback" not in out + err
    return out, err


def until(holds: Callable[[], bool], study: subprocess.Popen[str]) -> None:
    ends = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert study.poll() is None, study.communicate()
        assert time.monotonic() < ends
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
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    _, err = end(start(folder), 1)
    assert "train/loss: nan at step" in err or "train/loss: inf at step" in err
    return folder / "out"


def check_same(output: Path, undisturbed: Path) -> None:
    assert (output / "results.csv").read_bytes() == (undisturbed / "results.csv").read_bytes()
    assert timeless(output) == timeless(undisturbed)
    assert (output / "report.html").exists()
    runs = sorted(str(path.relative_to(output)) for path in output.glob("*/*/version_*"))
    assert runs == sorted(str(path.relative_to(undisturbed)) for path in undisturbed.glob("*/*/version_*"))


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_twice(workers: int, tmp_path: Path, undisturbed: Path) -> None:
    output = tmp_path / "out"
    first = start(tmp_path, f"--workers={workers}")
    until(at_epoch(output, "mlp/seed=0*", 2), first)
    os.kill(first.pid, signal.SIGKILL)  # it alone: its runs notice, and save
    first.communicate()
    for run in output.glob("mlp/*/version_0"):
        with files.locked(run, waiting="until the run has ended"):
            assert is_saved(run)
    second = start(tmp_path, f"--workers={workers}")
    until(at_epoch(output, "cnn/*", 1), second)
    os.killpg(second.pid, signal.SIGKILL)  # every process, in the middle of whatever it does
    second.communicate()
    assert not (output / "report.html").exists()
    end(start(tmp_path, f"--workers={workers}"), 1)
    check_same(output, undisturbed)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_in_order(signum: signal.Signals, status: int, tmp_path: Path, undisturbed: Path) -> None:
    output = tmp_path / "out"
    first = start(tmp_path)
    until(at_epoch(output, "mlp/seed=1*", 1), first)
    # A terminal sends Ctrl-C to every process, `kill` sends SIGTERM to the one that was named.
    os.killpg(first.pid, signum) if signum == signal.SIGINT else os.kill(first.pid, signum)
    _, err = end(first, status)
    assert "the same command resumes it" in err
    (run,) = output.glob("mlp/seed=1*/version_0")
    assert is_saved(run)
    out, _ = end(start(tmp_path), 1)
    assert "mlp/seed=0" not in out  # a finished run is never made again
    check_same(output, undisturbed)


def test_in_a_slurm_job_the_study_is_requeued_and_no_run(tmp_path: Path, undisturbed: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/requeued\n')
    (tmp_path / "bin/scontrol").chmod(0o755)
    output, job = tmp_path / "out", {**JOB, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    first = start(tmp_path, **job)
    until(at_epoch(output, "mlp/seed=1*", 1), first)
    os.killpg(first.pid, signal.SIGUSR1)  # as SLURM does, every process of the job
    _, err = end(first, 138)
    assert "the same command resumes it" in err
    (run,) = output.glob("mlp/seed=1*/version_0")
    assert is_saved(run)
    end(start(tmp_path, **job), 1)
    check_same(output, undisturbed)
    assert not [*output.rglob("slurm_job.json")]
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"


@pytest.mark.parametrize("seconds", [0.5, 1.0, 2.0, 3.0])
def test_stopped_while_it_starts(seconds: float, tmp_path: Path) -> None:
    study = start(tmp_path)
    time.sleep(seconds)
    os.killpg(study.pid, signal.SIGINT)
    _, err = end(study, 130)
    assert err.splitlines()[-1].startswith("SIGINT: ")


def test_a_run_repeated_by_hand_has_the_same_curves(undisturbed: Path) -> None:
    record = next(record for record in store.read(undisturbed).records.values() if "cnn" in record.folder)
    words = shlex.split(record.command)[1:]
    words[words.index("--logs") + 1] = "by_hand"
    subprocess.run([sys.executable, *words], cwd=undisturbed.parent, env=ENVIRONMENT, check=True, capture_output=True)
    (by_hand,) = undisturbed.parent.glob("by_hand/*/version_0/metrics.csv")
    paths = by_hand, undisturbed / record.folder / "version_0/metrics.csv"
    # All but the seconds.
    first, second = ([line.rpartition(",")[0] for line in path.read_text().splitlines()] for path in paths)
    assert first == second
