"""Preflight: before any run is made, whether `fit` takes the settings of all, and how long each would take."""

from collections.abc import Iterator, Sequence
from statistics import median
from time import perf_counter
from timeit import repeat
from typing import Any, NamedTuple

from cifar_lightning.errors import InputError
from cifar_lightning.study.executor import answers
from cifar_lightning.study.identity import naming
from cifar_lightning.study.plan import Run

STEPS = 4  # the first does not count, of the others the median is taken
MOST_IMAGES = 200  # in a probe's batch: more take as much longer
# Each `fit`, `test` and `predict` takes 1.2 s outside its steps on two cores of an EPYC, where a dry run takes 0.15 s.
DRY_RUNS = 8
TEST_IMAGES = 10_000


class Seconds(NamedTuple):
    """How long a run takes, as far as that can be told: it may not fit in memory."""

    per_epoch: float = 0.0
    outside: float = 1.0  # of its epochs: the start, and the test set


def preflight(runs: Sequence[Run]) -> dict[str, Seconds]:
    """Build every run, in a process of its own, and time some steps of each kind; `InputError` if `fit` refuses one.

    Returns:
        What each takes, by address.
    """
    found: list[Seconds] = []
    while len(found) < len(runs):
        found += answers(probe, runs[len(found) :])
        if len(found) < len(runs):  # the system has killed the process, for want of memory perhaps, as it will the run
            found.append(Seconds())
    return {run.address: seconds for run, seconds in zip(runs, found, strict=True)}


def probe(runs: Sequence[Run]) -> Iterator[Seconds]:
    """Yield what `preflight` returns, run by run, computed in this process."""
    from cifar_lightning.cli.dry_run import DryRun

    known: dict[tuple[Any, ...], tuple[float, float]] = {}  # steps like those of a run before are not timed again
    for run in runs:
        seconds = Seconds()
        try:
            with naming(f"experiment {run.experiment}, {run.name}"):
                started = perf_counter()
                dry = DryRun(run.arguments)
                data, command = dry.datamodule, DRY_RUNS * (perf_counter() - started)
                batch = min(data.batch_size, MOST_IMAGES)
                kind = (repr(dry.model), dry.trainer.precision, batch)
                if kind not in known:
                    known[kind] = _step(dry, batch)
                train, evaluate = known[kind]
                per_epoch = dry.steps_per_epoch * train * data.batch_size / batch
                per_epoch += evaluate * (data.val_size + data.train_clean_size)
                # Both commands ask the network for every test image.
                tested = 2 * (command + evaluate * TEST_IMAGES) if run.test else 0.0
                seconds = Seconds(per_epoch, command + tested)
        except InputError:
            raise
        except Exception:
            pass  # `fit` will fail of it, too, and the others will not
        yield seconds


def _step(dry: Any, batch: int) -> tuple[float, float]:
    """Seconds of a training step of so many images, and of evaluating one image."""
    import torch

    dry.place()
    model, precision, optimizer = dry.model, dry.trainer.precision_plugin, dry.model.new_optimizer()
    images = torch.randn(batch, 3, 32, 32, device=dry.device)

    def outcome() -> torch.Tensor:
        with precision.forward_context():
            logits: torch.Tensor = model(images.to(model.dtype))
        return logits.float().square().mean()  # as good as a loss

    def train() -> None:
        optimizer.zero_grad()
        outcome().backward()
        optimizer.step()

    def evaluate() -> None:
        with torch.inference_mode():
            outcome().item()

    model.train()
    training = median(repeat(train, number=1, repeat=STEPS)[1:])
    model.eval()
    return training, median(repeat(evaluate, number=1, repeat=STEPS)[1:]) / batch
