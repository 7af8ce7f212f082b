"""The callbacks of each command, in the order in which they are called."""

from pathlib import Path
from signal import Signals
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ProgressBar

from cifar_lightning.callbacks.checkpoints import Checkpoints, EnvironmentCheck, keep_apart
from cifar_lightning.callbacks.console import Console, ProgressLine
from cifar_lightning.callbacks.divergence import Divergence
from cifar_lightning.callbacks.early_stopping import TimeLimit
from cifar_lightning.callbacks.epoch_seed import EpochSeed
from cifar_lightning.callbacks.evaluation_results import EvaluationResults
from cifar_lightning.callbacks.history import History, StepCurve
from cifar_lightning.callbacks.monitor_check import MonitorCheck
from cifar_lightning.callbacks.stopping import Stopping
from cifar_lightning.callbacks.tensorboard_extras import TensorBoardExtras
from cifar_lightning.callbacks.unusable import check_usable

__all__ = ["check_usable", "evaluation", "keep_apart", "training"]


def training(trainer_config: Any, precision_reason: str, requeue_signal: Signals | None) -> list[Callback]:
    """Return the callbacks of `fit`; `precision_reason` is empty where a person chose the precision."""
    unsaved = False in (trainer_config.enable_checkpointing, trainer_config.logger) or trainer_config.fast_dev_run
    history = History()
    checkpoints = None if unsaved else Checkpoints(history)
    return [
        MonitorCheck(),
        Divergence(checkpoints),
        history,
        Console(history, checkpoints, precision_reason),
        EnvironmentCheck(),
        TensorBoardExtras(),
        *([StepCurve(steps)] if (steps := trainer_config.log_every_n_steps) else []),
        EpochSeed(),  # after all that draws random numbers when training starts
        *_progress_bar(trainer_config),
        *([TimeLimit(trainer_config.max_time)] if trainer_config.max_time else []),
        *([checkpoints] if checkpoints else []),  # after all whose state it saves
        Stopping(checkpoints, requeue_signal),
    ]


def evaluation(trainer_config: Any, run: Path, epoch: int, **predictions: Any) -> list[Callback]:
    """Return the callbacks of `validate`, `test` and `predict`; results go to the folder `run`, for that epoch."""
    return [*_progress_bar(trainer_config), EvaluationResults(run, epoch, **predictions)]


def _progress_bar(trainer_config: Any) -> list[Callback]:
    """Return ours, unless it was switched off or a person brings their own."""
    own = any(isinstance(each, ProgressBar) for each in trainer_config.callbacks or [])
    return [] if own or trainer_config.enable_progress_bar is False else [ProgressLine()]
