"""Killed anywhere, any number of times, a run ends as if nothing had been: the same bits, rows and points."""

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.faults.compare import differences
from tests.faults.processes import MODEL, SAVE, Before, When, at_call, disable, send, start
from tests.faults.resume_users import enter_job

FLAGS = (
    "--data.source=synthetic --data.train_size=300 --data.val_size=200 --data.train_clean_size=100 "
    "--data.batch_size=20 --data.eval_batch_size=50 --model.schedule=cosine "
    "--trainer.max_epochs=3 --trainer.accelerator=cpu --name=run"
)
MODELS = {
    "mlp": "--model=MLP --model.width=16 --data.augment=flip-shift",
    "cnn": "--model=CNN --model.channels=[4,8] --data.augment=flip-shift",
    "whitened_cnn": "--model=WhitenedCNN --model.channels=[4,8] --model.optimizer=muon --model.lr=0.1 "
                    "--data.augment=alternating-flip --data.resolutions=[16,24] "
                    "--trainer.callbacks+=EMAWeightAveraging --trainer.callbacks.decay=0.8",
}  # fmt: skip
VARIANTS = {
    "workers": "--data.num_workers=2",
    "accumulated": "--trainer.accumulate_grad_batches=4",
    "validated every seventh step": "--trainer.val_check_interval=7",
    "validated twice": "--trainer.val_check_interval=0.5",
    "validated every other epoch": "--trainer.check_val_every_n_epoch=2",
    "validated over epochs": "--trainer.check_val_every_n_epoch=null --trainer.val_check_interval=20",
    "accumulated by a schedule": "--trainer.callbacks+=GradientAccumulationScheduler "
                                 "--trainer.callbacks.scheduling={\"0\":2,\"1\":3}",
    "part of an epoch": "--trainer.limit_train_batches=11",
    "nothing validated": "--data.val_size=0",
    "one-cycle sgd": "--model.schedule=one-cycle --model.optimizer=sgd",
    "early stopping": "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor=val/acc "
                      "--trainer.callbacks.patience=1 --trainer.callbacks.mode=max",
    "early stopping between validations": "--trainer.val_check_interval=0.5 --trainer.callbacks+=EarlyStopping "
                                          "--trainer.callbacks.monitor=val/loss --trainer.callbacks.min_delta=9 "
                                          "--trainer.callbacks.patience=7",
    "not before min_epochs": "--trainer.max_epochs=5 --trainer.min_epochs=4 --trainer.callbacks+=EarlyStopping "
                             "--trainer.callbacks.monitor=val/loss --trainer.callbacks.min_delta=0.13 "
                             "--trainer.callbacks.patience=1",
    "steps": "--trainer.max_steps=37",
    "steps of whole epochs": "--trainer.max_steps=30",
    "a time limit": "--trainer.max_time=00:00:10:00",
    "checkpoints of their own": "--trainer.callbacks+=ModelCheckpoint --trainer.callbacks.every_n_train_steps=7 "
                                "--trainer.callbacks.save_top_k=-1 --trainer.callbacks.save_on_train_epoch_end=false",
    "clipped": "--trainer.gradient_clip_val=0.5",
    "bfloat16": "--trainer.precision=bf16-mixed",
    "curves over steps, another logger": "--trainer.log_every_n_steps=2 --trainer.accumulate_grad_batches=2 "
                                         "--trainer.logger=CSVLogger --trainer.logger.save_dir=csv",
    "a rate that was searched": "--trainer.callbacks+=LearningRateFinder --trainer.callbacks.num_training_steps=40",
    "a last batch of one": "--data.train_size=301",
    "overfitting": "--trainer.overfit_batches=12",
    "ddp": "--trainer.strategy=ddp",
    "averaged weights": "--trainer.callbacks+=EMAWeightAveraging --trainer.callbacks.decay=0.9",
    "averaged each epoch": "--trainer.callbacks+=WeightAveraging",
}  # fmt: skip

