"""Preflight: before any run is made, whether `fit` takes the settings of all, and how long each would take."""

from collections.abc import Iterator, Sequence
from statistics import median
from timeit import repeat
from typing import Any

from cifar_lightning.errors import InputError, check
from cifar_lightning.study.identity import naming
from cifar_lightning.study.plan import Run
from cifar_lightning.study.processes import answers

STEPS = 4  # the first does not count, of the others the median is taken
MOST_IMAGES = 200  # in a probe's batch: more take as much longer


def preflight(runs: Sequence[Run]) -> dict[str, float]:
    """Build every run, in a process of its own, and time some steps of each kind.

    Returns:
        Seconds per epoch, by address; 0 where that can't be told, as a run may not fit in memory.

    Raises:
        InputError: `fit` would refuse one.
    """
    found, waiting = dict[str, float](), list(runs)
    while waiting:
        for seconds in answers(seconds_per_epoch, waiting[:]):
            found[waiting.pop(0).address] = seconds
        if waiting:  # the system has killed the process, for want of memory perhaps; it would kill the run alone
            found[waiting.pop(0).address] = 0.0
    return found


def seconds_per_epoch(runs: Sequence[Run]) -> Iterator[float]:
    """Yield what `preflight` returns, run by run, computed in this process."""
    known: dict[tuple[Any, ...], tuple[float, float]] = {}
    for run in runs:
        seconds = 0.0
        try:
            with naming(f"experiment {run.experiment}, {run.label}{run.ending}"):
                seconds = _epoch(run, known)
        except InputError:
            raise
        except Exception:
            pass  # `fit` will fail of it, too, and the others will not
        yield seconds


def _epoch(run: Run, known: dict[tuple[Any, ...], tuple[float, float]]) -> float:
    """Seconds per epoch; steps like those of a run before are not timed again."""
    from cifar_lightning.cli.dry_run import DryRun

    dry = DryRun(run.arguments)
    _check(dry.config["fit"])
    data = dry.datamodule
    batch = min(data.batch_size, MOST_IMAGES)
    kind = (repr(dry.model), dry.trainer.precision, batch)
    if kind not in known:
        known[kind] = _step(dry, batch)
    train, evaluate = known[kind]
    evaluated = data.val_size + data.train_clean_size
    return float(dry.steps_per_epoch * train * data.batch_size / batch + evaluated * evaluate)


def _check(config: Any) -> None:
    """Refuse what ends before its epochs are over, or has epochs without a validation: they could not be compared."""
    data, trainer = config.data, config.trainer
    check(data.val_size > 0, "data.val_size", data.val_size, "1 or more: a study compares on validation images")
    every = trainer.check_val_every_n_epoch
    check(every == 1, "trainer.check_val_every_n_epoch", every, "1: a study compares on validation images")
    for name in ("limit_train_batches", "limit_val_batches"):
        check(trainer[name] != 0, f"trainer.{name}", trainer[name], "more than 0: a study compares what was trained")
    for name, none in (("max_steps", (-1, None)), ("max_time", (None,)), ("fast_dev_run", (False,))):
        check(trainer[name] in none, f"trainer.{name}", trainer[name], "`epochs` of the experiment")
    for name, what in (("logger", "the curves"), ("enable_checkpointing", "the checkpoints")):
        check(trainer[name] in (None, True), f"trainer.{name}", trainer[name], f"the default: {what} are needed")


def _step(dry: Any, batch: int) -> tuple[float, float]:
    """Seconds of a training step of so many images, and of evaluating one image."""
    import torch
    from torch.nn.functional import cross_entropy

    dry.place()
    model, precision, optimizer = dry.model, dry.trainer.precision_plugin, dry.model.new_optimizer()
    images = torch.randn(batch, 3, 32, 32, device=dry.device)
    labels = torch.zeros(batch, dtype=torch.int64, device=dry.device)

    def train() -> None:
        optimizer.zero_grad()
        with precision.forward_context():
            logits = model(images.to(model.dtype))
        cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    def evaluate() -> None:
        with torch.inference_mode(), precision.forward_context():
            model(images.to(model.dtype)).sum().item()

    model.train()
    training = median(repeat(train, number=1, repeat=STEPS)[1:])
    model.eval()
    return training, median(repeat(evaluate, number=1, repeat=STEPS)[1:]) / batch
