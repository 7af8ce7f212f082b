"""What watches a run, and what it leaves in its folder: config.yaml, an event file, checkpoints."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger

from cifar_lightning import callbacks, files
from cifar_lightning.checkpoint import load
from cifar_lightning.data.source import tagged


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
    first = [callbacks.Divergence(checkpoints), history, words, callbacks.Conditions(), callbacks.Clipping()]
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


class DurableCheckpoints(TorchCheckpointIO):
    """Writes checkpoints that survive the process and a power cut, and reads none but whole ones of plain values."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes a checkpoint to disk, and only then gives it its name."""
        buffer, path = io.BytesIO(), Path(path)
        torch.save(checkpoint, buffer)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, buffer.getbuffer())

    def load_checkpoint(
        self, path: str | Path, map_location: Callable[..., Any] | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads one to the CPU; nothing but tensors and plain values, whatever is asked for."""
        return load(Path(path))


class RunLogger(TensorBoardLogger):
    """TensorBoard without an empty hparams.yaml beside the config.yaml that holds them all."""

    def save(self) -> None:
        """Flushes the event file."""
        self.experiment.flush()

    def _get_next_version(self) -> int:
        """The first version whose folder was not there: of two runs that start at once, each has its own."""
        version, runs = int(super()._get_next_version()), Path(self.root_dir)
        runs.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                (runs / f"version_{version}").mkdir()
                return version
            except FileExistsError:
                version += 1


class SaveConfig(SaveConfigCallback):
    """Leaves config.yaml in the folder of a run that trains, and in no other."""

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Saves once, when training starts; without the checkpoint that it may go on from, to repeat the whole."""
        if stage == "fit" and trainer.loggers and trainer.log_dir:
            self.config = self.config.clone()
            self.config.ckpt_path = self.config.resume = None
            text: str = self.parser.dump(self.config, skip_unset=False)
            files.replace(Path(trainer.log_dir) / self.config_filename, text.encode())
