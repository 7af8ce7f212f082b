"""Callbacks of Lightning's that break a promise of this program, refused before there is a run."""

from importlib.util import find_spec
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    DeviceStatsMonitor,
    LearningRateFinder,
    ModelPruning,
    SpikeDetection,
    StochasticWeightAveraging,
)

from cifar_lightning.errors import InputError

# Subclasses of a person's own break it likewise.
REFUSED: dict[type[Callback], tuple[str, str]] = {
    BatchSizeFinder: (
        "takes what fits into the memory that is free just now, and that changes what a run learns",
        "choose with --data.batch_size",
    ),
    LearningRateFinder: (  # Lightning's own is taken out before: see cli/lr_search.py
        "searches when training has begun, which a run that resumes can't repeat",
        "use LearningRateFinder, or a --model.schedule",
    ),
    StochasticWeightAveraging: (
        "puts its means in place after the last checkpoint: none would hold them",
        "use EMAWeightAveraging, or WeightAveraging",
    ),
    ModelPruning: (
        "keeps its masks in no checkpoint: a run that resumes would prune anew",
        "prune the network of a finished run with torch.nn.utils.prune",
    ),
    SpikeDetection: (
        "can't restore what it saved, as of Lightning 2.6.6: no run could resume",
        "leave it out: a run ends at the first loss that is not finite, and says which step",
    ),
}


def check_usable(callback: Callback, arguments: Any) -> None:
    """Raise an `InputError` for one that can't be used, or that needs a package which is missing."""
    for kind, (cause, remedy) in REFUSED.items():
        if isinstance(callback, kind):
            raise InputError("trainer.callbacks", f"{type(callback).__name__} {cause}", remedy)
    if isinstance(callback, DeviceStatsMonitor) and arguments.cpu_stats and find_spec("psutil") is None:
        raise InputError("trainer.callbacks", "DeviceStatsMonitor needs psutil for cpu_stats", "pip install psutil")
