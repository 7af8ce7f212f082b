"""Memory that runs out, and numbers that run away."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cifar_lightning.models import ImageClassifier
from cifar_lightning.runs.checkpoint import load
from tests.faults.disk_faults import goes_on
from tests.faults.table import BEST, FIT, GOES_NEW, GOES_ON, NEW, RUN, Fault, Place, Step

# As PyTorch 2.15 says it.
CPU = "[enforce fail at alloc_cpu.cpp:128] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to " \
    "allocate 614400000000 bytes. Error code 12 (Cannot allocate memory)"  # fmt: skip
CUDA = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 7.79 GiB of which 3.06 MiB " \
    "is free.\nProcess 1 has 7.70 GiB memory in use."  # fmt: skip
MPS = "MPS backend out of memory (MPS allocated: 9.05 GB, other allocations: 7.05 MB, max allowed: 9.07 GB). Tried " \
    "to allocate 25.00 MB on private pool. Use PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 to disable upper limit for " \
    "memory allocations (may cause system failure)."  # fmt: skip


def raising(step: str, error: Exception) -> Step:
    """Has a step of the model raise."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    return lambda place: place.patch.setattr(ImageClassifier, step, fail)


def loss(change: Callable[[Tensor, int], Tensor]) -> Step:
    """Changes what a training step returns, by its number; 1 is the first."""

    def make(place: Place) -> None:
        step, calls = ImageClassifier.training_step, 0

        def changed(self: ImageClassifier, *args: Any) -> Tensor:
            nonlocal calls
            calls += 1
            return change(step(self, *args), calls)

        place.patch.setattr(ImageClassifier, "training_step", changed)

    return make


def weights(value: float, at: int) -> Step:
    """Puts a number into the weights after a step whose loss is finite."""

    def make(place: Place) -> None:
        end, calls = ImageClassifier.on_train_batch_end, 0

        def changed(self: ImageClassifier, *args: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == at:
                with torch.no_grad():
                    next(self.parameters()).view(-1)[0] = value
            end(self, *args)

        place.patch.setattr(ImageClassifier, "on_train_batch_end", changed)

    return make


def finite(place: Place) -> None:
    """What is kept of the epoch before is finite, and the run goes on from it."""
    checkpoints = sorted((place.folder / NEW / "checkpoints").iterdir())
    assert checkpoints
    for path in checkpoints:
        content = load(path)
        assert content["global_step"] == 4
        assert all(bool(x.isfinite().all()) for x in content["state_dict"].values())
    goes_on(place)


def nothing_kept(place: Place) -> None:
    """No epoch was finished, so nothing is kept."""
    assert list((place.folder / NEW).glob("checkpoints/*")) == []


def old_stands(place: Place) -> None:
    """The checkpoints of a run that went on are as they were."""
    for path in (place.whole / "checkpoints").iterdir():
        assert (place.folder / RUN / "checkpoints" / path.name).read_bytes() == path.read_bytes()


def memory(name: str, error: Exception, step: str = "training_step", command: str = FIT) -> Fault:
    """Memory that runs out in a step."""
    key = "data.batch_size" if step == "training_step" else "data.eval_batch_size"
    changes = GOES_NEW if command == FIT else (f"{RUN}/events.*",)
    return Fault(f"memory: {name}", command, 1, (key, "do not fit in memory"), raising(step, error), changes)


def away(name: str, make: Step, *says: str, then: Step = finite, command: str = FIT) -> Fault:
    """Training that runs away."""
    changes = GOES_NEW if command.startswith(FIT) else GOES_ON
    return Fault(f"runs away: {name}", command, 1, ("learning rate", "--model.lr", *says), make, changes, then=then)


FAULTS = [
    memory("CPU", RuntimeError(CPU)),
    memory("CUDA", torch.OutOfMemoryError(CUDA)),
    memory("MPS", RuntimeError(MPS)),
    memory("Python", MemoryError()),
    memory("in validation", RuntimeError(CPU), "validation_step"),
    memory("in a test", RuntimeError(CUDA), "test_step", f"test --ckpt_path={BEST}"),
    memory("in predictions", RuntimeError(MPS), "predict_step", f"predict --ckpt_path={BEST}"),
    Fault(
        "memory: really", f"{FIT} --data.train_size=40000 --data.batch_size=40000", 1,
        ("data.batch_size", "40000 images do not fit in memory", "--data.batch_size 20000"), changes=GOES_NEW,
        child="little_memory", given=400,
    ),
    Fault(
        "memory: too wide", f"{FIT} --model.width=1000000", 1, ("model: ", "memory"), child="little_memory", given=400,
    ),
    Fault("memory: beyond every number", f"{FIT} --model.width={10**30}", 2, ("model.width",)),
    away(
        "learning rate", lambda place: None, then=nothing_kept,
        command=f"{FIT} --model.batch_norm=false --model.lr=1e30",
    ),
    away(
        "NaN in the first epoch", loss(lambda x, n: x * float("nan") if n == 2 else x), "train/loss", "nan at step 2",
        then=nothing_kept,
    ),
    away(
        "NaN in the second epoch", loss(lambda x, n: x * float("nan") if n == 6 else x), "train/loss", "nan at step 2"
    ),
    away("infinity in the second epoch", loss(lambda x, n: x * float("inf") if n == 7 else x), "train/loss", "inf"),
    away("weights alone in the second epoch", weights(float("nan"), 8), "not finite"),
    away("weights alone in the first epoch", weights(float("inf"), 4), "not finite", then=nothing_kept),
    away("NaN where a run goes on", loss(lambda x, n: x * float("nan") if n == 2 else x), "train/loss", "last.ckpt",
         then=old_stands, command=f"fit --resume={RUN} --trainer.max_epochs=3"),
]  # fmt: skip
