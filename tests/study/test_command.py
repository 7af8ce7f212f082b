"""`study` with an executor that trains nothing: what it runs, what it keeps, what it prints."""

import csv
import json
import math
import os
import re
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import pytest

from cifar_lightning.__main__ import main
from cifar_lightning.errors import InputError, Interrupted
from cifar_lightning.report import render
from cifar_lightning.results import store
from cifar_lightning.results.records import Test
from cifar_lightning.runs import metrics_csv
from cifar_lightning.study import command, progress, worker
from cifar_lightning.study.config import read
from cifar_lightning.study.executor import Events
from cifar_lightning.study.identity import RECIPE
from cifar_lightning.study.plan import Run, plan
from cifar_lightning.study.preflight import Seconds
from cifar_lightning.utils import files
from tests.conftest import CONFIGS

BASE = "set: {data.source: synthetic}\nexperiments:\n"
MAIN = "  main: {base: mlp.yaml, epochs: 3, seeds: [0, 1], test: true}\n"
RATE = "  rate: {base: mlp.yaml, epochs: 2, vary: {model.lr: [0.001, 0.1]}}\n"
GRID = BASE + MAIN + RATE
HEADER = "experiment,variant,model,seed,address,status,reason,epochs,best_epoch,best_val/acc"
FAILED = "train/loss: nan; try less"
COLUMNS = 60


