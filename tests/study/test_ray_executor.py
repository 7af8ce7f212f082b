"""Tasks on Ray, without a cluster: what is refused, and what comes of tasks that are lost."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import exceptions

from cifar_lightning.errors import InputError
from cifar_lightning.results import store
from cifar_lightning.study import ray_executor
from cifar_lightning.study.config import read
from cifar_lightning.study.plan import Run, plan
from cifar_lightning.utils import files
from tests.conftest import CONFIGS


@pytest.fixture
def run(empty_folder: Path) -> Run:
    base = f"base: {CONFIGS / 'mlp.yaml'}"
    Path("grid.yaml").write_text(f"experiments: {{mlp: {{{base}, epochs: 1, set: {{data.source: synthetic}}}}}}")
    (run,) = plan(read(Path("grid.yaml")), Path("out")).runs
    return run


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "127.0.0.1:1: [Errno 111] Connection refused; "),
        ("ray://127.0.0.1:1", "'ray://127.0.0.1:1' is not possible; use "),
        ("head", "'head' is not possible; use "),
    ],
)
def test_an_address_without_a_cluster_is_refused_at_once(address: str, message: str, run: Run) -> None:
    with pytest.raises(InputError) as error:
        next(ray_executor.Ray(address)([run]))
    assert str(error.value).startswith(f"address: {message}")


def test_without_runs_there_is_nothing_to_connect_for() -> None:
    assert list(ray_executor.Ray("127.0.0.1:1")([])) == []


def test_a_node_must_find_the_folder_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "10.0.0.2")
    place = ray_executor.Place(tmp_path, Path("out"), {"OMP_NUM_THREADS": "3"})
    refused = r"\(10.0.0.2\): .*/out is not there, or not locked"
    with pytest.raises(InputError, match=refused):
        place.enter()
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match=refused):
        place.enter()
    with files.locked(tmp_path / "out"):
        place.enter()
    assert Path.cwd() == tmp_path
    assert os.environ["OMP_NUM_THREADS"] == "3"


def events(run: Run, monkeypatch: pytest.MonkeyPatch, *tries: Sequence[Any]) -> list[str | int]:
    """What comes of a run whose task yields, or raises, this in each try."""
    left = iter(tries)

    def get(answer: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    def wait(tasks: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return tasks[:num_returns], tasks[num_returns:]

    monkeypatch.setattr(ray_executor, "ray", SimpleNamespace(wait=wait, get=get))
    running = dict[Any, Run]()
    place = ray_executor.Place(Path.cwd(), run.study, {})
    found = list(ray_executor._events(lambda *_: iter(next(left)), place, [run], running))
    assert not running
    assert not list(left)
    return [event for _, event in found]


def test_a_lost_run_is_tried_again(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    lost = exceptions.WorkerCrashedError()
    assert events(run, monkeypatch, ["1", lost], [lost], ["2", 0]) == ["1", "2", 0]
    assert capsys.readouterr().err == "mlp, seed 0: its Ray worker was lost; another resumes it\n" * 2


def test_a_run_that_is_always_lost_has_failed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = exceptions.OutOfMemoryError("The node is low on memory.\nMemory: 9 GB")
    *lines, end = events(run, monkeypatch, *[[lost]] * 4)
    assert lines == ["error: its Ray worker was lost 4 times (The node is low on memory.); look into Ray's logs"]
    assert end == 1


def test_a_run_that_is_lost_after_its_end_is_not_made_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    record = run.record(status="done", rows=[{"epoch": 1, "val/acc": 0.1, "epoch_seconds": 1.0}])
    store.write(run.study / run.folder, record)
    assert events(run, monkeypatch, ["1", exceptions.WorkerCrashedError()]) == ["1", 0]


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        (InputError("node a", "not there", "mount it"), "node a: not there; mount it"),
        # As Ray has it of a node without this package.
        (
            RuntimeError("The remote function failed to import:\n\nModuleNotFoundError: No module named 'x'\n"),
            "mlp, seed 0: can't execute runs (ModuleNotFoundError: No module named 'x'); install there what is ",
        ),
    ],
)
def test_what_a_task_refuses_ends_the_study(
    cause: Exception, message: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError) as error:
        events(run, monkeypatch, [exceptions.RayTaskError("_execute", "", cause).as_instanceof_cause()])
    assert str(error.value).startswith(message)