# What ends a run before its last epoch or may do so within one, and what Lightning keeps or rebuilds by itself.
RISKY = (
    *("early stopping", "early stopping between validations", "not before min_epochs", "steps"),
    *("validated every seventh step", "a time limit", "curves over steps, another logger", "a rate that was searched"),
    *("overfitting", "ddp", "averaged weights", "averaged each epoch"),
)

CALLBACKS, CLI, RUNS = (f"cifar_lightning.{package}" for package in ("callbacks", "cli", "runs"))
OPEN, REPLACE = "pathlib.Path.open", "pathlib.Path.replace"
STEP, VALIDATION = f"{MODEL}.training_step", f"{MODEL}.validation_step"
SAMPLES = f"{CALLBACKS}.tensorboard_extras.TensorBoardExtras.on_train_start"
APPEND = "tensorboard.compat.tensorflow_stub.io.gfile.LocalFileSystem.append"
WRITE_EVENT = "tensorboard.summary.writer.event_file_writer.EventFileWriter.add_event"
EPOCH_END = f"{CALLBACKS}.checkpoints.Checkpoints.on_train_epoch_end"

NIGHTLY = pytest.mark.nightly

# In the middle of the second epoch.
TERMINATED = partial(at_call, STEP, partial(send, signal.SIGTERM), 24)
# In a step that validation follows, where that comes every seventh.
BEFORE_VALIDATION = partial(at_call, STEP, partial(send, signal.SIGTERM), 22)


def killed(target: str, when: When, nth: int = 1, named: str = "") -> Before:
    return partial(at_call, target, partial(send, signal.SIGKILL), nth, named, when)


# Of 15 steps and 6 batches of validation an epoch; what happens each epoch is killed in the second.
IN_FIT = {
    "folder": killed("pathlib.Path.mkdir", "after", named="version_0"),
    "config.yaml missing": killed(f"{CLI}.lightning_cli.SaveConfig.save_config", "before"),
    "config.yaml half": killed(OPEN, "half", named=".config.yaml.tmp"),
    "config.yaml there": killed(f"{CLI}.lightning_cli.SaveConfig.save_config", "after"),
    "data not read": killed("cifar_lightning.data.datamodule.CIFAR10DataModule.setup", "before"),
    "no sample images yet": killed(SAMPLES, "before"),
    "sample images there": killed(SAMPLES, "after"),
    "first step": killed(STEP, "before"),
    "last step of the first epoch": killed(STEP, "after", 15),
    "mid-epoch": killed(STEP, "after", 22),
    "first mid-validation": killed(VALIDATION, "after", 2),
    "mid-validation": killed(VALIDATION, "after", 8),
    "no row yet": killed(f"{CALLBACKS}.history.History.on_train_epoch_end", "before", 2),
    "no row in metrics.csv": killed(f"{RUNS}.metrics_csv.write", "before", 2),
    "metrics.csv half": killed(OPEN, "half", 2, ".metrics.csv.tmp"),
    "metrics.csv ahead of the curves": killed(f"{RUNS}.metrics_csv.write", "after", 2),
    "curves ahead of the checkpoint": killed(SAVE, "before", 2),
    "first metrics.csv, no checkpoint": killed(f"{RUNS}.metrics_csv.write", "after", 1),
    "before the temporary file": killed(OPEN, "before", 2, ".new.ckpt.tmp"),
    "first temporary file half": killed(OPEN, "half", 1, ".new.ckpt.tmp"),
    "temporary file half": killed(OPEN, "half", 2, ".new.ckpt.tmp"),
    "written, not on disk": killed("os.fsync", "before", 10),
    "on disk, not named": killed(REPLACE, "before", 2, ".new.ckpt.tmp"),
    "named, folder not on disk": killed("os.fsync", "before", 11),
    "before the best's link": killed("cifar_lightning.utils.files.link", "before"),
    "linked, not named best": killed("os.link", "after"),
    "after the best's link": killed("cifar_lightning.utils.files.link", "after"),
    "before the last becomes the previous": killed(REPLACE, "before", 1, "last.ckpt"),
    "no last": killed(REPLACE, "after", 1, "last.ckpt"),
    "the new one is last, no one else": killed(REPLACE, "after", 1, "new.ckpt"),
    "after the epoch": killed(EPOCH_END, "after", 2),
    "after the last epoch": killed(EPOCH_END, "after", 3),
    "trained": killed(f"{CALLBACKS}.console.Console.on_fit_end", "before"),
}
# Curves and metrics.csv are an epoch further than the checkpoint: the most there can be to repair.
AHEAD = IN_FIT["curves ahead of the checkpoint"]
IN_RESUME = {
    "chosen": killed(f"{CLI}.starting_point.newest", "after"),
    "before the new event file": killed(WRITE_EVENT, "before", 1),
    "new event file, nothing purged": killed(WRITE_EVENT, "before", 2),
    "purge record half": killed(APPEND, "half", 2),
    "not repaired": killed(f"{CLI}.run_folder.repair", "before"),
    "metrics.csv repaired": killed(f"{RUNS}.metrics_csv.write", "after"),
    "repaired": killed(f"{CLI}.run_folder.repair", "after"),
    "config.yaml half again": killed(OPEN, "half", named=".config.yaml.tmp"),
    "history loaded": killed(f"{CALLBACKS}.history.History.load_state_dict", "after"),
    "generators set": killed(f"{CALLBACKS}.epoch_seed.EpochSeed.on_train_start", "after"),
    "first step again": killed(STEP, "after"),
}
# While a run that was terminated saves where it is.
IN_SAVING = {
    "interrupted half": killed(OPEN, "half", named=".interrupted.ckpt.tmp"),
    "interrupted, not named": killed(REPLACE, "before", named=".interrupted.ckpt.tmp"),
    "interrupted, named": killed(REPLACE, "after", named=".interrupted.ckpt.tmp"),
}
# By name: the processes that are stopped, one after the other, and what is done to each.
POINTS: dict[str, list[tuple[Before, ...]]] = {
    **{name: [(kill,)] for name, kill in IN_FIT.items()},
    **{name: [(AHEAD,), (kill,)] for name, kill in IN_RESUME.items()},
    **{name: [(TERMINATED, kill)] for name, kill in IN_SAVING.items()},
}