class Bench:
    """A study in the working directory, with an executor that writes records of runs without making them."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys, self.grid, self.ran = capsys, GRID, list[Run]()
        self.ends: dict[str, int] = {}  # exit statuses by a part of the folder's name; 0 for the others
        self.closed = False

    def study(self, *flags: str, ends: dict[str, int] | None = None) -> int:
        self.ends, self.ran = ends or {}, []
        self.capsys.readouterr()
        status = main(["study", f"--config={self.config()}", "--output=out", *flags])
        self.out, self.err = self.capsys.readouterr()
        return status

    def config(self) -> Path:
        (path := Path("grid.yaml")).write_text(self.grid)
        return path

    def execute(self, runs: Sequence[Run]) -> Events:
        try:
            for run in runs:
                self.ran.append(run)
                if not (run.study / run.folder / store.RESULT).exists():
                    store.write(run.study / run.folder, run.record(status="started"))
                yield run, "MLP with 3 parameters"
                status = next((status for name, status in self.ends.items() if name in str(run.folder)), 0)
                if status == 1:
                    yield run, f"error: {FAILED}"
                if not status:
                    yield run, f"epoch   1/{run.epochs}  train loss 2 acc 0.1  val loss 2 acc 0.2345  40.0 s"
                    self.write(run)
                yield run, status
        finally:
            self.closed = True

    @staticmethod
    def write(run: Run) -> None:
        rows = [{"epoch": n, "val/acc": 0.1 * n, "epoch_seconds": 30.0} for n in range(1, run.epochs + 1)]
        test = Test(loss=1.0, acc=0.25, classes=["a"], confusion_matrix=[[1]]) if run.test else None
        record = run.record(status="done", rows=rows, test=test, environment={"recipe": RECIPE})
        store.write(run.study / run.folder, record)
        run.files.path.mkdir(exist_ok=True)
        metrics_csv.write(run.files.metrics, rows)

    @property
    def made(self) -> list[tuple[str, int, int]]:
        return [(run.experiment, run.seed, run.epochs) for run in self.ran]

    @staticmethod
    def table(*names: str) -> list[Any]:
        with Path("out/results.csv").open(newline="") as file:
            rows = [[row[name] for name in names] for row in csv.DictReader(file)]
        return [row[0] for row in rows] if len(names) == 1 else [tuple(row) for row in rows]


@pytest.fixture
def bench(empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bench:
    (empty_folder / "mlp.yaml").write_text((CONFIGS / "mlp.yaml").read_text())
    bench = Bench(capsys)
    monkeypatch.setattr(command, "Local", lambda workers: bench.execute)
    monkeypatch.setattr(command, "preflight", lambda runs: {run.address: Seconds(60.0, 0.0) for run in runs})
    monkeypatch.setattr(render, "write", lambda study: study.folder / "report.html")
    monkeypatch.setattr(render, "findings", lambda _: ["dropout helps"])
    return bench


@contextmanager
def terminal() -> Iterator[Callable[[], list[str]]]:
    """A terminal for stderr; yields a function that reads what was written to it, a line as often as it was redrawn."""
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")  # not on Windows
    here, there = pty.openpty()
    termios.tcsetwinsize(there, (24, COLUMNS))
    with os.fdopen(here, "rb", buffering=0) as screen, os.fdopen(there, "w") as stderr, redirect_stderr(stderr):

        def read_lines() -> list[str]:
            text = b""
            while select.select([screen], [], [], 0.2)[0]:  # the system hands it on a little later, and in parts
                text += screen.read(2**16)
            return [line.strip() for line in re.split(r"[\r\n]|\x1b\[A", text.decode())]

        yield read_lines


def the(pattern: str) -> Path:
    (path,) = Path("out").glob(pattern)
    return path


def contents() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}


def test_it_makes_each_run_once_and_then_nothing(bench: Bench) -> None:
    assert bench.study() == 0
    assert bench.made == [("main", 0, 3), ("main", 1, 3), ("rate", 0, 2)]
    before = contents()
    shown = the("rate/lr=0.001,seed=0*")
    assert shown.is_symlink()  # a shared run is shown by every experiment
    assert (shown / "result.json").samefile(the("main/seed=0*/result.json"))
    assert len(list(Path("out").glob("rate/*"))) == 2
    assert bench.study() == 0
    assert bench.made == []
    assert contents() == before


def test_results_csv_has_a_row_per_point(bench: Bench) -> None:
    bench.study()
    assert Path("out/results.csv").read_text().startswith(HEADER)
    assert bench.table("experiment", "variant", "seed", "model", "epochs", "test/acc", "model.lr") == [
        ("main", "main", "0", "MLP", "3", "0.25", "0.001"),
        ("main", "main", "1", "MLP", "3", "0.25", "0.001"),
        ("rate", "lr=0.001", "0", "MLP", "2", "", "0.001"),
        ("rate", "lr=0.1", "0", "MLP", "2", "", "0.1"),
    ]
    # The third reads the first two epochs of the first run, whose test result is not its own.
    addresses = bench.table("address")
    assert addresses[2] == addresses[0]
    assert [acc[:3] for acc in bench.table("best_val/acc")] == ["0.3", "0.3", "0.2", "0.2"]


def test_what_is_added_runs_alone(bench: Bench) -> None:
    bench.study()
    bench.grid = GRID.replace("[0.001, 0.1]", "[0.0001, 0.001, 0.1]").replace("seeds: [0, 1]", "seeds: [0, 1, 2]")
    assert bench.study() == 0
    assert bench.made == [("main", 2, 3), ("rate", 0, 2)]
    assert bench.ran[1].folder.name.startswith("lr=0.0001,")
    assert len(bench.table("seed")) == 6


def test_more_epochs_are_another_run_and_leave_this_one(bench: Bench) -> None:
    bench.study()
    before = {path: path.read_bytes() for path in Path("out").rglob("result.json")}
    bench.grid = GRID.replace("epochs: 3", "epochs: 5")
    assert bench.study(ends={"main/seed": -9}) == 1
    assert bench.made == [("main", 0, 5), ("main", 1, 5)]
    assert {path: path.read_bytes() for path in before} == before
    # What is there serves before what is wanted.
    rates = [("rate", "done", "2"), ("rate", "done", "2")]
    assert bench.table("experiment", "status", "epochs") == [("main", "failed", "0"), ("main", "failed", "0"), *rates]
    bench.grid = GRID
    assert bench.study() == 0
    assert bench.made == []
    assert bench.table("test/acc") == ["0.25", "0.25", "", ""]


def test_a_longer_run_serves_a_shorter_one_that_is_asked_for_later(bench: Bench) -> None:
    bench.grid = BASE + "  long: {base: mlp.yaml, epochs: 9}\n"
    bench.study()
    bench.grid = BASE + "  short: {base: mlp.yaml, epochs: 2}\n  tested: {base: mlp.yaml, epochs: 3, test: true}\n"
    assert bench.study("--dry-run") == 0
    served, to_do, _ = bench.out.splitlines()
    assert served.split()[:2] == ["done", str(the("long/seed=0*").relative_to("out"))]
    assert to_do.startswith("to do ")
    assert bench.study() == 0
    assert bench.made == [("tested", 0, 3)]
    assert bench.table("experiment", "epochs") == [("short", "2"), ("tested", "3")]
    assert the("short/seed=0*").is_symlink()
    # And once the tested one is there, it is the shortest that will do; the metrics are the same.
    before = bench.table("best_val/acc")
    assert bench.study() == 0
    assert bench.table("best_val/acc") == before
    assert the("short/seed=0*").resolve().parent.name == "tested"


def test_what_a_longer_run_failed_of_later_is_no_failure_of_its_beginning(bench: Bench) -> None:
    bench.study()
    path = the("main/seed=0*/result.json")
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"status": "failed", "reason": "nan", "rows": content["rows"][:2]}))
    assert bench.study() == 1
    done = [(variant, "done", "") for variant in ("main", "lr=0.001", "lr=0.1")]
    assert bench.table("variant", "status", "reason") == [("main", "failed", "nan"), *done]


def test_records_of_other_plans_are_left_alone(bench: Bench) -> None:
    bench.study()
    bench.grid = GRID.replace("seeds: [0, 1]", "seeds: [2]")
    bench.study()
    assert bench.table("seed") == ["2", "0", "0"]
    assert len(store.read(Path("out")).records) == 3


def test_a_run_stays_in_its_folder_when_experiments_change_names(bench: Bench) -> None:
    bench.study(ends={"main/seed=1": 143})
    bench.grid = GRID.replace("main:", "renamed:")
    assert bench.study() == 0
    assert bench.made == [("main", 1, 3)]
    assert all(path.is_symlink() for path in Path("out/renamed").iterdir())


def test_a_failure_is_kept_with_its_reason_and_the_rest_goes_on(bench: Bench) -> None:
    assert bench.study(ends={"main/seed=1": 1, "lr=0.1": -9}) == 1
    assert len(bench.ran) == 3
    assert bench.table("variant", "seed", "status", "reason") == [
        ("main", "0", "done", ""),
        ("main", "1", "failed", FAILED),
        ("lr=0.001", "0", "done", ""),
        ("lr=0.1", "0", "failed", "killed by signal 9, for want of memory perhaps"),
    ]
    assert FAILED in bench.err
    assert bench.study() == 1  # it is reported until it is fixed
    assert bench.ran == []
    assert bench.study("--retry") == 0
    assert len(bench.ran) == 2
    assert set(bench.table("status")) == {"done"}


def test_a_run_does_not_begin_beside_a_repetition_of_itself(bench: Bench) -> None:
    (run, *_) = plan(read(bench.config()), Path("out")).runs
    repeated = run.files.path.with_name("version_1")
    repeated.mkdir(parents=True)
    assert worker.execute(run) == 2
    told = f"error: {repeated}: takes the place of version_0, which is gone; move it away\n"
    assert bench.capsys.readouterr().err == told
    assert [*repeated.parent.glob("version_*")] == [repeated]


def test_a_test_that_failed_takes_nothing_away_from_its_run(bench: Bench) -> None:
    bench.grid = GRID.replace(", test: true", "")
    assert bench.study() == 0
    path = the("main/seed=0*/result.json")
    before = json.loads(path.read_text())
    bench.grid = GRID
    assert bench.study(ends={"main/seed=0": 1}) == 1
    assert json.loads(path.read_text()) == before | {"status": "failed", "reason": FAILED}
    assert bench.table("status", "reason") == [("done", FAILED), *[("done", "")] * 3]
    assert f"{FAILED} (--retry runs it again)" in bench.err
    assert bench.study("--retry") == 0
    assert bench.table("test/acc") == ["0.25", "0.25", "", ""]


def test_what_was_stopped_has_not_failed(bench: Bench) -> None:
    for status in (130, 143, -2, -15):
        assert bench.study(ends={"main/seed=1": status}) == 1
        assert bench.table("seed") == ["0", "0", "0"]
        assert "it was stopped; start the study again" in bench.err
    assert bench.study() == 0
    assert bench.made == [("main", 1, 3)]


@pytest.mark.parametrize(("signal", "status"), [(KeyboardInterrupt(), 130), (Interrupted(15), 143)])
def test_a_signal_stops_the_runs_and_the_study_can_be_resumed(
    signal: BaseException, status: int, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise signal

    monkeypatch.setattr(progress.Progress, "ended", stop)
    assert bench.study() == status
    assert bench.closed
    assert len(bench.ran) == 1
    assert "the study was stopped; the same command resumes it" in bench.err


def test_dry_run_prints_what_would_run_and_writes_nothing(bench: Bench) -> None:
    bench.grid = GRID.replace(", test: true", "")
    assert bench.study("--dry-run") == 0
    assert "3 of 3 runs to do: about 8 min" in bench.out  # (3 + 3 + 2) epochs of a minute
    assert bench.ran == []
    assert not Path("out").exists()
    bench.study(ends={"main/seed=1": 143, "lr=0.1": 1})
    stopped = bench.ran[1].files
    stopped.path.mkdir(parents=True)
    metrics_csv.write(stopped.metrics, [{"epoch": 1}, {"epoch": 2}])
    bench.grid = GRID
    assert bench.study("--dry-run") == 0
    first, second, third, last = bench.out.splitlines()
    assert first.endswith("0 of 3 epochs        1 s")  # it lacks its test
    assert second.endswith("1 of 3 epochs       60 s")
    assert third.startswith("failed ")
    assert last.startswith("2 of 3 runs to do: about 60 s")


def test_in_a_log_file_each_run_has_a_line_for_its_start_and_its_end(bench: Bench) -> None:
    bench.study()
    command, end, *rest = bench.out.splitlines()
    assert command == f"$ {json.loads(the('main/seed=0*/result.json').read_text())['command']}"
    assert end == "[1/3] main, seed 0: val/acc 0.3000 at epoch 3 of 3, test/acc 0.2500, 90 s"
    assert [line[:5] for line in rest[:-2]] == ["$ pyt", "[2/3]", "$ pyt", "[3/3]"]
    assert rest[-2:] == ["- dropout helps", "report: out/report.html"]
    assert bench.err == ""


def test_at_a_terminal_it_shows_its_runs(bench: Bench) -> None:
    bench.study("--dry-run")  # the first in a process has Lightning print
    with terminal() as read_lines:
        assert bench.study() == 0
        shown = list(filter(None, dict.fromkeys(read_lines())))
    assert [line[:5] for line in bench.out.splitlines()] == ["[1/3]", "[2/3]", "[3/3]", "- dro", "repor"]
    # Of 8 epochs of 60 s by the probe, and 40 s in truth.
    assert shown[:4] == [
        "0 of 3 runs  0%  8 min left",
        "starts  main, seed 0",
        "epoch   1/3  val/acc 0.2345        80 s left  main, seed 0",
        "0 of 3 runs  12%  5 min left",
    ]
    assert max(map(len, shown)) < COLUMNS
    assert "epoch   1/2  val/acc 0.2345        40 s left  rate, lr=0.1," in shown  # as much as there is room for


def test_the_time_left_is_that_of_the_epochs_so_far(bench: Bench) -> None:
    runs = plan(read(bench.config()), Path("out")).runs  # of 3, 3 and 2 epochs
    epoch = "epoch   {}  train loss 2 acc 0.1  val loss 2 acc 0.2  {} s"
    with terminal() as read_lines:

        def left() -> str:
            return next(line for line in reversed(read_lines()) if " runs " in line).split("  ")[2]

        shown = progress.Progress(runs, {run.address: Seconds(1.0, 10.0) for run in runs})
        assert left() == f"{8 * 1 + 30} s left"
        shown.printed(runs[0], epoch.format("2/3", 8.0))  # it was resumed
        assert left() == f"{1 * 8 + 5 * 8 + 30} s left"  # all take eight times what was thought
        shown.printed(runs[1], epoch.format("1/3", 4.0))
        assert left() == f"{(1 * 8 + 2 * 4 + 2 * 6 + 30) / 2:.0f} s left"  # two at a time; the third as these do
        shown.ended(runs[0], None)
        assert left() == f"{(2 * 4 + 2 * 6 + 20) / 2:.0f} s left"
        shown.close()


def test_what_a_person_gets_wrong_is_one_line(bench: Bench) -> None:
    Path("grid.yaml").write_text(GRID)
    for flags, message in (
        ("", "--config"),
        ("--config=none.yaml", "none.yaml: there is no such file"),
        ("--config=grid.yaml --workers=0", "workers: 0 is not possible; use 1 or more"),
        ("--config=grid.yaml --wrokers=1", "wrokers"),
        ("--config=grid.yaml --cpus-per-run=2", "cpus-per-run: 2 is not possible; use it with --launcher ray"),
        ("--config=grid.yaml --launcher=ray --workers=2", "workers: 2 is not possible; use it with --launcher local"),
        ("--config=grid.yaml --launcher=ray --cpus-per-run=0", "cpus-per-run: 0 is not possible; use 1 or more"),
        ("--config=grid.yaml --launcher=ray --gpus-per-run=1.5", "gpus-per-run: 1.5 is not possible; use a fraction"),
        ("--config=grid.yaml --output=mlp.yaml", "mlp.yaml"),
        ("--config=grid.yaml --output=busy", "another study is running here"),
    ):
        Path("busy").mkdir(exist_ok=True)
        with files.locked(Path("busy")):
            assert main(["study", *flags.split()]) == 2
        (line,) = bench.capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert message in line


def test_ray_that_is_not_installed_is_named_with_what_to_type(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "cifar_lightning.study.ray_executor", raising=False)
    assert bench.study("--launcher=ray") == 2
    assert bench.err == "error: launcher: Ray is not installed; pip install -e '.[ray]'\n"
    assert bench.study() == 0


def test_a_study_that_is_refused_leaves_no_folder(bench: Bench) -> None:
    bench.grid = GRID + "  bad: {base: mlp.yaml, epochs: 1, set: {model.drpout: 0.1}}\n"
    assert bench.study() == 2
    assert "experiment bad: model.drpout: MLP has no drpout" in bench.err
    assert not Path("out").exists()


def test_a_damaged_record_is_named(bench: Bench) -> None:
    bench.study()
    record = the("main/seed=0*/result.json")
    for content in ("{", "[]", '{"schema": 99}', '{"schema": 2}', '{"schema": 2, "x": 2}'):
        record.write_text(content)
        assert bench.study() == 2
        assert f"error: {record}: " in bench.err


def test_a_metric_that_is_no_number_stays_one(bench: Bench) -> None:
    bench.study()
    path = the("main/seed=0*/result.json")
    record = store.every_record(Path("out"))[json.loads(path.read_text())["address"]]
    record.rows[0].update({"val/loss": math.inf, "gap/loss": math.nan})
    store.write(path.parent, record)
    (row, *_) = store.every_record(Path("out"))[record.address].rows
    assert row["val/loss"] == math.inf
    assert math.isnan(row["gap/loss"])
    path.write_text(path.read_text().replace("Infinity", "null"))  # what other programs make of it
    with pytest.raises(InputError, match=r"rows\[0\]\[...\]: Expected `float`, got `null`"):
        store.every_record(Path("out"))
