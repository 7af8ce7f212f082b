"""Killed anywhere, any number of times, a run ends as if nothing had been: the same bits, rows and points."""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

from tests.faults.compare import differences
from tests.faults.processes import MODEL, Before, When, at_call, disable, send, start

FLAGS = (
    "--data.source=synthetic --data.train_size=300 --data.val_size=200 --data.train_clean_size=100 "
    "--data.batch_size=20 --data.eval_batch_size=50 --data.augment=flip-shift --model.schedule=cosine "
    "--trainer.max_epochs=3 --trainer.accelerator=cpu --name=run"
)
MODELS = {"mlp": "--model=MLP --model.width=16", "cnn": "--model=CNN --model.channels=[4,8]"}
VARIANTS = {
    "workers": "--data.num_workers=2",
    "accumulated": "--trainer.accumulate_grad_batches=4",
    "validated every seventh step": "--trainer.val_check_interval=7",
    "validated twice": "--trainer.val_check_interval=0.5",
    "validated every other epoch": "--trainer.check_val_every_n_epoch=2",
    "part of an epoch": "--trainer.limit_train_batches=11",
    "nothing validated": "--data.val_size=0",
    "one-cycle sgd": "--model.schedule=one-cycle --model.optimizer=sgd",
    "early stopping": "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor=val/acc "
                      "--trainer.callbacks.patience=1 --trainer.callbacks.mode=max",
    "checkpoints of their own": "--trainer.callbacks+=ModelCheckpoint --trainer.callbacks.every_n_train_steps=7 "
                                "--trainer.callbacks.save_top_k=-1 --trainer.callbacks.save_on_train_epoch_end=false",
    "clipped": "--trainer.gradient_clip_val=0.5",
    "bfloat16": "--trainer.precision=bf16-mixed",
    "a last batch of one": "--data.train_size=301",
}  # fmt: skip

CALLBACKS, CLI, RUNS = (f"cifar_lightning.{package}" for package in ("callbacks", "cli", "runs"))
OPEN, REPLACE = "pathlib.Path.open", "pathlib.Path.replace"
STEP, VALIDATION = f"{MODEL}.training_step", f"{MODEL}.validation_step"
SAMPLES = f"{CALLBACKS}.tensorboard.TensorBoardExtras.on_train_start"
APPEND = "tensorboard.compat.tensorflow_stub.io.gfile.LocalFileSystem.append"
WRITE_EVENT = "tensorboard.summary.writer.event_file_writer.EventFileWriter.add_event"
EPOCH_END = f"{CALLBACKS}.checkpoints.Checkpoints.on_train_epoch_end"

# In the middle of the second epoch.
TERMINATED = partial(at_call, STEP, partial(send, signal.SIGTERM), 24)


class Point(NamedTuple):
    """A place in the program where a run is killed, as `at_call` has it."""

    name: str  # unique
    target: str
    when: When
    nth: int = 1
    named: str = ""
    during: Literal["fit", "resume", "interrupt"] = "fit"  # a new run; one that resumes; one that saves after SIGTERM

    @property
    def kill(self) -> Before:
        return partial(at_call, self.target, partial(send, signal.SIGKILL), self.nth, self.named, self.when)


