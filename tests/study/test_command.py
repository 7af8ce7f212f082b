"""`study` with an executor that trains nothing: what it runs, what it keeps, what it says."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from cifar_lightning.__main__ import main
from cifar_lightning.errors import Interrupted
from cifar_lightning.report import render
from cifar_lightning.results import store
from cifar_lightning.results.records import Test
from cifar_lightning.study import command
from cifar_lightning.study.executor import Ended, Events, Printed
from cifar_lightning.study.identity import RECIPE
from cifar_lightning.study.plan import Run
from cifar_lightning.study.progress import Progress
from cifar_lightning.utils import files
from tests.conftest import CONFIGS

GRID = """
set: {data.source: synthetic}
experiments:
  main: {base: mlp.yaml, epochs: 3, seeds: [0, 1], test: true}
  rate: {base: mlp.yaml, epochs: 2, vary: {model.lr: [0.001, 0.1]}}
"""
HEADER = "experiment,variant,model,seed,address,status,reason,epochs,best_epoch,best_val/acc"


class Pretended:
    """An executor that writes the records of runs without running them; some end otherwise."""

    def __init__(self, ends: dict[str, int] | None = None) -> None:
        self.ends, self.ran, self.closed = ends or {}, list[Run](), False

    def __call__(self, runs: Sequence[Run]) -> Events:
        try:
            for run in runs:
                self.ran.append(run)
                yield Printed(run, "MLP with 3 parameters")
                status = next((status for name, status in self.ends.items() if name in str(run.folder)), 0)
                if status == 1:
                    yield Printed(run, "error: train/loss: nan; try less")
                if not status:
                    yield Printed(run, f"epoch   1/{run.epochs} train loss 2")
                    self.write(run)
                yield Ended(run, status)
        finally:
            self.closed = True

    @staticmethod
    def write(run: Run) -> None:
        rows = [{"epoch": n, "val/acc": 0.1 * n, "epoch_seconds": 30.0} for n in range(1, run.epochs + 1)]
        test = Test(loss=1.0, acc=0.25, classes=["a"], confusion_matrix=[[1]]) if run.test else None
        record = run.record(status="done", rows=rows, test=test, environment={"recipe": RECIPE})
        store.write_record(run.study / run.folder, record)


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    pretended = Pretended()
    monkeypatch.setattr(command, "Local", lambda workers: pretended)
    monkeypatch.setattr(command, "preflight", lambda runs: {run.address: 60.0 for run in runs})
    monkeypatch.setattr(render, "write", lambda study: study.folder / "report.html")
    return pretended


@pytest.fixture
def config(empty_folder: Path) -> Path:
    (empty_folder / "mlp.yaml").write_text((CONFIGS / "mlp.yaml").read_text())
    path = empty_folder / "grid.yaml"
    path.write_text(GRID)
    return path


def study(*more: str) -> int:
    return main(["study", "--config=grid.yaml", "--output=out", *more])


def table() -> list[dict[str, str]]:
    with Path("out/results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_makes_each_run_once_and_then_nothing(executor: Pretended, config: Path) -> None:
    assert study() == 0
    assert [(run.experiment, run.seed, run.epochs) for run in executor.ran] == [
        ("main", 0, 3),
        ("main", 1, 3),
        ("rate", 0, 2),
    ]
    before = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    executor.ran.clear()
    assert study() == 0
    assert executor.ran == []
    assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == before


def test_results_csv_has_a_row_a_point(executor: Pretended, config: Path) -> None:
    study()
    assert Path("out/results.csv").read_text().startswith(HEADER)
    rows = table()
    assert [(row["experiment"], row["variant"], row["seed"], row["model"]) for row in rows] == [
        ("main", "main", "0", "MLP"),
        ("main", "main", "1", "MLP"),
        ("rate", "lr=0.001", "0", "MLP"),
        ("rate", "lr=0.1", "0", "MLP"),
    ]
    assert [row["epochs"] for row in rows] == ["3", "3", "2", "2"]
    # The third reads the first two epochs of the first run, whose test result is not its own.
    assert rows[2]["address"] == rows[0]["address"]
    assert [row["best_val/acc"][:3] for row in rows] == ["0.3", "0.3", "0.2", "0.2"]
    assert [row["test/acc"] for row in rows] == ["0.25", "0.25", "", ""]
    assert [row["model.lr"] for row in rows] == ["0.001", "0.001", "0.001", "0.1"]


def test_a_shared_run_is_shown_by_every_experiment(executor: Pretended, config: Path) -> None:
    study()
    (record,) = Path("out").glob("main/seed=0,*/result.json")
    (shown,) = Path("out").glob("rate/lr=0.001,seed=0,*")
    assert shown.is_symlink()
    assert (shown / "result.json").samefile(record)
    assert len(list(Path("out").glob("rate/*"))) == 2


def test_what_is_added_runs_alone(executor: Pretended, config: Path) -> None:
    study()
    executor.ran.clear()
    config.write_text(GRID.replace("[0.001, 0.1]", "[0.0001, 0.001, 0.1]").replace("seeds: [0, 1]", "seeds: [0, 1, 2]"))
    assert study() == 0
    assert [(run.experiment, run.seed, run.folder.name.split(",")[0]) for run in executor.ran] == [
        ("main", 2, "seed=2"),
        ("rate", 0, "lr=0.0001"),
    ]
    assert len(table()) == 6


def test_more_epochs_are_another_run_and_leave_this_one(executor: Pretended, config: Path) -> None:
    study()
    before = {path: path.read_bytes() for path in Path("out").rglob("result.json")}
    executor.ran.clear()
    executor.ends = {"main/seed=1": -9}
    config.write_text(GRID.replace("epochs: 3", "epochs: 5"))
    assert study() == 1
    assert [(run.experiment, run.seed, run.epochs) for run in executor.ran] == [("main", 0, 5), ("main", 1, 5)]
    assert {path: path.read_bytes() for path in before} == before
    config.write_text(GRID)
    executor.ran.clear()
    assert study() == 0
    assert executor.ran == []
    assert [row["test/acc"] for row in table()] == ["0.25", "0.25", "", ""]


def test_what_is_there_serves_before_what_is_wanted(executor: Pretended, config: Path) -> None:
    base = "set: {data.source: synthetic}\nexperiments:\n"
    short = "  short: {base: mlp.yaml, epochs: 2}\n"
    config.write_text(base + short)
    assert study() == 0
    config.write_text(base + short + "  long: {base: mlp.yaml, epochs: 9}\n")
    executor.ran.clear()
    executor.ends = {"long": -9}
    assert study() == 1
    assert [run.epochs for run in executor.ran] == [9]
    assert [(row["experiment"], row["status"], row["epochs"]) for row in table()] == [
        ("short", "done", "2"),
        ("long", "failed", "0"),
    ]


def test_a_longer_run_serves_a_shorter_one_that_is_asked_for_later(
    executor: Pretended, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = "set: {data.source: synthetic}\nexperiments:\n"
    config.write_text(base + "  long: {base: mlp.yaml, epochs: 9}\n")
    assert study() == 0
    config.write_text(
        base + "  short: {base: mlp.yaml, epochs: 2}\n  tested: {base: mlp.yaml, epochs: 3, test: true}\n"
    )
    executor.ran.clear()
    capsys.readouterr()
    assert study("--dry-run") == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()][:2] == [
        ["done", str(next(Path("out").glob("long/seed=0*")).relative_to("out"))],
        ["to", "do"],
    ]
    assert study() == 0
    assert [(run.experiment, run.epochs) for run in executor.ran] == [("tested", 3)]
    assert [(row["experiment"], row["epochs"], row["best_val/acc"][:3]) for row in table()] == [
        ("short", "2", "0.2"),
        ("tested", "3", "0.3"),
    ]
    assert next(Path("out").glob("short/seed=0*")).is_symlink()
    # And once the tested one is there, it is the shortest that will do; the figures are the same.
    assert study() == 0
    assert [row["best_val/acc"][:3] for row in table()] == ["0.2", "0.3"]
    assert next(Path("out").glob("short/seed=0*")).resolve().parent.name == "tested"


def test_what_a_longer_run_failed_of_later_is_no_failure_of_its_beginning(executor: Pretended, config: Path) -> None:
    study()
    (path,) = Path("out").glob("main/seed=0,*/result.json")
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"status": "failed", "reason": "nan", "rows": content["rows"][:2]}))
    assert study() == 1
    assert [(row["variant"], row["status"], row["reason"]) for row in table()] == [
        ("main", "failed", "nan"),
        ("main", "done", ""),
        ("lr=0.001", "done", ""),
        ("lr=0.1", "done", ""),
    ]


def test_records_of_other_plans_are_left_alone(executor: Pretended, config: Path) -> None:
    study()
    config.write_text(GRID.replace("seeds: [0, 1]", "seeds: [2]"))
    study()
    assert [row["seed"] for row in table()] == ["2", "0", "0"]
    assert len(store.read(Path("out")).records) == 3


def test_a_run_stays_in_its_folder_when_experiments_change_names(executor: Pretended, config: Path) -> None:
    executor.ends = {"main/seed=1": 143}
    study()
    (Path("out") / executor.ran[1].folder).mkdir(parents=True)  # where it was stopped
    config.write_text(GRID.replace("main:", "renamed:"))
    executor.ran.clear()
    executor.ends = {}
    assert study() == 0
    assert [run.experiment for run in executor.ran] == ["main"]
    assert all(path.is_symlink() for path in Path("out/renamed").iterdir())


def test_a_failure_is_kept_with_its_reason_and_the_rest_goes_on(
    executor: Pretended, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    executor.ends = {"main/seed=1": 1, "lr=0.1": -9}
    assert study() == 1
    assert len(executor.ran) == 3
    reasons = {row["variant"] + row["seed"]: (row["status"], row["reason"]) for row in table()}
    assert reasons["main0"] == ("done", "")
    assert reasons["main1"] == ("failed", "train/loss: nan; try less")
    assert reasons["lr=0.10"] == ("failed", "killed by signal 9, for want of memory perhaps")
    assert "nan; try less" in capsys.readouterr().err
    executor.ran.clear()
    executor.ends = {}
    assert study() == 1  # it says so until it is mended
    assert executor.ran == []
    assert study("--retry") == 0
    assert len(executor.ran) == 2
    assert {row["status"] for row in table()} == {"done"}


def test_a_test_that_failed_takes_nothing_away_from_its_run(
    executor: Pretended, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(GRID.replace(", test: true", ""))
    assert study() == 0
    (path,) = Path("out").glob("main/seed=0,*/result.json")
    before = json.loads(path.read_text())
    config.write_text(GRID)
    executor.ends = {"main/seed=0": 1}
    assert study() == 1
    assert json.loads(path.read_text()) == before | {"status": "failed", "reason": "train/loss: nan; try less"}
    assert [(row["variant"], row["status"], row["reason"]) for row in table()] == [
        ("main", "done", "train/loss: nan; try less"),
        ("main", "done", ""),
        ("lr=0.001", "done", ""),
        ("lr=0.1", "done", ""),
    ]
    assert "train/loss: nan; try less (--retry runs it again)" in capsys.readouterr().err
    executor.ends = {}
    assert study("--retry") == 0
    assert [row["test/acc"] for row in table()] == ["0.25", "0.25", "", ""]


@pytest.mark.parametrize("status", [130, 143, -2, -15])
def test_what_was_stopped_has_not_failed(
    status: int, executor: Pretended, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    executor.ends = {"main/seed=1": status}
    assert study() == 1
    assert [row["seed"] for row in table()] == ["0", "0", "0"]
    assert "it was stopped; start the study again" in capsys.readouterr().err
    executor.ran.clear()
    executor.ends = {}
    assert study() == 0
    assert [run.seed for run in executor.ran] == [1]


@pytest.mark.parametrize(("signal", "status"), [(KeyboardInterrupt(), 130), (Interrupted(15), 143)])
def test_a_signal_stops_the_runs_and_tells_how_to_resume(
    signal: BaseException,
    status: int,
    executor: Pretended,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*_: object) -> None:
        raise signal

    monkeypatch.setattr(Progress, "ended", stop)
    assert study() == status
    assert executor.closed
    assert len(executor.ran) == 1
    assert "the study was stopped; the same command resumes it" in capsys.readouterr().err


def test_dry_run_says_what_would_run_and_writes_nothing(
    executor: Pretended, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study("--dry-run") == 0
    out = capsys.readouterr().out
    assert "3 of 3 runs to do: about 8 min" in out  # (3 + 3 + 2) epochs of a minute
    assert executor.ran == []
    assert not Path("out").exists()
    executor.ends = {"lr=0.1": 1}
    study()
    capsys.readouterr()
    assert study("--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["done", "done", "failed"]
    assert lines[3].startswith("0 of 3 runs to do")


def test_dry_run_counts_the_epochs_that_are_left(
    executor: Pretended, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(GRID.replace(", test: true", ""))
    executor.ends = {"main/seed=1": 143}
    study()
    stopped = Path("out") / executor.ran[1].folder / "version_0"
    stopped.mkdir(parents=True)
    (stopped / "metrics.csv").write_text("epoch,val/acc\n1,0.1\n2,0.2\n")
    config.write_text(GRID)
    capsys.readouterr()
    assert study("--dry-run") == 0
    first, second, _, last = capsys.readouterr().out.splitlines()
    assert first.endswith("0 of 3 epochs       0 s")  # it lacks its test
    assert second.endswith("1 of 3 epochs      60 s")
    assert last.startswith("2 of 3 runs to do: about 60 s")


def test_it_says_each_command_and_each_end(
    executor: Pretended, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study()
    lines = capsys.readouterr().out.splitlines()
    typed = [line[2:] for line in lines if line.startswith("$ ")]
    assert typed == [
        json.loads((Path("out") / run.folder / "result.json").read_text())["command"] for run in executor.ran
    ]
    ends = [line for line in lines if line.startswith("[")]
    assert ends[0].startswith("[1/3] main/seed=0,")
    assert ends[0].endswith("val/acc 0.3000 at epoch 3 of 3, test/acc 0.2500, 90 s")
    assert lines[-1] == "report: out/report.html"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["study"], "--config"),
        (["study", "--config=none.yaml"], "none.yaml: there is no such file"),
        (["study", "--config=grid.yaml", "--workers=0"], "workers: 0 is not possible; use 1 or more"),
        (["study", "--config=grid.yaml", "--wrokers=1"], "wrokers"),
        (["study", "--config=grid.yaml", "--output=mlp.yaml"], "mlp.yaml"),
    ],
)
def test_what_a_person_gets_wrong_is_said_in_a_line(
    args: list[str], said: str, executor: Pretended, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line


def test_one_study_a_folder(executor: Pretended, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    with files.locked(Path("out")):
        assert study() == 2
    assert "another study is running here" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{", "[]", '{"schema": 99}', '{"schema": 1}', '{"schema": 1, "x": 2}'])
def test_a_damaged_record_is_named(
    content: str, executor: Pretended, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study()
    record = next(Path("out").glob("main/seed=0*")) / "result.json"
    record.write_text(content)
    capsys.readouterr()
    assert study() == 2
    assert f"error: {record}: " in capsys.readouterr().err
