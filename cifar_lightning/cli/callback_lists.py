"""The callbacks of a command, in the order in which they are called."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from cifar_lightning import callbacks


def training(trainer: Any, why_precision: str) -> list[Callback]:
    """Return the callbacks of `fit`.

    Args:
        trainer: The settings of the Trainer.
        why_precision: Why the hardware suits the precision.
    """
    history = callbacks.History()
    kept = trainer.enable_checkpointing is not False and trainer.logger is not False and not trainer.fast_dev_run
    checkpoints = callbacks.Checkpoints(history) if kept else None
    return [
        callbacks.Divergence(checkpoints),
        history,
        callbacks.Console(history, why_precision, checkpoints),
        callbacks.EnvironmentCheck(),
        callbacks.TensorBoardExtras(),
        callbacks.EpochSeed(),  # after all that draws random numbers when training starts
        callbacks.Stopping(checkpoints),
        *([checkpoints] if checkpoints else []),  # after all whose state it saves
        *_progress_bar(trainer),
    ]


def evaluation(trainer: Any, run: Path) -> list[Callback]:
    """Return the callbacks of `validate`, `test` and `predict`.

    Args:
        trainer: The settings of the Trainer.
        run: The folder of the run whose checkpoint is evaluated.
    """
    console = callbacks.Console(callbacks.History())
    return [console, *_progress_bar(trainer), callbacks.TestResults(run), callbacks.PredictionsFile(run)]


def _progress_bar(trainer: Any) -> list[Callback]:
    return [callbacks.ProgressBar()] if trainer.enable_progress_bar in (None, True) else []
