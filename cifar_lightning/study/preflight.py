"""A look at all cells before any is run: whether `fit` takes their settings, and how long they would take."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from cifar_lightning.errors import InputError, RunError, check
from cifar_lightning.study.cells import Cell
from cifar_lightning.study.executor import begin, context

STEPS = 3  # the median of so many is taken, after one that does not count
MOST_IMAGES = 200  # in a probe's batch: more take as much longer


def survey(cells: Sequence[Cell]) -> dict[str, float]:
    """Looks at cells, in a process of its own.

    Returns:
        Seconds that an epoch would take, by address; 0 where that can't be told, as a run may not fit in memory.

    Raises:
        InputError: `fit` would refuse one.
    """
    found, waiting = dict[str, float](), list(cells)
    while waiting:
        for seconds in _answers(tuple(waiting)):
            found[waiting.pop(0).address] = seconds
        if waiting:  # the system has killed the process, for want of memory perhaps; it would kill the run alone
            found[waiting.pop(0).address] = 0.0
    return found


def _answers(cells: Sequence[Cell]) -> Iterator[float]:
    """Seconds of an epoch, cell by cell, for as long as the process lives."""
    here, there = context().Pipe(duplex=False)
    process = begin(_survey, there, cells)
    there.close()
    try:
        _begun(here)
        for _ in cells:
            seconds: float | InputError = here.recv()
            if isinstance(seconds, InputError):
                raise seconds
            yield seconds
    except EOFError:
        return
    finally:
        process.kill()
        process.join()


def _begun(connection: Connection) -> None:
    try:
        connection.recv()
    except EOFError:
        raise RunError("study", "the process that looks at its cells has ended", "start it again") from None


def _survey(connection: Connection, cells: Sequence[Cell]) -> None:
    from cifar_lightning.cli.warning_filters import be_quiet
    from cifar_lightning.utils.performance import prepare

    be_quiet()
    prepare()
    with suppress(BrokenPipeError):  # who asked is gone
        connection.send("begun")
        try:
            for seconds in survey_here(cells):
                connection.send(seconds)
        except InputError as error:
            connection.send(error)


def survey_here(cells: Sequence[Cell]) -> Iterator[float]:
    """Seconds of an epoch, cell by cell, as `survey`, but in this process."""
    from cifar_lightning.cli.error_messages import explain

    known: dict[tuple[Any, ...], tuple[float, float]] = {}
    for cell in cells:
        try:
            seconds = _epoch(cell, known)
        except Exception as error:
            message = explain(error)
            if message.status == InputError.status:
                cause, _, remedy = message.text.partition("; ")
                raise InputError(f"experiment {cell.experiment}, {cell.name}", cause, remedy) from error
            seconds = 0.0  # `fit` will fail of it, too, and the others will not
        yield seconds


def _epoch(cell: Cell, known: dict[tuple[Any, ...], tuple[float, float]]) -> float:
    """Seconds of an epoch; steps like those of a cell before are not timed again."""
    from cifar_lightning.cli.dry_run import DryRun

    setting = DryRun(list(cell.command))
    data, model = setting.datamodule, setting.model
    _check(setting.config["fit"])
    batch = min(data.batch_size, MOST_IMAGES)
    kind = (repr(model), setting.trainer.precision, batch)
    if kind not in known:
        known[kind] = _step(setting, batch)
    train, evaluate = known[kind]
    steps = math.ceil(setting.images_per_epoch / data.batch_size)
    evaluated = data.val_size + data.train_clean_size
    return float(steps * train * data.batch_size / batch + evaluated * evaluate)


def _check(config: Any) -> None:
    """Refuses what ends before its epochs are over, or has epochs without a validation: they could not be compared."""
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


def _step(setting: Any, batch: int) -> tuple[float, float]:
    """Seconds of a training step of so many images, and of evaluating one image."""
    import torch
    from torch.nn.functional import cross_entropy

    setting.place()
    model, precision = setting.model, setting.trainer.precision_plugin
    optimizer = model.new_optimizer()
    images = torch.randn(batch, 3, 32, 32, device=setting.device)
    labels = torch.zeros(batch, dtype=torch.int64, device=setting.device)

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
    training = _median(train)
    model.eval()
    return training, _median(evaluate) / batch


def _median(step: Any) -> float:
    step()
    times = []
    for _ in range(STEPS):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return sorted(times)[STEPS // 2]
