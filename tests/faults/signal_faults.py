"""Ctrl-C and SIGTERM, at every stage: what was done is saved, the status tells the signal, and the run goes on."""

import signal
from collections.abc import Sequence

from tests.faults.disk_faults import goes_on
from tests.faults.table import BEST, FIT, GOES_NEW, NEW, RUN, Fault, Place, Step, nothing

MODEL = "cifar_lightning.models.base:ImageClassifier"
STAGES = {
    # Name: function, which call of it (four steps and two batches of validation an epoch).
    "mid-epoch": (f"{MODEL}.training_step", 6),
    "in the first epoch": (f"{MODEL}.training_step", 2),
    "at the last step of an epoch": (f"{MODEL}.training_step", 4),
    "in validation": (f"{MODEL}.validation_step", 1),
    "while saving": ("cifar_lightning.runs.logger:DurableCheckpoints.save_checkpoint", 1),
    "while writing metrics.csv": ("cifar_lightning.runs.metrics_csv:write", 1),
}
EARLY = {
    "in parsing": ("cifar_lightning.cli.lightning_cli:CLI.before_instantiate_classes", 1),
    "in setup": ("cifar_lightning.data.datamodule:CIFAR10DataModule.setup", 1),
}
SAVED = "resume with: python -m cifar_lightning fit --resume"


def row(
    name: str, at: tuple[str, int], signums: Sequence[int], status: int, *says: str, then: Step = nothing,
    command: str = FIT, changes: tuple[str, ...] = GOES_NEW,
) -> Fault:  # fmt: skip
    """A signal at the nth call of a function."""
    given = {"at": at[0], "nth": at[1], "signals": [int(signum) for signum in signums]}
    return Fault(name, command, status, says, changes=changes, then=then, child="signals", given=given)


def nothing_half(place: Place) -> None:
    """A run that was stopped before it began can be begun, if it left a folder at all."""
    if (place.folder / NEW / "config.yaml").exists():
        goes_on(place)


SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}
TWICE = (signal.SIGINT, signal.SIGINT)
FAULTS = [
    *(
        row(f"{signum.name} {name}", at, [signum], status, signum.name, SAVED, NEW, then=goes_on)
        for name, at in STAGES.items()
        for signum, status in SIGNALS.items()
    ),
    *(
        row(f"{signum.name} {name}", at, [signum], status, signum.name, then=nothing_half)
        for name, at in EARLY.items()
        for signum, status in SIGNALS.items()
    ),
    *(
        row(f"a second signal {name}", at, TWICE, -signal.SIGINT, then=goes_on)
        for name, at in STAGES.items()
    ),
    row("SIGTERM, then SIGINT", STAGES["mid-epoch"], (signal.SIGTERM, signal.SIGINT), -signal.SIGINT, then=goes_on),
    row("SIGTERM in a test", (f"{MODEL}.test_step", 2), [signal.SIGTERM], 143, "SIGTERM",
        command=f"test --ckpt_path={BEST}", changes=(f"{RUN}/events.*",)),
    row("SIGINT in a test", (f"{MODEL}.test_step", 2), [signal.SIGINT], 130, "SIGINT",
        command=f"test --ckpt_path={BEST}", changes=(f"{RUN}/events.*",)),
    row("SIGTERM in predictions", (f"{MODEL}.predict_step", 2), [signal.SIGTERM], 143, "SIGTERM",
        command=f"predict --ckpt_path={BEST}", changes=()),
    row("SIGINT in predictions", (f"{MODEL}.predict_step", 2), [signal.SIGINT], 130, "SIGINT",
        command=f"predict --ckpt_path={BEST}", changes=()),
]  # fmt: skip
