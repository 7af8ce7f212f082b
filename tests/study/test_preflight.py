"""Preflight: what `fit` would refuse is refused before anything runs, and time grows with the work."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cifar_lightning.errors import InputError, RunError
from cifar_lightning.study import plan as plan_module
from cifar_lightning.study import preflight as module
from cifar_lightning.study import processes
from cifar_lightning.study.config import Experiment
from cifar_lightning.study.plan import Run, plan
from cifar_lightning.study.preflight import preflight, seconds_per_epoch
from tests.conftest import CONFIGS

SMALL = {"data.source": "synthetic", "data.train_size": 2000, "data.val_size": 1000, "data.train_clean_size": 0}


def runs(folder: Path, **more: Any) -> list[Run]:
    experiment = Experiment(base=str(CONFIGS / "mlp.yaml"), epochs=1, set=SMALL | more.pop("set", {}), **more)
    return plan({"one": experiment}, folder).runs


def test_what_fit_would_refuse_is_named_with_its_run(tmp_path: Path) -> None:
    (good,), (bad,) = runs(tmp_path), runs(tmp_path, vary={"model.dropout": [1.5]})
    with pytest.raises(InputError, match=r"experiment one, dropout=1.5,seed=0,.*: model.dropout: 1.5 is not pos"):
        preflight([good, bad])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model.dropout": 1.5}, "dropout: 1.5 is not possible"),
        ({"data.val_size": 0}, "data.val_size: 0 is not possible; use 1 or more: a study compares"),
        ({"data.batch_size": 0}, "batch_size: 0 is not possible"),
        ({"trainer.max_steps": 3}, "trainer.max_steps: 3 is not possible; use `epochs`"),
        ({"trainer.fast_dev_run": 1}, "trainer.fast_dev_run: 1 is not possible; use `epochs`"),
        ({"trainer.max_time": "00:00:01:00"}, "trainer.max_time: .* use `epochs`"),
        ({"trainer.check_val_every_n_epoch": 2}, "trainer.check_val_every_n_epoch: 2 is not possible; use 1"),
        ({"trainer.logger": False}, "trainer.logger: False is not possible"),
        ({"trainer.enable_checkpointing": False}, "trainer.enable_checkpointing: False is not possible"),
        ({"trainer.limit_val_batches": 0}, r"trainer.limit_val_batches: 0(\.0)? is not possible; use more than 0"),
        ({"trainer.limit_train_batches": 0.0}, "trainer.limit_train_batches: 0.0 is not possible"),
    ],
)
def test_a_value_out_of_range_too(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        list(seconds_per_epoch(runs(tmp_path, set=settings)))


def test_the_time_of_an_epoch_is_that_of_its_steps_and_its_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed: list[int] = []

    def step(setting: Any, batch: int) -> tuple[float, float]:
        probed.append(batch)
        return 0.5, 0.001

    monkeypatch.setattr(module, "_step", step)
    sizes = runs(tmp_path, vary={"data.batch_size": [10, 100, 1000]})
    limited = runs(tmp_path, set={"data.batch_size": 10, "trainer.limit_train_batches": 4})
    found = seconds_per_epoch([*sizes, *limited])
    # 200, 20 and 2 steps; one of 1,000 images takes five times as long as one of 200. Validation takes 1 s.
    assert list(found) == pytest.approx([200 * 0.5 + 1, 20 * 0.5 + 1, 2 * 5 * 0.5 + 1, 4 * 0.5 + 1])
    assert probed == [10, 100, 200]  # what is known is not timed again


def test_what_does_not_fit_in_memory_refuses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(setting: Any, batch: int) -> tuple[float, float]:
        if batch == 100:
            raise MemoryError
        return 0.5, 0.0

    monkeypatch.setattr(module, "_step", step)
    assert list(seconds_per_epoch(runs(tmp_path, vary={"data.batch_size": [100, 200]}))) == [0.0, 5.0]


def killed_at_the_large_one(runs: Sequence[Run]) -> Iterator[float]:
    for run in runs:
        if run.settings["data.batch_size"] == 200:
            os.kill(os.getpid(), signal.SIGKILL)
        yield 1.5


def killed_at_once(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_study_s_own_process_imports_no_torch() -> None:
    code = "import sys, cifar_lightning.study.command; assert not {'torch', 'lightning', 'pandas'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CONFIGS.parent)


def test_what_the_system_kills_for_its_memory_refuses_nothing_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = runs(tmp_path, vary={"data.batch_size": [100, 200, 300]})
    monkeypatch.setattr(module, "seconds_per_epoch", killed_at_the_large_one)
    assert list(preflight(asked).items()) == [(run.address, 0.0 if i == 1 else 1.5) for i, run in enumerate(asked)]
    monkeypatch.setattr(processes, "_answer", killed_at_once)
    with pytest.raises(RunError, match="study: a process of it has ended; start it again"):
        preflight(asked)


def test_settings_are_read_in_a_process_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = runs(tmp_path)
    monkeypatch.setattr(plan_module, "answers", lambda target, questions: iter(()))
    with pytest.raises(RunError, match="study: the process that reads its settings was killed; start it again"):
        runs(tmp_path)
    monkeypatch.setattr(plan_module, "answers", processes.answers)
    assert runs(tmp_path) == here
    with pytest.raises(InputError, match=r"experiment one: model.drpout: there is no such setting"):
        runs(tmp_path, set={"model.drpout": 0.5})
