"""The callbacks of each command, in the order in which they are called."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from cifar_lightning.callbacks.checkpoints import Checkpoints, EnvironmentCheck
from cifar_lightning.callbacks.console import Console, ProgressBar
from cifar_lightning.callbacks.epoch_seed import EpochSeed
from cifar_lightning.callbacks.evaluation_results import EvaluationResults
from cifar_lightning.callbacks.history import History
from cifar_lightning.callbacks.stopping import Divergence, Stopping
from cifar_lightning.callbacks.tensorboard import TensorBoardExtras


def training(trainer_config: Any, precision_reason: str) -> list[Callback]:
    """Return the callbacks of `fit`; `precision_reason` is empty where a person chose the precision."""
    unsaved = False in (trainer_config.enable_checkpointing, trainer_config.logger) or trainer_config.fast_dev_run
    history = History()
    checkpoints = None if unsaved else Checkpoints(history)
    return [
        Divergence(checkpoints),
        history,
        Console(history, checkpoints, precision_reason),
        EnvironmentCheck(),
        TensorBoardExtras(),
        EpochSeed(),  # after all that draws random numbers when training starts
        Stopping(checkpoints),
        *([checkpoints] if checkpoints else []),  # after all whose state it saves
        *_progress_bar(trainer_config),
    ]


def evaluation(trainer_config: Any, run: Path) -> list[Callback]:
    """Return the callbacks of `validate`, `test` and `predict`; `run` is the folder that results go to."""
    return [*_progress_bar(trainer_config), EvaluationResults(run)]


def _progress_bar(trainer_config: Any) -> list[Callback]:
    return [ProgressBar()] if trainer_config.enable_progress_bar in (None, True) else []
