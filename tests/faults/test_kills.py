"""Killed anywhere, any number of times, a run ends as if nothing had been: the same bits, rows and points."""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.faults.compare import differences
from tests.faults.nursery import Nursery, wrapped
from tests.faults.points import POINTS, Point

FLAGS = [
    "--data.source=synthetic", "--data.train_size=300", "--data.val_size=200", "--data.train_clean_size=100",
    "--data.batch_size=20", "--data.eval_batch_size=50", "--data.augment=flip-shift", "--model.schedule=cosine",
    "--trainer.max_epochs=3", "--trainer.accelerator=cpu", "--name=run",
]  # fmt: skip
MODELS = {"mlp": ["--model=MLP", "--model.width=16"], "cnn": ["--model=CNN", "--model.channels=[4,8]"]}

# What a run may end with here: done, killed, Ctrl-C, SIGTERM; a signal may also come before Python minds it.
ENDS = (0, -signal.SIGKILL, 130, 143, -signal.SIGINT, -signal.SIGTERM)


@dataclass
class Bench:
    """A run of one model, again and again in its own folder until it is done.

    Attributes:
        flags: Its settings.
        folder: Where it works.
        whole: The folder of the same run, never interrupted.
        seconds: What that took.
    """

    nursery: Nursery
    flags: list[str]
    folder: Path
    whole: Path = Path()
    seconds: float = 0.0
    said: list[str] = field(default_factory=list)

    @property
    def run(self) -> Path | None:
        """The newest run, if it has told what it is."""
        versions = sorted((self.folder / "logs/run-synthetic").glob("version_*"))
        return versions[-1] if versions and (versions[-1] / "config.yaml").exists() else None

    def command(self, rng: random.Random) -> list[str]:
        """One of the two ways to go on, or to begin."""
        if self.run and rng.random() < 0.5:
            return ["fit", "--resume", str(self.run.relative_to(self.folder))]
        has_checkpoint = self.run and any(self.run.glob("checkpoints/*.ckpt"))
        if self.run and not has_checkpoint:  # `last` would begin in a new folder
            return ["fit", "--resume", str(self.run.relative_to(self.folder))]
        return ["fit", *self.flags, "--ckpt_path=last"]

    def once(
        self, command: list[str], kill: tuple[float, int] | None = None, before: str = "", given: Any = None
    ) -> int:
        """Runs once; `kill` is after how many seconds, and the signal."""
        child = self.nursery.start(self.folder, command, before=before, given=given)
        if kill:
            time.sleep(kill[0])
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, kill[1])
        status, words = child.run()
        self.said.append(f"{command[1:3]} {kill} {given}: {status}\n{words}")
        assert "Traceback" not in words, self.said
        return status

    def finish(self, rng: random.Random) -> None:
        """Goes on until the run is done, and compares it."""
        assert self.once(self.command(rng)) == 0, self.said
        assert self.run
        assert differences(self.run, self.whole) == [], self.said


@pytest.fixture(scope="session")
def wholes(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, float]]:
    """The uninterrupted run of a model, and the seconds it took once everything had been loaded."""
    made: dict[str, tuple[Path, float]] = {}

    def whole(model: str) -> tuple[Path, float]:
        if model not in made:
            flags = [*MODELS[model], *FLAGS]
            twice = [Bench(nursery, flags, tmp_path_factory.mktemp(f"{model}-whole")) for _ in range(2)]
            for bench in twice:
                start = time.monotonic()
                assert bench.once(["fit", *flags]) == 0, bench.said
            first, again = (bench.run for bench in twice)
            assert first
            assert again
            assert differences(again, first) == []
            made[model] = first, time.monotonic() - start
        return made[model]

    return whole


@pytest.fixture
def bench(
    request: pytest.FixtureRequest, nursery: Nursery, wholes: Callable[[str], tuple[Path, float]], tmp_path: Path
) -> Bench:
    folder = tmp_path / "work"
    folder.mkdir()
    return Bench(nursery, [*MODELS[request.param], *FLAGS], folder, *wholes(request.param))


EACH_MODEL = pytest.mark.parametrize("bench", MODELS, indirect=True)
MLP_ALONE = pytest.mark.parametrize("bench", ["mlp"], indirect=True)


# Curves and metrics.csv are an epoch further than the checkpoint: the most there can be to put right.
AHEAD = next(point for point in POINTS if point.name == "curves ahead of the checkpoint")


def kill_at(point: Point, bench: Bench, rng: random.Random) -> None:
    if point.during == "resume":
        assert bench.once(bench.command(rng), before="tests.faults.points:arm", given=AHEAD.given()) == -signal.SIGKILL
    status = bench.once(bench.command(rng), before="tests.faults.points:arm", given=point.given())
    assert status == -signal.SIGKILL, f"{point} was not reached: {bench.said}"
    bench.finish(rng)


FEW = ("config.yaml half", "mid-epoch", "temporary file half", "no last", "event file half", "interrupted, named")


