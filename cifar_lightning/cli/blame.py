"""Context managers that name what a person can change, where PyTorch or Lightning raise something else."""

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
    """Lock a run's folder; remove a new one again if the command is refused before it has trained a step.

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
def settings_of(checkpoint: Path | None) -> Iterator[None]:
    """Name a checkpoint, if there is one, where its settings are wrong."""
    try:
        yield
    except Exception as error:
        message = explain(error)
        if checkpoint is None or message.status != InputError.status:
            raise
        raise InputError(str(checkpoint), f"its settings: {message.text}", REMEDY) from None


@contextlib.contextmanager
def running(trainer: Trainer, checkpoint: Path | None) -> Iterator[None]:
    """Name the batch size, the checkpoint or the Trainer's settings where these end a command."""
    try:
        yield
    except (ReportedError, OSError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise _too_large(trainer) from error
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


def _too_large(trainer: Trainer) -> RunError:
    # By now the Trainer has forgotten its stage; the model is still in training mode, or not.
    name = "batch_size" if trainer.lightning_module.training else "eval_batch_size"
    size = getattr(CIFAR10DataModule.of(trainer), name)
    remedy = f"try --data.{name} {max(1, size // 2)}"
    return RunError(f"data.{name}", f"{size} images do not fit in memory", remedy)
