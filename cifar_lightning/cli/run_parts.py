"""What the Trainer of a run is given: callbacks, logger, config.yaml."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger

from cifar_lightning import callbacks
from cifar_lightning.data.source import tagged
from cifar_lightning.runs.logger import RunLogger
from cifar_lightning.utils import files


def watchers(config: Any, why_precision: str) -> list[Callback]:
    """The callbacks of a run that trains, in the order in which they are called.

    Args:
        config: All that `fit` was given, parsed.
        why_precision: What the hardware has to do with the precision.
    """
    trainer = config.trainer
    history = callbacks.History()
    kept = trainer.enable_checkpointing is not False and trainer.logger is not False and not trainer.fast_dev_run
    checkpoints = callbacks.Checkpoints(history) if kept else None
    words = callbacks.Console(history, why_precision, checkpoints)
    first = [callbacks.Divergence(checkpoints), history, words, callbacks.Conditions()]
    last = [callbacks.TensorBoardExtras(), callbacks.EpochSeed(), callbacks.Stopping(checkpoints)]
    return [*first, *last, *([checkpoints] if checkpoints else []), *_bar(config)]


def evaluators(config: Any, folder: Path | None) -> list[Callback]:
    """The callbacks of a command that evaluates.

    Args:
        config: All that it was given, parsed.
        folder: Of the run whose checkpoint it evaluates.
    """
    assert folder is not None, "what evaluates needs a checkpoint"
    words = callbacks.Console(callbacks.History())
    return [words, *_bar(config), callbacks.TestReport(folder), callbacks.PredictionsFile(folder)]


def _bar(config: Any) -> list[Callback]:
    return [callbacks.ProgressBar()] if config.trainer.enable_progress_bar in (None, True) else []


def tagged_name(config: Any) -> str:
    """The run's name, which tells where its images are from."""
    return tagged(config.name, config.data.source)


def logger(config: Any, command: str, run: Path | None) -> TensorBoardLogger | bool:
    """What writes the curves, and decides on the folder; none where there are no curves.

    Args:
        config: All that the command was given, parsed.
        command: `fit`, `validate`, `test` or `predict`.
        run: The folder of the run that is tested or goes on.
    """
    if command in ("validate", "predict"):
        return False
    if run:
        return RunLogger(run, "", "", default_hp_metric=False)
    return RunLogger(config.logs, tagged_name(config), default_hp_metric=False)


class SaveConfig(SaveConfigCallback):
    """Leaves config.yaml in the folder of a run that trains, and in no other."""

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Saves once, when training starts; without the checkpoint that it may go on from, to repeat the whole."""
        if stage == "fit" and trainer.loggers and trainer.log_dir:
            self.config = self.config.clone()
            self.config.ckpt_path = self.config.resume = None
            text: str = self.parser.dump(self.config, skip_unset=False)
            files.replace(Path(trainer.log_dir) / self.config_filename, text.encode())