# Of 15 steps and 6 batches of validation an epoch; what happens each epoch is killed in the second.
POINTS = [
    Point("folder", "pathlib.Path.mkdir", "after", named="version_0"),
    Point("config.yaml missing", f"{CLI}.lightning_cli.SaveConfig.save_config", "before"),
    Point("config.yaml half", OPEN, "half", named=".config.yaml.tmp"),
    Point("config.yaml there", f"{CLI}.lightning_cli.SaveConfig.save_config", "after"),
    Point("data not read", "cifar_lightning.data.datamodule.CIFAR10DataModule.setup", "before"),
    Point("no sample images yet", SAMPLES, "before"),
    Point("sample images there", SAMPLES, "after"),
    Point("first step", STEP, "before"),
    Point("last step of the first epoch", STEP, "after", 15),
    Point("mid-epoch", STEP, "after", 22),
    Point("first mid-validation", VALIDATION, "after", 2),
    Point("mid-validation", VALIDATION, "after", 8),
    Point("no row yet", f"{CALLBACKS}.history.History.on_train_epoch_end", "before", 2),
    Point("no row in metrics.csv", f"{RUNS}.metrics_csv.write", "before", 2),
    Point("metrics.csv half", OPEN, "half", 2, ".metrics.csv.tmp"),
    Point("metrics.csv ahead of the curves", f"{RUNS}.metrics_csv.write", "after", 2),
    Point("curves ahead of the checkpoint", EPOCH_END, "before", 2),
    Point("first metrics.csv, no checkpoint", f"{RUNS}.metrics_csv.write", "after", 1),
    Point("before the temporary file", OPEN, "before", 2, ".new.ckpt.tmp"),
    Point("first temporary file half", OPEN, "half", 1, ".new.ckpt.tmp"),
    Point("temporary file half", OPEN, "half", 2, ".new.ckpt.tmp"),
    Point("written, not on disk", "os.fsync", "before", 10),
    Point("on disk, not named", REPLACE, "before", 2, ".new.ckpt.tmp"),
    Point("named, folder not on disk", "os.fsync", "before", 11),
    Point("before the best's link", "cifar_lightning.utils.files.link", "before"),
    Point("linked, not named best", "os.link", "after"),
    Point("after the best's link", "cifar_lightning.utils.files.link", "after"),
    Point("before the last becomes the previous", REPLACE, "before", 1, "last.ckpt"),
    Point("no last", REPLACE, "after", 1, "last.ckpt"),
    Point("the new one is last, no one else", REPLACE, "after", 1, "new.ckpt"),
    Point("after the epoch", EPOCH_END, "after", 2),
    Point("after the last epoch", EPOCH_END, "after", 3),
    Point("trained", f"{CALLBACKS}.console.Console.on_fit_end", "before"),
    Point("chosen", f"{CLI}.starting_point.newest", "after", during="resume"),
    Point("before the new event file", WRITE_EVENT, "before", 1, during="resume"),
    Point("new event file, nothing purged", WRITE_EVENT, "before", 2, during="resume"),
    Point("purge record half", APPEND, "half", 2, during="resume"),
    Point("purged, not repaired", f"{CLI}.lightning_cli.repair", "before", during="resume"),
    Point("metrics.csv repaired", f"{RUNS}.metrics_csv.write", "after", during="resume"),
    Point("repaired", f"{CLI}.lightning_cli.repair", "after", during="resume"),
    Point("config.yaml half again", OPEN, "half", named=".config.yaml.tmp", during="resume"),
    Point("history loaded", f"{CALLBACKS}.history.History.load_state_dict", "after", during="resume"),
    Point("generators set", f"{CALLBACKS}.epoch_seed.EpochSeed.on_train_start", "after", during="resume"),
    Point("first step again", STEP, "after", during="resume"),
    Point("interrupted half", OPEN, "half", named=".interrupted.ckpt.tmp", during="interrupt"),
    Point("interrupted, not named", REPLACE, "before", named=".interrupted.ckpt.tmp", during="interrupt"),
    Point("interrupted, named", REPLACE, "after", named=".interrupted.ckpt.tmp", during="interrupt"),
]

# Curves and metrics.csv are an epoch further than the checkpoint: the most there can be to repair.
AHEAD = next(point for point in POINTS if point.name == "curves ahead of the checkpoint").kill

# Functions without which a run does not resume exactly; whether it must have been stopped within an epoch to show.
SABOTAGE = {
    "no reseeding": (f"{CALLBACKS}.epoch_seed.EpochSeed.on_train_epoch_start", False),
    "no history": (f"{CALLBACKS}.history.History.load_state_dict", False),
    "generators not restored": (f"{CALLBACKS}.epoch_seed.EpochSeed.load_state_dict", True),
    "epoch zeroed": ("cifar_lightning.data.loader.Batches.set_epoch", False),
    "batches not left out": ("cifar_lightning.data.loader.BatchLoader.load_state_dict", True),
    "sums of the epoch dropped": (f"{MODEL}.on_load_checkpoint", True),
    "curves not purged": (f"{CLI}.lightning_cli.purge_step", False),
}

# By flags: the folder of the run that was never interrupted.
WHOLE: dict[str, Path] = {}


