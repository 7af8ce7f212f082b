"""Disks that are full or read only, folders that two processes want, memory that runs out, divergence, signals."""

import errno
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cifar_lightning.models import ImageClassifier
from cifar_lightning.runs.checkpoint import load, read_checkpoint
from tests.faults import children, processes
from tests.faults.children import GO, HERE, MODEL, SAVE
from tests.faults.steps import both, damaged, removed, resumes, written
from tests.faults.table import BEST, FIT, LAST, NEW, NEW_RUN, OLD_RUN, RESUME, RUN, Fault, Place, Step, crossed, nothing

PREDICT, TEST = f"predict --ckpt_path={BEST}", f"test --ckpt_path={BEST}"
PREDICTIONS = f"{RUN}/predictions.csv"
EVENTS = (f"{RUN}/events.*",)
FREE = "free some space"


def full(name: str, nth: int, most_bytes: int, *says: str, command: str = FIT, **more: Any) -> Fault:
    """Return the row of a disk that is full from the nth checkpoint on, 0 from the start."""
    more = {"changes": NEW_RUN, "child": partial(children.full_disk, nth, most_bytes), **more}
    return Fault(name, command, 1, says, **more)


def loads(place: Place) -> None:
    """Assert that the checkpoint of the epoch before still loads, and the run resumes from it."""
    assert read_checkpoint(place.folder / NEW / "checkpoints/last.ckpt").epochs == 1
    resumes(NEW)(place)


def no_space(place: Place) -> None:
    """Raise the real errno of a full disk where a file is made durable; as from a write, without a file's name."""
    place.patch.setattr(os, "fsync", raising(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))


def raising(error: Exception) -> Callable[..., None]:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    return fail


def read_only(*names: str) -> Step:
    def make(place: Place) -> None:
        for name in names:
            (place.folder / name).mkdir(exist_ok=True)
            (place.folder / name).chmod(0o555)

    return make


def denied(name: str, command: str, status: int, *says: str, make: Step, then: Step = nothing) -> Fault:
    return Fault(name, command, status, says, make, then=then, child=children.nobody)


def beside(command: str, target: str, named: str = "") -> Step:
    """Start another process, which comes to a function and waits there until the row is over."""

    def make(place: Place) -> None:
        child = processes.start(place.folder, command.split(), partial(children.pause, target, named))

        def end() -> None:
            (place.folder / GO).touch()
            place.words["other"] = str(child.run()[0])

        place.stack.callback(end)
        child.wait_for(place.folder / HERE)

    return make


def other_is_whole(*runs: str) -> Step:
    """Return the check that the process that was first ends as if there had been no second."""

    def check(place: Place) -> None:
        place.stack.close()
        assert place.words["other"] == "0"
        for run in runs:
            place.check_whole(run)

    return check


# As PyTorch 2.15 words it.
CPU = "[enforce fail at alloc_cpu.cpp:128] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to " \
    "allocate 614400000000 bytes. Error code 12 (Cannot allocate memory)"  # fmt: skip
CUDA = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 7.79 GiB of which 3.06 MiB " \
    "is free.\nProcess 1 has 7.70 GiB memory in use."  # fmt: skip
MPS = "MPS backend out of memory (MPS allocated: 9.05 GB, other allocations: 7.05 MB, max allowed: 9.07 GB). Tried " \
    "to allocate 25.00 MB on private pool. Use PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 to disable upper limit for " \
    "memory allocations (may cause system failure)."  # fmt: skip


def memory(name: str, error: Exception, step: str = "training", command: str = FIT) -> Fault:
    """Return the row of memory that runs out in a step."""
    key = "data.batch_size" if step == "training" else "data.eval_batch_size"
    changes = NEW_RUN if command == FIT else EVENTS
    fail = raising(error)

    def make(place: Place) -> None:
        place.patch.setattr(ImageClassifier, f"{step}_step", fail)

    return Fault(name, command, 1, (key, "do not fit in memory"), make, changes)


def at_step(method: str, nth: int, act: Callable[[ImageClassifier, Any], Any]) -> Step:
    """Have the nth call of a method of the model return what `act` makes of the model and the result."""

    def make(place: Place) -> None:
        function, calls = getattr(ImageClassifier, method), 0

        def counting(self: ImageClassifier, *args: Any) -> Any:
            nonlocal calls
            calls += 1
            result = function(self, *args)
            return act(self, result) if calls == nth else result

        place.patch.setattr(ImageClassifier, method, counting)

    return make


def loss(value: float, nth: int) -> Step:
    return at_step("training_step", nth, lambda model, loss: loss * value)


def weights(value: float, nth: int) -> Step:
    """Put a number into the weights after a step whose loss is finite."""

    def act(model: ImageClassifier, result: None) -> None:
        with torch.no_grad():
            next(model.parameters()).view(-1)[0] = value

    return at_step("optimizer_step", nth, act)