# Functions without which a run does not resume exactly; whether it must have been stopped within an epoch to show.
SABOTAGE = {
    "no reseeding": (f"{CALLBACKS}.epoch_seed.EpochSeed.on_train_epoch_start", False),
    "no history": (f"{CALLBACKS}.history.History.load_state_dict", False),
    "generators not restored": (f"{CALLBACKS}.epoch_seed.EpochSeed.load_state_dict", True),
    "epoch zeroed": ("cifar_lightning.data.loader.Batches.set_epoch", False),
    "batches not left out": ("cifar_lightning.data.loader.BatchLoader.load_state_dict", True),
    "sums of the epoch dropped": (f"{MODEL}.on_load_checkpoint", True),
    "curves not purged": (f"{RUNS}.checkpoint.Checkpoint.behind", False),
}

# By flags: the folder of the run that was never interrupted; and that of one that was once, also by where.
WHOLE: dict[str, Path] = {}
STOPPED: dict[tuple[str, Sequence[Before]], Path] = {}


@dataclass
class Bench:
    """A run of one model, again and again in its own folder until it is done."""

    flags: str
    folder: Path
    rng: random.Random  # chooses between the ways to resume

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
            child.process.join(kill[0])
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, kill[1])
        status, output = child.run()
        print(args[1:3], befores, kill, status, output)  # shown if the test fails
        assert "Traceback" not in output
        return status

    def stop(self, *befores: Before) -> "Bench":
        """Run until a kill or a SIGTERM, which must come; from the start to the same place once for all."""
        begins, place = self.run == self.folder, (self.flags, befores)
        if begins and place in STOPPED:
            shutil.copytree(STOPPED[place], self.folder, dirs_exist_ok=True)
            return self
        terminated = befores in ((TERMINATED,), (BEFORE_VALIDATION,))
        assert self.once(*befores) == (143 if terminated else -signal.SIGKILL), "was not reached"
        if begins and befores in ((AHEAD,), (TERMINATED,)):  # where others begin, too
            STOPPED[place] = Path(shutil.copytree(self.folder, self.folder.with_name(f"{self.folder.name}-stopped")))
        return self

    def finish(self) -> None:
        """Resume until the run is done, and compare it."""
        assert self.once() == 0
        assert differences(self.run, WHOLE[self.flags]) == []


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
AT_POINTS = [pytest.param(POINTS[name], id=name, marks=() if name in FEW else pytest.mark.slow) for name in POINTS]