@dataclass
class Bench:
    """A run of one model, again and again in its own folder until it is done."""

    flags: str
    folder: Path
    rng: random.Random  # chooses between the ways to resume
    said: list[str] = field(default_factory=list)  # the output of each command

    @property
    def run(self) -> Path:
        return max(self.folder.glob("logs/run-synthetic/version_*"), default=self.folder)

    def once(self, *befores: Before, kill: tuple[float, int] | None = None) -> int:
        """Run once, or resume in one of two ways; `kill` is after how many seconds, and the signal."""
        run, args = self.run, ["fit", *self.flags.split(), "--ckpt_path=last"]
        # Without config.yaml a folder does not tell what it is; without a checkpoint `last` would begin in a new one.
        if (run / "config.yaml").exists() and (self.rng.random() < 0.5 or not any(run.glob("checkpoints/*.ckpt"))):
            args = ["fit", "--resume", str(run.relative_to(self.folder))]
        child = start(self.folder, args, *befores)
        if kill:
            time.sleep(kill[0])
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, kill[1])
        status, output = child.run()
        self.said.append(f"{args[1:3]} {befores} {kill}: {status}\n{output}")
        assert "Traceback" not in output, self.said
        return status

    def stop(self, *befores: Before) -> "Bench":
        """Run until a kill or a SIGTERM, which must come."""
        expected = 143 if befores == (TERMINATED,) else -signal.SIGKILL
        assert self.once(*befores) == expected, f"{befores} was not reached: {self.said}"
        return self

    def finish(self) -> None:
        """Resume until the run is done, and compare it."""
        assert self.once() == 0, self.said
        assert differences(self.run, WHOLE[self.flags]) == [], self.said


@pytest.fixture
def begin(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Callable[..., Bench]:
    """Makes an empty folder for a run of a model, with settings of its own."""
    # The same moments again with the seed that stands in the header.
    rng = random.Random(f"{request.config.getoption('kill_seed')} {request.node.name}")

    def make(model: str, settings: str = "") -> Bench:
        flags = f"{MODELS[model]} {FLAGS} {settings}"
        if flags not in WHOLE:
            folder = tmp_path_factory.mktemp("whole")
            status, output = start(folder, ["fit", *flags.split()]).run()
            assert status == 0, output
            WHOLE[flags] = folder / "logs/run-synthetic/version_0"
        return Bench(flags, tmp_path_factory.mktemp("work"), rng)

    return make


FEW = ("config.yaml half", "mid-epoch", "temporary file half", "no last", "repaired", "interrupted, named")
AT_POINTS = [pytest.param(p, id=p.name, marks=() if p.name in FEW else pytest.mark.slow) for p in POINTS]


@pytest.mark.parametrize("model", ["mlp", pytest.param("cnn", marks=pytest.mark.nightly)])
@pytest.mark.parametrize("point", AT_POINTS)
def test_killed_at_a_point(model: str, point: Point, begin: Callable[..., Bench]) -> None:
    bench = begin(model)
    if point.during == "resume":
        bench.stop(AHEAD)
    bench.stop(*[TERMINATED] * (point.during == "interrupt"), point.kill).finish()


def test_each_of_47_points_has_its_name() -> None:
    assert len({point.name for point in POINTS}) == len(POINTS) == 47


@pytest.mark.parametrize("model", MODELS)
def test_killed_at_random_moments(model: str, begin: Callable[..., Bench], request: pytest.FixtureRequest) -> None:
    uninterrupted, started = begin(model), time.monotonic()
    uninterrupted.finish()
    seconds = time.monotonic() - started
    kills = 0
    while kills < int(request.config.getoption("kills")):
        bench = begin(model)
        for _ in range(bench.rng.randint(1, 4)):
            # Most often what no process can answer.
            signum = bench.rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
            status = bench.once(kill=(bench.rng.uniform(0, seconds), signum))
            # Done, killed, Ctrl-C, SIGTERM; a signal may also come before Python handles it.
            assert status in (0, -signal.SIGKILL, 130, 143, -signal.SIGINT, -signal.SIGTERM), bench.said
            if status == 0:
                break
            kills += 1
        bench.finish()


@pytest.mark.parametrize(("target", "midway"), SABOTAGE.values(), ids=SABOTAGE)
def test_the_comparison_finds_what_is_not_restored(target: str, midway: bool, begin: Callable[..., Bench]) -> None:
    """The negative control: a run that resumes without one of the things that make it exact."""
    bench = begin("mlp").stop(TERMINATED if midway else AHEAD)
    assert bench.once(partial(disable, target)) == 0, bench.said
    assert differences(bench.run, WHOLE[bench.flags]) != []


STOPS = [
    pytest.param(AHEAD, id="killed", marks=pytest.mark.slow),
    pytest.param(TERMINATED, id="terminated", marks=pytest.mark.nightly),
]


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("name", VARIANTS)
def test_stopped_whatever_the_settings(stop: Before, name: str, begin: Callable[..., Bench]) -> None:
    begin("mlp", VARIANTS[name]).stop(stop).finish()