def finite(place: Place) -> None:
    """Assert that the checkpoints of the epoch before are kept and finite, and that the run resumes from them."""
    checkpoints = sorted((place.folder / NEW / "checkpoints").iterdir())
    assert checkpoints
    for path in checkpoints:
        content = load(path)
        assert content["global_step"] == 4
        assert all(bool(x.isfinite().all()) for x in content["state_dict"].values())
    resumes(NEW)(place)


def nothing_kept(place: Place) -> None:
    """Assert that nothing is kept where no epoch was finished."""
    assert list((place.folder / NEW).glob("checkpoints/*")) == []


def old_stands(place: Place) -> None:
    """Assert that the checkpoints of a run that resumed are as they were."""
    for path in (place.whole / "checkpoints").iterdir():
        assert (place.folder / RUN / "checkpoints" / path.name).read_bytes() == path.read_bytes()


def diverges(name: str, make: Step, *says: str, then: Step = finite, command: str = FIT) -> Fault:
    changes = NEW_RUN if command.startswith(FIT) else OLD_RUN
    return Fault(name, command, 1, ("learning rate", "--model.lr", *says), make, changes, then=then)


# Function, and which call of it (four steps and two batches of validation an epoch).
STAGES = {
    "*mid-epoch": (f"{MODEL}.training_step", 6),
    "in the first epoch": (f"{MODEL}.training_step", 2),
    "at the last step of an epoch": (f"{MODEL}.training_step", 4),
    "in validation": (f"{MODEL}.validation_step", 1),
    "while saving": (SAVE, 1),
    "while writing metrics.csv": ("cifar_lightning.runs.metrics_csv:write", 1),
}
EARLY = {
    "*in parsing": ("cifar_lightning.cli.lightning_cli:CLI.before_instantiate_classes", 1),
    "in setup": ("cifar_lightning.data.datamodule:CIFAR10DataModule.setup", 1),
}
EVALUATIONS = {
    "*in a test": ((f"{MODEL}.test_step", 2), TEST, EVENTS),
    "in predictions": ((f"{MODEL}.predict_step", 2), PREDICT, ()),
}
SAVED = "resume with: python -m cifar_lightning fit --resume"
SIGNALS = {"*SIGINT": (signal.SIGINT,), "*SIGTERM": (signal.SIGTERM,)}
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}


def stopped(name: str, at: tuple[str, int], signums: tuple[signal.Signals, ...], *says: str, **more: Any) -> Fault:
    """Return the row of signals at the nth call of a function; a second one kills."""
    status, said = (STATUS[signums[0]], (signums[0].name,)) if len(signums) == 1 else (-signal.SIGINT, ())
    child = partial(children.signals, *at, signums)
    more = {"command": FIT, "changes": NEW_RUN, "then": resumes(NEW), **more}
    return Fault(name, status=status, says=(*said, *says), child=child, **more)


def nothing_half(place: Place) -> None:
    """Assert that a run that was stopped before it began can be begun, if it left a folder at all."""
    if (place.folder / NEW / "config.yaml").exists():
        resumes(NEW)(place)


