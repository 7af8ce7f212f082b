"""The folder of a run while it trains: no other process's, repaired if the run resumes, gone if nothing came of it."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from lightning.pytorch import Trainer

from cifar_lightning.callbacks.early_stopping import SCHEDULE_ENDS, may_end, stands
from cifar_lightning.cli.starting_point import StartingPoint
from cifar_lightning.errors import InputError
from cifar_lightning.runs import slurm
from cifar_lightning.runs.layout import RunFolder
from cifar_lightning.runs.recovery import repair
from cifar_lightning.runs.tensorboard_logger import RunLogger
from cifar_lightning.utils import files


def check_logs(folder: Path) -> None:
    """Check that a run can have its folder in there."""
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.is_symlink() or path.exists())
    except OSError as error:  # the name is too long, say
        raise InputError("logs", f"{folder}: {error.strerror}", "name another with --logs") from error
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise InputError("logs", f"{there} is no folder that can be written to", "name another with --logs")


@contextlib.contextmanager
def hold_folder(
    trainer: Trainer, start: StartingPoint | None, arguments: Sequence[str]
) -> Iterator[tuple[str, Path | None]]:
    """Hold a run's folder, repaired; yield why there is nothing left to do, and the checkpoint to start from."""
    if not isinstance(trainer.logger, RunLogger):
        yield "", None
        return
    folder = Path(trainer.logger.log_dir)
    try:
        with files.locked(folder):
            if start is None:
                slurm.record(RunFolder(folder), arguments)
                yield "", None
            else:
                path, why = repair(start.run, start.checkpoint), _done(trainer, start)
                yield why and f"{folder}: {why}", path
    except BlockingIOError:
        raise InputError(str(folder), "another process is training here", "wait for it, or stop it") from None
    except Exception:
        if start is None and not trainer.global_step:  # before it has trained a step
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # there are other runs
                folder.parent.rmdir()
        raise


def _done(trainer: Trainer, start: StartingPoint) -> str:
    """Return why a run that resumes has nothing left to do, and how to go on; empty if it has."""
    saved, constant = start.checkpoint, start.settings.get("model.schedule", "constant") == "constant"
    longer = "for more give a larger --trainer.{}" if constant else SCHEDULE_ENDS
    if saved is None:
        return ""
    if saved.epochs == trainer.max_epochs:
        return f"all epochs are done; {longer.format('max_epochs')}"
    if saved.steps == trainer.max_steps:
        return f"max_steps {saved.steps} is reached; {longer.format('max_steps')}"
    if not stands(saved.asked, trainer) or not may_end(trainer, saved.epochs, saved.steps):
        return ""
    step = f"step {saved.midway} in epoch {saved.epochs + 1}" if saved.midway else f"epoch {saved.epochs}"
    return f"stopped after {step} of {trainer.max_epochs}: {saved.asked['reason']}; {saved.asked['way_on']}"
