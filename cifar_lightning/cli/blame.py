"""Context managers that name what a person can change where PyTorch or Lightning raise something else."""

import contextlib
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


@contextlib.contextmanager
def locked_run(folder: Path, trainer: Trainer, *, new: bool) -> Iterator[None]:
    """Lock a run's folder, and remove it again if the command is refused before it has trained a step.

    Args:
        folder: Of the run.
        trainer: That trains in it.
        new: Whether this process made the folder.

    Raises:
        InputError: Another process trains in it.
    """
    try:
        with files.locked(folder):
            yield
    except BlockingIOError:
        raise InputError(str(folder), "another process is training here", "wait for it, or stop it") from None
    except InputError:
        if new and not trainer.global_step:
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # there are other runs
                folder.parent.rmdir()
        raise


@contextlib.contextmanager
def the_checkpoint(checkpoint: Path | None) -> Iterator[None]:
    """Name a checkpoint, if there is one, where its settings are wrong."""
    try:
        yield
    except Exception as error:
        message = explain(error)
        if checkpoint is None or message.status != InputError.status:
            raise
        raise InputError(str(checkpoint), f"its settings: {message.text}", REMEDY) from None


@contextlib.contextmanager
def the_input(checkpoint: Path | None) -> Iterator[None]:
    """Raise an `InputError` for settings that Lightning refuses, or a checkpoint that it can't restore."""
    try:
        yield
    except (ReportedError, OSError, MemoryError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        text = " ".join(str(error).split())
        # Lightning takes a checkpoint apart in methods of such names, and lets any exception through.
        if checkpoint and any("restore" in frame.name for frame in frames):
            cause = f"can't be restored ({type(error).__name__}: {text})"
            raise InputError(str(checkpoint), cause, REMEDY) from error
        by_lightning = Path(lightning.__file__).parent in Path(frames[-1].filename).parents
        if by_lightning and isinstance(error, ValueError | MisconfigurationException):
            raise InputError("trainer", text.rstrip("."), "`fit --help` lists what it takes") from error
        raise


@contextlib.contextmanager
def out_of_memory(trainer: Trainer) -> Iterator[None]:
    """Raise a `RunError` that names the batch size where PyTorch runs out of memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        # By now the Trainer has forgotten its stage; the model is still in training mode, or not.
        name = "batch_size" if trainer.lightning_module.training else "eval_batch_size"
        size = getattr(CIFAR10DataModule.of(trainer), name)
        where = f"data.{name}"
        raise RunError(where, f"{size} images do not fit in memory", f"try --{where} {max(1, size // 2)}") from error
