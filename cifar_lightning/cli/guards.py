"""What stands around a command: its folder is its own, and what ends it is blamed on what a person can change."""

import contextlib
import os
import shutil
import traceback
from collections.abc import Iterator
from pathlib import Path

import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer

from cifar_lightning.cli.error_messages import explain
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.errors import InputError, ReportedError, RunError, is_out_of_memory
from cifar_lightning.runs.checkpoint import REMEDY
from cifar_lightning.utils import files

# Methods of Lightning in which it takes a checkpoint apart.
RESTORING = ("_restore_modules_and_callbacks", "restore_training_state")


def check_logs(folder: Path) -> None:
    """Raises an `InputError` unless a run can have its folder in there."""
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            folder.lstat()
        there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
        cause = "is not a folder" if not there.is_dir() else "can't be written to"
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise InputError("logs", f"{there} {cause}", "name another with --logs")
    except OSError as error:
        raise InputError("logs", f"{folder}: {error.strerror}", "name another with --logs") from error


@contextlib.contextmanager
def own(trainer: Trainer, *, new: bool) -> Iterator[Path]:
    """Has a run's folder to itself, and takes it away again if the command is refused before it has trained a step.

    Args:
        trainer: Of the run.
        new: Whether this process made it.

    Raises:
        InputError: Another process trains in it.
    """
    folder = Path(str(trainer.log_dir))
    try:
        with files.locked(folder):
            yield folder
    except BlockingIOError:
        raise InputError(str(folder), "another process is training here", "wait for it, or stop it") from None
    except InputError:
        if new and not trainer.global_step:
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # there are other runs
                folder.parent.rmdir()
        raise


@contextlib.contextmanager
def blaming_the_checkpoint(checkpoint: Path | None) -> Iterator[None]:
    """Names a checkpoint, if there is one, where its settings are wrong."""
    try:
        yield
    except Exception as error:
        message = explain(error)
        if checkpoint is None or message.status != InputError.status:
            raise
        raise InputError(str(checkpoint), f"its settings: {message.text}", REMEDY) from None


@contextlib.contextmanager
def blaming_the_input(checkpoint: Path | None) -> Iterator[None]:
    """Makes an `InputError` out of what Lightning finds wrong with settings, or can't restore from a checkpoint."""
    try:
        yield
    except (ReportedError, OSError, MemoryError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        what = " ".join(str(error).split())
        if checkpoint and any(frame.name in RESTORING for frame in frames):
            cause = f"can't be restored ({type(error).__name__}: {what})"
            raise InputError(str(checkpoint), cause, REMEDY) from error
        by_lightning = Path(lightning.__file__).parent in Path(frames[-1].filename).parents
        if by_lightning and isinstance(error, ValueError | MisconfigurationException):
            raise InputError("trainer", what.rstrip("."), "`fit --help` lists what it takes") from error
        raise


@contextlib.contextmanager
def naming_the_batch_size(trainer: Trainer) -> Iterator[None]:
    """Makes a `RunError` that names the batch size out of what PyTorch says when memory runs out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        # By now the Trainer has forgotten what it was at; the model is still in training mode, or not.
        name = "batch_size" if trainer.lightning_module.training else "eval_batch_size"
        size = getattr(CIFAR10DataModule.of(trainer), name)
        where = f"data.{name}"
        raise RunError(where, f"{size} images do not fit in memory", f"try --{where} {max(1, size // 2)}") from error
