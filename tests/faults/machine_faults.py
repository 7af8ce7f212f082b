"""Disks that are full or read only, folders that two processes want, memory that runs out, divergence, signals."""

import errno
import itertools
import os
import signal
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from cifar_lightning.models import ImageClassifier
from cifar_lightning.runs.checkpoint import load
from tests.faults.processes import MODEL, SAVE, at_call, beside, full_disk, little_memory, nobody, send
from tests.faults.steps import dangling, gone, is_whole, new_resumes, old_resumes
from tests.faults.table import BEST, FIT, LAST, NEW, NEW_RUN, OLD_RUN, PREDICTIONS, RESUME, RUN, Fault, Make, Table

PREDICT, TEST = f"predict --ckpt_path={BEST}", f"test --ckpt_path={BEST}"
EVENTS = (f"{RUN}/events.*", f"{RUN}/*/events.*")
FREE = "free some space"
DENIED, LITTLE = partial(Fault, child=nobody), partial(little_memory, 400)


def full(name: str, nth: int, most_bytes: int, *says: str, command: str = FIT, **more: Any) -> Fault:
    """Return the row of a disk that is full from the nth checkpoint on, 0 from the start."""
    fill = partial(full_disk, most_bytes)
    child = partial(at_call, SAVE, fill, nth) if nth else fill
    return Fault(name, command, 1, says, child=child, **{"changes": NEW_RUN, **more})


def raises(owner: object, name: str, error: Exception) -> Make:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    return partial(patch.object, owner, name, fail)


# The real errno of a full disk where a file is made durable; as from a write, without a file's name.
no_space = raises(os, "fsync", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))


def read_only(path: Path) -> None:
    path.mkdir(exist_ok=True)
    path.chmod(0o555)


# How PyTorch 2.15 begins to word it.
CPU = "[enforce fail at alloc_cpu.cpp:128] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"
CUDA = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 7.79 GiB of which 3.06 MiB " \
    "is free.\nProcess 1 has 7.70 GiB memory in use."  # fmt: skip
MPS = "MPS backend out of memory (MPS allocated: 9.05 GB, other allocations: 7.05 MB, max allowed: 9.07 GB)."


def memory(name: str, error: Exception, step: str = "training", command: str = FIT) -> Fault:
    key = "data.batch_size" if step == "training" else "data.eval_batch_size"
    changes = NEW_RUN if command == FIT else EVENTS
    make = raises(ImageClassifier, f"{step}_step", error)
    return Fault(name, command, 1, (key, "do not fit in memory"), changes=changes, make=make)


def at_step(method: str, nth: int, act: Callable[[ImageClassifier, Any], Any]) -> Make:
    """Have the nth call of a method of the model return what `act` makes of the model and the result."""
    function, calls = getattr(ImageClassifier, method), itertools.count(1)

    def counting(self: ImageClassifier, *args: Any) -> Any:
        result = function(self, *args)
        return act(self, result) if next(calls) == nth else result

    return partial(patch.object, ImageClassifier, method, counting)


def loss(value: float, nth: int) -> Make:
    return at_step("training_step", nth, lambda model, loss: loss * value)


def weights(value: float, nth: int) -> Make:
    """Put a number into the weights after a step whose loss is finite."""
    return at_step("optimizer_step", nth, lambda model, _: next(model.parameters()).detach().view(-1)[0].fill_(value))


def kept() -> None:
    """Assert that the checkpoints of the epoch before are kept and finite, and that the run resumes from them."""
    checkpoints = [load(path) for path in Path(NEW, "checkpoints").iterdir()]
    assert {content["global_step"] for content in checkpoints} == {4}
    assert all(bool(x.isfinite().all()) for content in checkpoints for x in content["state_dict"].values())
    new_resumes()


def nothing_kept() -> None:
    assert list(Path(NEW).glob("checkpoints/*")) == []


def diverges(name: str, make: Make, *says: str, command: str = FIT, **more: Any) -> Fault:
    changes = NEW_RUN if command.startswith(FIT) else OLD_RUN[:4]  # not the checkpoints
    return Fault(name, command, 1, ("learning rate", "--model.lr", *says), {}, changes, make, **{"then": kept, **more})


