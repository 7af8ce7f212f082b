"""Preflight: what `fit` would refuse is refused before anything runs, and time grows with the work."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cifar_lightning.errors import InputError, RunError
from cifar_lightning.study import executor
from cifar_lightning.study import plan as plan_module
from cifar_lightning.study import preflight as module
from cifar_lightning.study.config import Experiment
from cifar_lightning.study.plan import Run, plan
from cifar_lightning.study.preflight import DRY_RUNS, Seconds, preflight, probe
from tests.conftest import CONFIGS

SMALL = {"data.source": "synthetic", "data.train_size": 2000, "data.val_size": 1000, "data.train_clean_size": 0}


def runs(folder: Path, **more: Any) -> list[Run]:
    experiment = Experiment(base=str(CONFIGS / "mlp.yaml"), epochs=1, set=SMALL | more.pop("set", {}), **more)
    return plan({"one": experiment}, folder).runs


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model.dropout": 1.5}, r"experiment one, seed=0: model.dropout: 1.5 is not possible"),
        ({"data.batch_size": 0}, "batch_size: 0 is not possible"),
        ({"data.val_size": 0}, "experiment one: data.val_size: 0 is not possible; use more than 0: a study compares"),
        ({"trainer.limit_val_batches": 0}, r"trainer.limit_val_batches: 0(\.0)? is not possible; use more than 0"),
        ({"trainer.limit_train_batches": 0.0}, "trainer.limit_train_batches: 0.0 is not possible"),
        ({"trainer.max_steps": 3}, "trainer.max_steps: 3 is not possible; use the default: a study compares whole"),
        ({"trainer.fast_dev_run": 1}, "trainer.fast_dev_run: 1 is not possible"),
        ({"trainer.max_time": "00:00:01:00"}, "trainer.max_time: .* is not possible"),
        ({"trainer.check_val_every_n_epoch": 2}, "trainer.check_val_every_n_epoch: 2 is not possible"),
        ({"trainer.logger": False}, "trainer.logger: False is not possible"),
        ({"trainer.callbacks": [{"class_path": "LearningRateFinder"}]}, "LearningRateFinder in a study"),
        ({"trainer.enable_checkpointing": False}, "trainer.enable_checkpointing: False is not possible"),
    ],
)
def test_what_a_study_can_t_have_is_refused_before_anything_runs(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        list(probe(runs(tmp_path, set=settings)))


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batches that are timed: half a second each, and a millisecond per evaluated image; 100 are too many."""
    probed: list[int] = []
    clock = itertools.count(step=0.25)  # a dry run takes as long

    def step(_: Any, batch: int) -> tuple[float, float]:
        probed.append(batch)
        if batch == 100:
            raise MemoryError
        return 0.5, 0.001

    monkeypatch.setattr(module, "_step", step)
    monkeypatch.setattr(module, "perf_counter", lambda: next(clock))
    return probed


def test_the_time_of_a_run_is_that_of_its_steps_its_validation_and_its_test(tmp_path: Path, probed: list[int]) -> None:
    sizes = runs(tmp_path, vary={"data.batch_size": [10, 1000]})
    limited = runs(tmp_path, set={"data.batch_size": 10, "trainer.limit_train_batches": 4}, test=True)
    first, second, third = probe([*sizes, *limited])
    # 200 and 2 steps; one of 1,000 images takes five times as long as one of 200. Validation takes 1 s, a test 10 s.
    assert first == pytest.approx((200 * 0.5 + 1, DRY_RUNS * 0.25))
    assert second == pytest.approx((2 * 5 * 0.5 + 1, DRY_RUNS * 0.25))
    assert third == pytest.approx((4 * 0.5 + 1, 3 * DRY_RUNS * 0.25 + 2 * 10))
    assert probed == [10, 200]  # what is known is not timed again


def test_what_does_not_fit_in_memory_refuses_nothing(tmp_path: Path, probed: list[int]) -> None:
    first, second = probe(runs(tmp_path, vary={"data.batch_size": [100, 200]}))
    assert (first, second.per_epoch) == (Seconds(), 6.0)


def killed_at_the_large_one(runs: Sequence[Run]) -> Iterator[Seconds]:
    for run in runs:
        if run.settings["data.batch_size"] == 200:
            os.kill(os.getpid(), signal.SIGKILL)
        yield Seconds(1.5)


def test_nor_does_what_the_system_kills_for_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = runs(tmp_path, vary={"data.batch_size": [100, 200, 300]})
    monkeypatch.setattr(module, "probe", killed_at_the_large_one)
    assert list(preflight(asked).values()) == [Seconds(1.5), Seconds(), Seconds(1.5)]


def test_the_study_s_own_process_imports_no_torch() -> None:
    code = "import sys, cifar_lightning.study.command; assert not {'torch', 'lightning', 'pandas'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CONFIGS.parent)


def test_settings_are_read_in_a_process_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = runs(tmp_path)
    monkeypatch.setattr(plan_module, "answers", lambda target, questions: iter(()))
    with pytest.raises(RunError, match="study: the process that reads its settings was killed; start it again"):
        runs(tmp_path)
    monkeypatch.setattr(plan_module, "answers", executor.answers)
    assert runs(tmp_path) == here
    with pytest.raises(InputError, match=r"experiment one: model.drpout: MLP has no drpout"):
        runs(tmp_path, set={"model.drpout": 0.5})
