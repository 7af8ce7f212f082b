"""Killed anywhere, any number of times, a run ends as if nothing had been: the same bits, rows and points."""

import contextlib
import functools
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.faults import children, processes
from tests.faults.compare import differences
from tests.faults.points import AHEAD, POINTS, SABOTAGE, TERMINATED, Point
from tests.faults.processes import Before, nothing

FLAGS = [
    "--data.source=synthetic", "--data.train_size=300", "--data.val_size=200", "--data.train_clean_size=100",
    "--data.batch_size=20", "--data.eval_batch_size=50", "--data.augment=flip-shift", "--model.schedule=cosine",
    "--trainer.max_epochs=3", "--trainer.accelerator=cpu", "--name=run",
]  # fmt: skip
MODELS = {"mlp": ["--model=MLP", "--model.width=16"], "cnn": ["--model=CNN", "--model.channels=[4,8]"]}
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

# How a run may end here: done, killed, Ctrl-C, SIGTERM; a signal may also come before Python handles it.
ENDS = (0, -signal.SIGKILL, 130, 143, -signal.SIGINT, -signal.SIGTERM)


@dataclass
class Bench:
    """A run of one model, again and again in its own folder until it is done."""

    flags: list[str]
    folder: Path
    whole: Path  # the folder of the same run, never interrupted
    rng: random.Random  # chooses between the ways to resume
    said: list[str] = field(default_factory=list)  # the output of each command

    @property
    def run(self) -> Path | None:
        """The newest run, if its folder tells what it is."""
        versions = sorted((self.folder / "logs/run-synthetic").glob("version_*"))
        return versions[-1] if versions and (versions[-1] / "config.yaml").exists() else None

    def command(self) -> list[str]:
        """Return one of the two ways to resume, or to begin."""
        run = self.run
        # Without a checkpoint `last` would begin in a new folder.
        if run and (self.rng.random() < 0.5 or not any(run.glob("checkpoints/*.ckpt"))):
            return ["fit", "--resume", str(run.relative_to(self.folder))]
        return ["fit", *self.flags, "--ckpt_path=last"]

    def once(self, before: Before = nothing, kill: tuple[float, int] | None = None) -> int:
        """Run once; `kill` is after how many seconds, and the signal."""
        command = self.command()
        child = processes.start(self.folder, command, before)
        if kill:
            time.sleep(kill[0])
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, kill[1])
        status, output = child.run()
        self.said.append(f"{command[1:3]} {before} {kill}: {status}\n{output}")
        assert "Traceback" not in output, self.said
        return status

    def stop(self, before: Before) -> None:
        """Run until a kill or a SIGTERM, which must come."""
        expected = 143 if before == TERMINATED else -signal.SIGKILL
        assert self.once(before) == expected, f"{before} was not reached: {self.said}"

    def differences(self) -> list[str]:
        assert self.run
        return differences(self.run, self.whole)

    def finish(self) -> None:
        """Resume until the run is done, and compare it."""
        assert self.once() == 0, self.said
        assert self.differences() == [], self.said


Begin = Callable[[list[str]], Bench]


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Trains without interruption, once with each flags."""

    @functools.cache
    def train(*flags: str) -> Path:
        folder = tmp_path_factory.mktemp("whole")
        status, output = processes.start(folder, ["fit", *flags]).run()
        assert status == 0, output
        return folder / "logs/run-synthetic/version_0"

    return train


@pytest.fixture
def begin(whole: Callable[..., Path], tmp_path: Path, request: pytest.FixtureRequest) -> Begin:
    """Makes an empty folder for a run."""
    # The same moments again with the seed that stands in the header.
    rng = random.Random(f"{request.config.getoption('kill_seed')} {request.node.name}")

    def make(flags: list[str]) -> Bench:
        folder = tmp_path / f"work-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        return Bench(flags, folder, whole(*flags), rng)

    return make


def kill_at(point: Point, bench: Bench) -> None:
    if point.during == "resume":
        bench.stop(AHEAD.arm)
    bench.stop(point.arm)
    bench.finish()


FEW = ("config.yaml half", "mid-epoch", "temporary file half", "no last", "repaired", "interrupted, named")
AT_POINTS = [pytest.param(p, id=p.name, marks=[] if p.name in FEW else [pytest.mark.slow]) for p in POINTS]


@pytest.mark.parametrize("point", AT_POINTS)
def test_killed_at_a_point(point: Point, begin: Begin) -> None:
    kill_at(point, begin([*MODELS["mlp"], *FLAGS]))


@pytest.mark.nightly
@pytest.mark.parametrize("point", AT_POINTS)
def test_a_convolutional_network_killed_at_a_point(point: Point, begin: Begin) -> None:
    kill_at(point, begin([*MODELS["cnn"], *FLAGS]))


def test_each_of_47_points_has_its_name() -> None:
    assert len({point.name for point in POINTS}) == len(POINTS) == 47


@pytest.mark.parametrize("model", MODELS)
def test_killed_at_random_moments(
    model: str, begin: Begin, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    flags = [*MODELS[model], *FLAGS]
    uninterrupted, start = begin(flags), time.monotonic()
    uninterrupted.finish()
    seconds = time.monotonic() - start
    kills = 0
    while kills < int(request.config.getoption("kills")):
        bench = begin(flags)
        for _ in range(bench.rng.randint(1, 4)):
            # Most often what no process can answer.
            signum = bench.rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
            status = bench.once(kill=(bench.rng.uniform(0, seconds), signum))
            assert status in ENDS, bench.said
            if status == 0:
                break
            kills += 1
        bench.finish()
    record_property("kills", kills)


@pytest.mark.parametrize("name", SABOTAGE)
def test_the_comparison_finds_what_is_not_restored(name: str, begin: Begin) -> None:
    """The negative control: a run that resumes without one of the things that make it exact."""
    target, midway = SABOTAGE[name]
    bench = begin([*MODELS["mlp"], *FLAGS])
    bench.stop(TERMINATED if midway else AHEAD.arm)
    assert bench.once(partial(children.disable, target)) == 0, bench.said
    assert bench.differences() != []


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_killed_whatever_the_settings(name: str, begin: Begin) -> None:
    bench = begin([*MODELS["mlp"], *FLAGS, *VARIANTS[name]])
    bench.stop(AHEAD.arm)
    bench.finish()


@pytest.mark.nightly
@pytest.mark.parametrize("name", VARIANTS)
def test_terminated_whatever_the_settings(name: str, begin: Begin) -> None:
    bench = begin([*MODELS["mlp"], *FLAGS, *VARIANTS[name]])
    bench.stop(TERMINATED)
    bench.finish()