@MLP_ALONE
@pytest.mark.parametrize("point", [p for p in POINTS if p.name in FEW], ids=lambda point: point.name)
def test_killed_at_a_point(point: Point, bench: Bench, rng: random.Random) -> None:
    kill_at(point, bench, rng)


@pytest.mark.slow
@EACH_MODEL
@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
def test_killed_at_every_point(point: Point, bench: Bench, rng: random.Random) -> None:
    kill_at(point, bench, rng)


@EACH_MODEL
def test_killed_at_random_moments(
    bench: Bench, rng: random.Random, request: pytest.FixtureRequest, tmp_path: Path, record_property: Any
) -> None:
    left = int(request.config.getoption("kills"))
    kills = trials = 0
    while kills < left:
        bench.folder, bench.said = tmp_path / f"trial-{trials}", []
        bench.folder.mkdir()
        trials += 1
        for _ in range(rng.randint(1, 4)):
            # Most often what no process can answer.
            signum = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
            status = bench.once(bench.command(rng), kill=(rng.uniform(0, bench.seconds), signum))
            assert status in ENDS, bench.said
            if status == 0:
                break
            kills += 1
        bench.finish(rng)
    record_property("kills", kills)


SABOTAGE = {
    "no reseeding": ("epoch_seed:EpochSeed.on_train_epoch_start", False),
    "no history": ("history:History.load_state_dict", False),
    "generators not restored": ("epoch_seed:EpochSeed.load_state_dict", True),
    "epoch zeroed": ("cifar_lightning.data.loader:Batches.set_epoch", False),
    "batches not left out": ("cifar_lightning.data.loader:BatchLoader.load_state_dict", True),
    "sums of the epoch dropped": ("cifar_lightning.models.base:ImageClassifier.on_load_checkpoint", True),
    "curves not put right": ("cifar_lightning.runs.events:repair", False),
}


def disable(target: str) -> None:
    """Takes a function out."""
    wrapped(target, lambda _: lambda *args, **kwargs: None)


@MLP_ALONE
@pytest.mark.parametrize("name", SABOTAGE)
def test_the_comparison_finds_what_is_not_restored(name: str, bench: Bench, rng: random.Random) -> None:
    """The negative control: a run that goes on without one of the things that make it exact."""
    target, midway = SABOTAGE[name]
    target = target if target.startswith("cifar_lightning") else f"cifar_lightning.callbacks.{target}"
    if midway:
        assert bench.once(bench.command(rng), before="tests.faults.points:signal_at", given=22) == 143
    else:
        assert bench.once(bench.command(rng), before="tests.faults.points:arm", given=AHEAD.given()) == -signal.SIGKILL
    assert bench.once(bench.command(rng), before="tests.faults.test_kills:disable", given=target) == 0, bench.said
    assert bench.run
    assert differences(bench.run, bench.whole) != []


VARIANTS = {
    "workers": ["--data.num_workers=2"],
    "accumulated": ["--trainer.accumulate_grad_batches=4"],
    "validated every seventh step": ["--trainer.val_check_interval=7"],
    "validated twice": ["--trainer.val_check_interval=0.5"],
    "validated every other epoch": ["--trainer.check_val_every_n_epoch=2"],
    "part of an epoch": ["--trainer.limit_train_batches=11"],
    "nothing validated": ["--data.val_size=0"],
    "one-cycle sgd": ["--model.schedule=one-cycle", "--model.optimizer=sgd"],
    "early stopping": [
        "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/acc", "--trainer.callbacks.patience=1",
        "--trainer.callbacks.mode=max",
    ],
    "checkpoints of their own": [
        "--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.every_n_train_steps=7",
        "--trainer.callbacks.save_top_k=-1", "--trainer.callbacks.save_on_train_epoch_end=false",
    ],
    "clipped": ["--trainer.gradient_clip_val=0.5"],
    "bfloat16": ["--trainer.precision=bf16-mixed"],
    "a last batch of one": ["--data.train_size=301"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "terminated"])
@pytest.mark.parametrize("name", VARIANTS)
def test_whatever_the_settings(name: str, how: str, nursery: Nursery, tmp_path: Path, rng: random.Random) -> None:
    flags = [*MODELS["mlp"], *FLAGS, *VARIANTS[name]]
    (tmp_path / "whole").mkdir()
    whole = Bench(nursery, flags, tmp_path / "whole")
    assert whole.once(["fit", *flags]) == 0, whole.said
    assert whole.run
    (tmp_path / "work").mkdir()
    bench = Bench(nursery, flags, tmp_path / "work", whole.run)
    if how == "killed":
        assert bench.once(["fit", *flags], before="tests.faults.points:arm", given=AHEAD.given()) == -signal.SIGKILL
    else:
        assert bench.once(["fit", *flags], before="tests.faults.points:signal_at", given=24) == 143
    assert bench.run
    bench.finish(rng)