# Function, and which call of it (four steps and two batches of validation an epoch).
STAGES = {
    "mid-epoch": (f"{MODEL}.training_step", 6),
    "in the first epoch": (f"{MODEL}.training_step", 2),
    "at the last step of an epoch": (f"{MODEL}.training_step", 4),
    "in validation": (f"{MODEL}.validation_step", 1),
    "while saving": (SAVE, 1),
    "while writing metrics.csv": ("cifar_lightning.runs.metrics_csv.write", 1),
}
PARSING = ("cifar_lightning.cli.lightning_cli.CLI.before_instantiate_classes", 1)
SETUP = ("cifar_lightning.data.datamodule.CIFAR10DataModule.setup", 1)
SAVED = "resume with: python -m cifar_lightning fit --resume"


def stopped(name: str, at: tuple[str, int], signums: tuple[signal.Signals, ...], status: int, **more: Any) -> Fault:
    """Return the row of signals at the nth call of a function; a second one kills."""
    child = partial(at_call, at[0], partial(send, *signums), at[1])
    return Fault(name, status=status, child=child, **{"command": FIT, "changes": NEW_RUN, "then": new_resumes, **more})


def interrupted(stage: str, at: tuple[str, int], *says: str, **more: Any) -> list[Fault]:
    return [
        stopped(f"{signum.name} {stage}", at, (signum,), status, says=(signum.name, *says), **more)
        for signum, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143))
    ]


def nothing_half() -> None:
    """Assert that a run that was stopped before it began can be begun, if it left a folder at all."""
    if Path(NEW, "config.yaml").exists():
        new_resumes()


