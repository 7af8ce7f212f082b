"""Whether a checkpoint, a run's folder and the settings of a command go together."""

import contextlib
import os
from pathlib import Path
from typing import Any

from torch import nn

from cifar_lightning.errors import InputError, check
from cifar_lightning.runs.checkpoint import Checkpoint, architecture


def differences(checkpoint: Checkpoint, config: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings of seed, model and data that are not the checkpoint's: name to (its value, value now)."""
    kept, found = checkpoint.config, {}
    groups = {
        "": (kept, {"seed_everything": config["seed_everything"]}),
        "model.": (kept["model"]["init_args"], config["model"]["init_args"]),
        "data.": (kept["data"], config["data"]),
    }
    for prefix, (there, now) in groups.items():
        for name, value in now.items():
            if name in there and name != "root" and _plain(there[name]) != _plain(value):
                found[prefix + name] = (there[name], value)
    return found


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def check_resumes(checkpoint: Checkpoint, config: dict[str, Any], *, may_be_done: bool) -> None:
    """Raise an `InputError` unless training can resume with these settings: the same run, with epochs left to train.

    Args:
        checkpoint: To resume from.
        config: All settings of the `fit`.
        may_be_done: Whether there may be no epochs left.
    """
    for name, (there, now) in differences(checkpoint, config).items():
        raise InputError(name, f"{now!r}, but the run to resume has {there!r}", "leave it out, or start a new run")
    steps = config["trainer"]["max_steps"]
    if steps not in (None, -1) and not checkpoint.midway:  # Lightning would end the epoch once more
        cause = f"{steps}, but a run that counts steps resumes exactly only in the middle of an epoch"
        raise InputError("trainer.max_steps", cause, "give --trainer.max_steps -1 and how many epochs")
    epochs, schedule = config["trainer"]["max_epochs"], config["model"]["init_args"].get("schedule", "constant")
    if 0 <= (epochs or 0) < checkpoint.epochs + (not may_be_done):
        cause = f"{epochs}, but {checkpoint.path} has done {checkpoint.epochs}"
        raise InputError("trainer.max_epochs", cause, "give more, or test the checkpoint")
    if schedule != "constant" and epochs != checkpoint.max_epochs:
        cause = f"{epochs}, but the {schedule} schedule was laid out for {checkpoint.max_epochs}"
        raise InputError("trainer.max_epochs", cause, "leave it at that, or start a new run")


def check_resumes_in_place(config: Any) -> None:
    """Raise an `InputError` if a run can't resume in its folder with these settings of the Trainer."""
    check(not config.trainer.fast_dev_run, "trainer.fast_dev_run", True, "false: this run resumes")
    own = config.trainer.logger in (None, True, False)
    check(own, "trainer.logger", "another logger", "this program's own: this run resumes")


def check_evaluates(checkpoint: Checkpoint, command: str, config: dict[str, Any]) -> None:
    """Raise an `InputError` unless these settings leave images of the same kind to evaluate."""
    there, now = checkpoint.config["data"]["source"], config["data"]["source"]
    if there != now:
        raise InputError("data.source", f"{now}, but the checkpoint was trained on {there}", "leave it out")
    if command == "validate" and not config["data"]["val_size"]:
        raise InputError("data.val_size", "0 leaves nothing to validate on", "give --data.val_size 10000")


def check_fits(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Raise an `InputError` unless the checkpoint is of this architecture, its weights the same by name and shape."""
    remedy = f"leave out --config and --model: {checkpoint.path} knows its own"
    if architecture(model) != checkpoint.architecture:
        cause = f"{architecture(model)} was asked for, the checkpoint holds {checkpoint.architecture}"
        raise InputError("model", cause, remedy)
    theirs = {name: tuple(tensor.shape) for name, tensor in checkpoint.weights.items()}
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in sorted(theirs.keys() | ours.keys()):
        if theirs.get(name) != ours.get(name):
            there, here = theirs.get(name, "absent"), ours.get(name, "absent")
            raise InputError("model", f"{name} is {there} in the checkpoint, {here} in this model", remedy)


def check_logs(folder: Path) -> None:
    """Raise an `InputError` unless a run can have its folder in there."""
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            folder.lstat()  # a name too long is an OSError here
        there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    except OSError as error:
        raise InputError("logs", f"{folder}: {error.strerror}", "name another with --logs") from error
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        cause = "can't be written to" if there.is_dir() else "is not a folder"
        raise InputError("logs", f"{there} {cause}", "name another with --logs")
