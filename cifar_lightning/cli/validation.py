"""Whether a checkpoint, a run's folder and the settings of a command go together: an `InputError` where they do not."""

import contextlib
import os
from pathlib import Path
from typing import Any

from torch import nn

from cifar_lightning.cli.config_files import load_yaml
from cifar_lightning.errors import InputError
from cifar_lightning.runs.checkpoint import Checkpoint, architecture
from cifar_lightning.runs.layout import RunFolder

# Settings of a Trainer that change nothing in what it computes.
INDIFFERENT = ("max_epochs", "enable_progress_bar", "logger", "enable_checkpointing", "log_every_n_steps", "profiler")

Changes = dict[str, tuple[Any, Any]]  # a setting to its value there and its value now


def changes(checkpoint: Checkpoint, config: dict[str, Any]) -> Changes:
    """Return the settings of seed, model and data that differ from the checkpoint's."""

    def dotted(settings: dict[str, Any]) -> dict[str, Any]:
        model, data = settings["model"]["init_args"], settings["data"]
        named = {f"model.{n}": x for n, x in model.items()} | {f"data.{n}": x for n, x in data.items() if n != "root"}
        named = {"seed_everything": settings["seed_everything"]} | named
        return {name: list(value) if isinstance(value, tuple) else value for name, value in named.items()}

    there, now = dotted(checkpoint.config), dotted(config)
    return {name: (there[name], value) for name, value in now.items() if there.get(name, value) != value}


def trainer_changes(run: RunFolder, now: dict[str, Any]) -> Changes:
    """Return the settings of the Trainer that differ from a run's config.yaml."""
    there = load_yaml(run.config)["trainer"] if run.config.is_file() else now
    changed = (name for name, x in now.items() if name not in INDIFFERENT and there.get(name) != x)
    return {f"trainer.{name}": (there.get(name), now[name]) for name in changed}


def check_resumes(checkpoint: Checkpoint, config: dict[str, Any], changed: Changes, *, may_be_done: bool) -> None:
    """Check that `fit` resumes the same run with these settings, and has epochs left to train."""
    for name, (there, now) in changed.items():
        raise InputError(name, f"{now!r}, but the run to resume has {there!r}", "leave it out, or start a new run")
    steps, epochs = config["trainer"]["max_steps"], config["trainer"]["max_epochs"]
    if steps not in (None, -1) and not checkpoint.midway:  # Lightning would end the epoch once more
        cause = f"{steps}, but a run that counts steps resumes exactly only in the middle of an epoch"
        raise InputError("trainer.max_steps", cause, "give --trainer.max_steps -1 and how many epochs")
    if 0 <= (epochs or 0) < checkpoint.epochs + (not may_be_done):
        cause = f"{epochs}, but {checkpoint.path} has done {checkpoint.epochs}"
        raise InputError("trainer.max_epochs", cause, "give more, or test the checkpoint")
    schedule = config["model"]["init_args"].get("schedule", "constant")
    if schedule != "constant" and epochs != checkpoint.max_epochs:
        cause = f"{epochs}, but the {schedule} schedule was laid out for {checkpoint.max_epochs}"
        raise InputError("trainer.max_epochs", cause, "leave it at that, or start a new run")


def check_fits(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Check that the checkpoint is of this architecture, its weights the same by name and shape."""
    remedy, asked = f"leave out --config and --model: {checkpoint.path} knows its own", architecture(model)
    if asked != checkpoint.architecture:
        raise InputError("model", f"{asked} was asked for, the checkpoint holds {checkpoint.architecture}", remedy)
    there, here = ({n: tuple(x.shape) for n, x in w.items()} for w in (checkpoint.weights, model.state_dict()))
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            cause = f"{name} is {there.get(name, 'absent')} in the checkpoint, {here.get(name, 'absent')} in this model"
            raise InputError("model", cause, remedy)


def check_logs(folder: Path) -> None:
    """Check that a run can have its folder in there."""
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            folder.lstat()  # raises if the name is too long
        there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    except OSError as error:
        raise InputError("logs", f"{folder}: {error.strerror}", "name another with --logs") from error
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        cause = "can't be written to" if there.is_dir() else "is not a folder"
        raise InputError("logs", f"{there} {cause}", "name another with --logs")