TABLE: Table = [
    "disk full: durable writes",
    full("disk full at the second checkpoint", 2, 20_000, NEW, "checkpoints", FREE, then=kept),
    full("disk full at the first checkpoint", 1, 20_000, NEW, "checkpoints", FREE, then=new_resumes),
    full("disk full from the start", 0, 1000, NEW),
    full("disk full once config.yaml is there", 0, 10_000, "disk", FREE, changes=()),  # nothing was trained yet
    full("disk full where a run resumes", 1, 20_000, RUN, "checkpoints", FREE, command=RESUME, changes=OLD_RUN,
         files={LAST: gone}, then=old_resumes),
    full("old predictions on a full disk", 0, 3000, PREDICTIONS, command=PREDICT, changes=(),
         files={PREDICTIONS: "file,class\nold.png,cat\n"}),
    Fault("no space left for a checkpoint", FIT, 1, (NEW, "No space left", FREE), changes=NEW_RUN, make=no_space),
    Fault("no space left for predictions", PREDICT, 1, (PREDICTIONS, "No space left"), make=no_space),
    Fault("no space left for test.json", TEST, 1, (RUN, "No space left"), changes=EVENTS, make=no_space),
    "no right to write: file system",
    DENIED("runs can't be written", FIT, 2, ("logs", "written to"), {"logs/mlp-synthetic": read_only}),
    DENIED("no folder for logs", f"{FIT} --logs=new", 2, ("logs", "written to"), {".": read_only}),
    DENIED("logs read only", f"{FIT} --logs=other", 2, ("other", "written to"), {"other": read_only}),
    DENIED("predictions can't be written", PREDICT, 1, (PREDICTIONS, "denied"), {RUN: read_only}),
    DENIED("test.json can't be written", TEST, 1, (RUN, "denied"), {RUN: read_only}),
    DENIED("a run that can't be written to resumes", RESUME, 1, (RUN, "denied"),
           {LAST: gone, f"{RUN}/checkpoints": read_only, RUN: read_only}, then=old_resumes),
    "no folder to write into: file system",
    Fault("logs below a file", f"{FIT} --logs=a.txt/b", 2, ("a.txt",), {"a.txt": "hello"}),
    Fault("logs is a file", f"{FIT} --logs=a.txt", 2, ("logs", "a.txt"), {"a.txt": "hello"}),
    Fault("logs is a dangling link", f"{FIT} --logs=link", 2, ("link",), {"link": dangling}),
    Fault("logs too long a name", f"{FIT} --logs={'a' * 300}", 2, ("aaa",)),
    Fault("the name's folder is a file", f"{FIT} --name=x", 2, ("logs/x-synthetic",), {"logs/x-synthetic": "hello"}),
    Fault("predictions is a folder", PREDICT, 1, (PREDICTIONS,), {PREDICTIONS: Path.mkdir}),
    "two processes want a folder: lock",
    Fault("another process resumes the run", RESUME, 2, (RUN, "another process"), {LAST: gone},
          make=partial(beside, RESUME, f"{MODEL}.training_step"), then=partial(is_whole, RUN)),
    Fault("another process extends the run", f"{RESUME} --trainer.max_epochs=3", 2,
          (RUN, "another process"), make=partial(beside, f"{RESUME} --trainer.max_epochs=4", f"{MODEL}.training_step")),
    Fault("two runs at once", FIT, 0, changes=NEW_RUN, make=partial(beside, FIT, "pathlib.Path.mkdir", "version_1"),
          then=partial(is_whole, RUN, NEW, "logs/mlp-synthetic/version_2")),
    "memory runs out: error messages",
    memory("memory of the CPU", RuntimeError(CPU)),
    memory("memory of CUDA", torch.OutOfMemoryError(CUDA)),
    memory("memory of MPS", RuntimeError(MPS)),
    memory("memory of Python", MemoryError()),
    memory("memory in validation", RuntimeError(CPU), "validation"),
    memory("memory in a test", RuntimeError(CUDA), "test", TEST),
    memory("memory in predictions", RuntimeError(MPS), "predict", PREDICT),
    Fault("memory really", f"{FIT} --data.train_size=40000 --data.batch_size=40000", 1, changes=NEW_RUN, child=LITTLE,
          says=("data.batch_size", "40000 images do not fit in memory", "--data.batch_size 20000")),
    Fault("memory of a model too wide", f"{FIT} --model.width=1000000", 1, ("model: ", "memory"), child=LITTLE),
    Fault("memory beyond every number", f"{FIT} --model.width={10**30}", 2, ("model.width",)),
    "numbers run away: divergence check",
    diverges("lr of 1e30", nullcontext, then=nothing_kept, command=f"{FIT} --model.batch_norm=false --model.lr=1e30"),
    diverges("NaN in the first epoch", loss(float("nan"), 2), "train/loss", "nan at step 2", then=nothing_kept),
    diverges("NaN in the second epoch", loss(float("nan"), 6), "train/loss", "nan at step 2"),
    diverges("infinity in the second epoch", loss(float("inf"), 7), "train/loss", "inf"),
    diverges("weights alone in the second epoch", weights(float("nan"), 8), "not finite"),
    diverges("weights alone in the first epoch", weights(float("inf"), 4), "not finite", then=nothing_kept),
    diverges("NaN where a run resumes", loss(float("nan"), 2), "train/loss", "last.ckpt", then=None,
             command=f"{RESUME} --trainer.max_epochs=3"),
    "a signal in training: saved",
    *[row for stage, at in STAGES.items() for row in interrupted(stage, at, SAVED, NEW)],
    "a signal before training: nothing half",
    *interrupted("in parsing", PARSING, then=nothing_half),
    *interrupted("in setup", SETUP, then=nothing_half),
    "a second signal: killed",
    *(stopped(f"a second signal {stage}", at, (signal.SIGINT,) * 2, -signal.SIGINT) for stage, at in STAGES.items()),
    stopped("SIGTERM, then SIGINT", STAGES["mid-epoch"], (signal.SIGTERM, signal.SIGINT), -signal.SIGINT),
    "a signal in an evaluation: nothing half",
    *interrupted("in a test", (f"{MODEL}.test_step", 2), command=TEST, changes=EVENTS, then=None),
    *interrupted("in predictions", (f"{MODEL}.predict_step", 2), command=PREDICT, changes=(), then=None),
]  # fmt: skip