@pytest.mark.parametrize("model", ["mlp", *(pytest.param(name, marks=NIGHTLY) for name in ("cnn", "whitened_cnn"))])
@pytest.mark.parametrize("stops", AT_POINTS)
def test_killed_at_a_point(model: str, stops: list[tuple[Before, ...]], begin: Callable[..., Bench]) -> None:
    bench = begin(model)
    for befores in stops:
        bench.stop(*befores)
    bench.finish()


def test_there_are_47_points() -> None:
    assert len(POINTS) == 47


AT_RANDOM = [*((model, "") for model in MODELS), *(pytest.param("mlp", name, marks=NIGHTLY) for name in RISKY)]


@pytest.mark.parametrize(("model", "settings"), AT_RANDOM)
def test_killed_at_random_moments(
    model: str, settings: str, begin: Callable[..., Bench], request: pytest.FixtureRequest
) -> None:
    begin = partial(begin, settings=VARIANTS.get(settings, ""))
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
            assert status in (0, -signal.SIGKILL, 130, 143, -signal.SIGINT, -signal.SIGTERM)
            if status == 0:
                break
            kills += 1
        bench.finish()


def test_a_slurm_job_ends_the_same(begin: Callable[..., Bench], request: pytest.FixtureRequest) -> None:
    """Whether its time is over (SIGUSR1) or its node is gone, the requeued job gives the same command again."""
    begin("mlp").finish()
    kills, signums = 0, [signal.SIGUSR1, signal.SIGUSR1, signal.SIGKILL]
    while kills < int(request.config.getoption("kills")):
        bench, status = begin("mlp"), 1
        while status:
            child = start(bench.folder, ["fit", *bench.flags.split()], enter_job)
            # Each further run gets longer, so that it ends.
            child.process.join(bench.rng.uniform(0, 2 + kills % 5))
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, bench.rng.choice(signums))
            status, output = child.run()
            kills += status != 0
            assert status in (0, -signal.SIGKILL, -signal.SIGUSR1, 128 + signal.SIGUSR1), output
        (bench.run / "slurm_job.json").unlink()
        assert differences(bench.run, WHOLE[bench.flags]) == []


@pytest.mark.parametrize(("target", "midway"), SABOTAGE.values(), ids=SABOTAGE)
def test_the_comparison_finds_what_is_not_restored(target: str, midway: bool, begin: Callable[..., Bench]) -> None:
    """The negative control: a run that resumes without one of the things that make it exact."""
    bench = begin("mlp").stop(TERMINATED if midway else AHEAD)
    assert bench.once(partial(disable, target)) == 0
    assert differences(bench.run, WHOLE[bench.flags]) != []


STOPS = [
    pytest.param(AHEAD, id="killed", marks=pytest.mark.slow),
    pytest.param(TERMINATED, id="terminated", marks=pytest.mark.nightly),
    pytest.param(BEFORE_VALIDATION, id="terminated before a validation", marks=pytest.mark.nightly),
]


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("name", VARIANTS)
def test_stopped_whatever_the_settings(stop: Before, name: str, begin: Callable[..., Bench]) -> None:
    begin("mlp", VARIANTS[name]).stop(stop).finish()


@pytest.mark.nightly
def test_terminated_compiled(begin: Callable[..., Bench]) -> None:
    begin("cnn", "--model.compile=true").stop(TERMINATED).finish()
