"""The checkpoint or the run that a command starts from."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_lightning.cli.argv import Arguments
from cifar_lightning.cli.config_files import check_yaml, flat, load_yaml
from cifar_lightning.errors import InputError, check
from cifar_lightning.runs import metrics_csv
from cifar_lightning.runs.checkpoint import Checkpoint, newest, read_checkpoint
from cifar_lightning.runs.layout import VERSION, RunFolder

# Settings of a Trainer that change nothing in what it computes.
INDIFFERENT = ("max_epochs", "enable_progress_bar", "logger", "enable_checkpointing", "log_every_n_steps", "profiler")

# What a checkpoint may have imported on its own word.
OURS = "cifar_lightning.models."


@dataclass(frozen=True)
class StartingPoint:
    """What a command starts from.

    Attributes:
        run: The run that is evaluated, or resumes.
        checkpoint: Of that run; None if it was stopped in its first epoch.
        settings: Arguments to put before what was given.
        may_be_done: Whether a run resumes that may turn out to have no epochs left.
    """

    run: RunFolder
    checkpoint: Checkpoint | None
    settings: list[str]
    may_be_done: bool


def find(command: str, given: Arguments, last: Callable[[], RunFolder | None]) -> StartingPoint | None:
    """Find the checkpoint or the run that was asked for.

    Args:
        command: `fit`, `validate`, `test` or `predict`.
        given: Its arguments.
        last: Returns the newest run of the name that these give.

    Raises:
        InputError: It is not there, not whole, or not for this command.
    """
    path, folder = given.ckpt_path, given.resume
    check(path is None or folder is None, "resume", folder, "either this or --ckpt_path")
    if command != "fit":
        check(folder is None, "resume", folder, "--ckpt_path: only `fit` resumes a run")
        if path is None:
            remedy = "give --ckpt_path RUN/checkpoints/best.ckpt"
            raise InputError("ckpt_path", f"{command} needs a checkpoint", remedy)
        return _from_checkpoint(Path(path), given)
    if folder is not None:
        for name, value in (("logs", given.logs), ("name", given.name)):
            check(value is None, name, value, "none: a run resumes in its folder")
        return from_run(RunFolder(Path(folder)), given)
    if path == "last":
        run = last()
        if run is None:
            print("nothing to resume: starts a new run")
        return from_run(run, given, configured=True) if run else None
    if path is None:
        return None
    start = _from_checkpoint(Path(path), given)
    if not (start.checkpoint and start.checkpoint.resumable):
        raise InputError(path, "written by an older version, it holds too little to resume from", "start a new run")
    return start


def _from_checkpoint(path: Path, given: Arguments) -> StartingPoint:
    checkpoint = read_checkpoint(path)
    settings = _settings(checkpoint, [Path(file) for file in given.configs], given.model)
    return StartingPoint(RunFolder.of_checkpoint(path), checkpoint, settings, may_be_done=False)


def from_run(run: RunFolder, given: Arguments, *, configured: bool = False) -> StartingPoint:
    """Take the newest whole checkpoint of a run, and the rest from its config.yaml.

    Args:
        run: To resume.
        given: The arguments of the command.
        configured: The rest is given again, as it was to begin with.

    Raises:
        InputError: There is no run in that folder, or none of its checkpoints is whole.
    """
    if not run.config.is_file() and not run.checkpoints.is_dir():
        raise InputError("resume", f"{run.path} is not the folder of a run", "name one: logs/cnn/version_0, say")
    settings, configs = [], [Path(file) for file in given.configs]
    if run.config.is_file() and not configured:
        check_yaml(run.config)
        configs.append(run.config)
        settings += ["--config", str(run.config)]
        root = flat(load_yaml(run.config)).get("data.root")
        if isinstance(root, str) and not Path(root).is_dir():  # it is gone, or the run came from another machine
            settings += ["--data.root=null"]
    checkpoint, broken = newest(run)
    for error in broken:
        print(f"not using {error.field}: {error.cause}", file=sys.stderr)
    if checkpoint:
        # config.yaml last: where a run was told to train more epochs, it knows before the next checkpoint does.
        settings = [*_settings(checkpoint, configs, given.model), *settings]
        return StartingPoint(run, checkpoint, settings, may_be_done=True)
    if broken:
        raise InputError("resume", f"no checkpoint in {run.path} is whole", "start a new run")
    if len(metrics_csv.read(run.metrics)) > 1:  # so its checkpoints were not to be kept
        raise InputError("resume", f"{run.path} has no checkpoint, only curves", "start a new run")
    print(f"{run.path}: no epoch was finished; starts from the beginning")
    return StartingPoint(run, None, settings, may_be_done=True)


def _settings(checkpoint: Checkpoint, configs: list[Path], model: str | None) -> list[str]:
    """Return the configuration that a checkpoint carries, as arguments; its model only if that is of this project.

    A class of their own is a person's to name, on the command line or in a file: a checkpoint may come from anywhere.
    """
    config, theirs = checkpoint.config, checkpoint.architecture
    if not theirs.startswith(OURS):
        named = [model, *(flat(load_yaml(file)).get("model.class_path") for file in configs)]
        if theirs not in named:
            remedy = "name it with --model or --config RUN/config.yaml, if you trust it"
            raise InputError(str(checkpoint.path), f"its model {theirs} is not of this project", remedy)
        config = {name: value for name, value in config.items() if name != "model"}
    return ["--config", json.dumps(config)]


def last_run(runs: Path) -> RunFolder | None:
    """Return the newest of the runs of one name; None if it has no checkpoint to resume from."""
    numbers = ((path.name.removeprefix(VERSION), path) for path in runs.glob(f"{VERSION}*"))
    versions = sorted((int(text) if text.isdigit() else -1, path) for text, path in numbers)
    newest_one = RunFolder(versions[-1][1]) if versions else None
    return newest_one if newest_one and any(newest_one.checkpoints.glob("*.ckpt")) else None


def changed_trainer(run: RunFolder, now: dict[str, Any]) -> list[str]:
    """Return the settings of the Trainer that differ from a run's config.yaml: `trainer.x 2 (there: 1)`.

    Args:
        run: That resumes.
        now: The configuration it resumes with.
    """
    there = load_yaml(run.config)["trainer"] if run.config.is_file() else now["trainer"]
    changed = {name: x for name, x in now["trainer"].items() if name not in INDIFFERENT and there.get(name) != x}
    return [f"trainer.{name} {x} (there: {there.get(name)})" for name, x in changed.items()]
