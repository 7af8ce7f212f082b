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
    """Build every run, in a process of its own, and time some steps of each kind; `InputError` if `fit` refuses one.

    Returns:
        Seconds per epoch, by address; 0 where that can't be told, as a run may not fit in memory.
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
    from cifar_lightning.cli.lightning_cli import DryRun

    known: dict[tuple[Any, ...], tuple[float, float]] = {}  # steps like those of a run before are not timed again
    for run in runs:
        seconds = 0.0
        try:
            with naming(f"experiment {run.experiment}, {run.label}{run.ending}"):
                dry = DryRun(run.arguments)
                _check(dry.config["fit"])
                batch = min(dry.datamodule.batch_size, MOST_IMAGES)
                kind = (repr(dry.model), dry.trainer.precision, batch)
                if kind not in known:
                    known[kind] = _step(dry, batch)
                train, evaluate = known[kind]
                seconds = dry.steps_per_epoch * train * dry.datamodule.batch_size / batch
                seconds += evaluate * (dry.datamodule.val_size + dry.datamodule.train_clean_size)
        except InputError:
            raise
        except Exception:
            pass  # `fit` will fail of it, too, and the others will not
        yield seconds


def _check(config: Any) -> None:
    """Refuse what ends before its epochs are over, or has epochs without a validation: they could not be compared."""
    trainer, validated = config.trainer, "a study compares on validation images"
    trained, epochs = "more than 0: a study compares what was trained", "`epochs` of the experiment"
    for name, holds, allowed in (
        ("data.val_size", config.data.val_size > 0, f"1 or more: {validated}"),
        ("trainer.check_val_every_n_epoch", trainer.check_val_every_n_epoch == 1, f"1: {validated}"),
        ("trainer.limit_train_batches", trainer.limit_train_batches != 0, trained),
        ("trainer.limit_val_batches", trainer.limit_val_batches != 0, trained),
        ("trainer.max_steps", trainer.max_steps in (-1, None), epochs),
        ("trainer.max_time", trainer.max_time is None, epochs),
        ("trainer.fast_dev_run", not trainer.fast_dev_run, epochs),
        ("trainer.logger", trainer.logger in (None, True), "the default: curves are needed"),
        ("trainer.enable_checkpointing", trainer.enable_checkpointing is not False, "true: checkpoints are needed"),
    ):
        check(holds, name, config[name], allowed)


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