TABLE = {
    "disk full: durable writes": [
        full("disk full at the first checkpoint", 1, 20_000, NEW, "checkpoints", FREE, then=resumes(NEW)),
        full("*disk full at the second checkpoint", 2, 20_000, NEW, "checkpoints", FREE, then=loads),
        full("disk full from the start", 0, 1000, NEW),
        full("disk full once config.yaml is there", 0, 10_000, "disk", FREE, then=resumes(NEW)),
        full("disk full where a run resumes", 1, 20_000, RUN, "checkpoints", FREE, command=RESUME, changes=OLD_RUN,
             make=damaged(removed, LAST), then=resumes(RUN)),
        full("old predictions on a full disk", 0, 3000, PREDICTIONS, command=PREDICT, changes=(),
             make=written(PREDICTIONS, "file,class\nold.png,cat\n")),
        Fault("no space left for a checkpoint", FIT, 1, (NEW, "No space left", FREE), no_space, NEW_RUN),
        Fault("*no space left for predictions", PREDICT, 1, (PREDICTIONS, "No space left"), no_space),
        Fault("no space left for test.json", TEST, 1, (RUN, "No space left"), no_space, EVENTS),
    ],
    "no right to write: file system": [
        denied("*runs can't be written", FIT, 2, "logs", "written to", make=read_only("logs/mlp-synthetic")),
        denied("no folder for logs", f"{FIT} --logs=new", 2, "logs", "written to", make=read_only(".")),
        denied("logs read only", f"{FIT} --logs=other", 2, "other", "written to", make=read_only("other")),
        denied("predictions can't be written", PREDICT, 1, PREDICTIONS, "denied", make=read_only(RUN)),
        denied("test.json can't be written", TEST, 1, RUN, "denied", make=read_only(RUN)),
        denied("a run that can't be written to resumes", RESUME, 1, RUN, "denied", then=resumes(RUN),
               make=both(damaged(removed, LAST), read_only(RUN, f"{RUN}/checkpoints"))),
    ],
    "no folder to write into: file system": [
        Fault("logs is a file", f"{FIT} --logs=a.txt", 2, ("logs", "a.txt"), written("a.txt", "hello")),
        Fault("*logs below a file", f"{FIT} --logs=a.txt/b", 2, ("a.txt",), written("a.txt", "hello")),
        Fault("logs is a dangling link", f"{FIT} --logs=link", 2, ("link",),
              lambda place: Path("link").symlink_to("nowhere")),
        Fault("logs too long a name", f"{FIT} --logs={'a' * 300}", 2, ("aaa",)),
        Fault("the name's folder is a file", f"{FIT} --name=x", 2, ("logs/x-synthetic",),
              written("logs/x-synthetic", "hello")),
        Fault("predictions is a folder", PREDICT, 1, (PREDICTIONS,), lambda place: Path(PREDICTIONS).mkdir()),
    ],
    "two processes want a folder: lock": [
        Fault("*another process resumes the run", RESUME, 2, (RUN, "another process"),
              both(damaged(removed, LAST), beside(RESUME, f"{MODEL}.training_step")), then=other_is_whole(RUN)),
        Fault("another process trains from the checkpoint", f"fit --ckpt_path={LAST} --trainer.max_epochs=3", 2,
              (RUN, "another process"), beside(f"{RESUME} --trainer.max_epochs=4", f"{MODEL}.training_step"),
              then=other_is_whole()),
        Fault("*two runs at once", FIT, 0, (), beside(FIT, "pathlib:Path.mkdir", "version_1"), NEW_RUN,
              then=other_is_whole(RUN, NEW, "logs/mlp-synthetic/version_2")),
    ],
    "memory runs out: error messages": [
        memory("*memory of the CPU", RuntimeError(CPU)),
        memory("memory of CUDA", torch.OutOfMemoryError(CUDA)),
        memory("memory of MPS", RuntimeError(MPS)),
        memory("memory of Python", MemoryError()),
        memory("memory in validation", RuntimeError(CPU), "validation"),
        memory("memory in a test", RuntimeError(CUDA), "test", TEST),
        memory("memory in predictions", RuntimeError(MPS), "predict", PREDICT),
        Fault("memory really", f"{FIT} --data.train_size=40000 --data.batch_size=40000", 1,
              ("data.batch_size", "40000 images do not fit in memory", "--data.batch_size 20000"), changes=NEW_RUN,
              child=partial(children.little_memory, 400)),
        Fault("memory of a model too wide", f"{FIT} --model.width=1000000", 1, ("model: ", "memory"),
              child=partial(children.little_memory, 400)),
        Fault("memory beyond every number", f"{FIT} --model.width={10**30}", 2, ("model.width",)),
    ],
    "numbers run away: divergence check": [
        diverges("lr of 1e30", nothing, then=nothing_kept, command=f"{FIT} --model.batch_norm=false --model.lr=1e30"),
        diverges("NaN in the first epoch", loss(float("nan"), 2), "train/loss", "nan at step 2", then=nothing_kept),
        diverges("*NaN in the second epoch", loss(float("nan"), 6), "train/loss", "nan at step 2"),
        diverges("infinity in the second epoch", loss(float("inf"), 7), "train/loss", "inf"),
        diverges("*weights alone in the second epoch", weights(float("nan"), 8), "not finite"),
        diverges("weights alone in the first epoch", weights(float("inf"), 4), "not finite", then=nothing_kept),
        diverges("NaN where a run resumes", loss(float("nan"), 2), "train/loss", "last.ckpt", then=old_stands,
                 command=f"{RESUME} --trainer.max_epochs=3"),
    ],
    "a signal in training: saved": [
        stopped(crossed(name, stage), at, signums, SAVED, NEW)
        for stage, at in STAGES.items() for name, signums in SIGNALS.items()
    ],
    "a signal before training: nothing half": [
        stopped(crossed(name, stage), at, signums, then=nothing_half)
        for stage, at in EARLY.items() for name, signums in SIGNALS.items()
    ],
    "a second signal: killed": [
        *(stopped(crossed("*a second signal", stage), at, (signal.SIGINT,) * 2) for stage, at in STAGES.items()),
        stopped("SIGTERM, then SIGINT", STAGES["*mid-epoch"], (signal.SIGTERM, signal.SIGINT)),
    ],
    "a signal in an evaluation: nothing half": [
        stopped(crossed(name, stage), at, signums, command=command, changes=changes, then=nothing)
        for stage, (at, command, changes) in EVALUATIONS.items() for name, signums in SIGNALS.items()
    ],
}  # fmt: skip
