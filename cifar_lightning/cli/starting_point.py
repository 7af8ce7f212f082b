"""What a command starts from: a checkpoint, or a run that goes on in its own folder, put right before it does."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from cifar_lightning.cli.argv import last_value, without
from cifar_lightning.cli.config_files import check_yaml
from cifar_lightning.errors import InputError, check
from cifar_lightning.runs import metrics_csv
from cifar_lightning.runs.checkpoint import Checkpoint, newest, read_checkpoint, run_folder
from cifar_lightning.runs.layout import RunFolder

# Settings of a Trainer that change nothing in what it computes.
INDIFFERENT = ("max_epochs", "enable_progress_bar", "logger", "enable_checkpointing", "log_every_n_steps", "profiler")


class Origin(NamedTuple):
    """What a command starts from.

    Attributes:
        run: The folder of a run that is tested, or goes on.
        checkpoint: Of that run; None if it was stopped in its first epoch.
        settings: Words to put before what was given.
        again: Whether a run goes on that may turn out to be done.
    """

    run: Path
    checkpoint: Checkpoint | None
    settings: list[str]
    again: bool


def find(command: str, given: Sequence[str], last_run: Callable[[Sequence[str]], Path | None]) -> Origin | None:
    """Finds the checkpoint or the run that was asked for.

    Args:
        command: What to do with it.
        given: The words behind the command.
        last_run: The newest run of the name that such words give.

    Raises:
        InputError: It is not there, not whole, or not for this command.
    """
    path, folder = last_value("--ckpt_path", given), last_value("--resume", given)
    for name, value in (("ckpt_path", path), ("resume", folder)):
        check(value != "", name, value, "a path")
    check(path is None or folder is None, "resume", folder, "either this or --ckpt_path")
    if command in ("validate", "test", "predict"):
        check(folder is None, "resume", folder, "--ckpt_path: only `fit` goes on with a run")
        if path is None:
            remedy = "give --ckpt_path RUN/checkpoints/best.ckpt"
            raise InputError("ckpt_path", f"{command} needs a checkpoint", remedy)
    if folder is not None:
        for flag in ("--logs", "--name"):
            check(
                last_value(flag, given) is None, flag[2:], last_value(flag, given), "none: a run goes on in its folder"
            )
        return from_run(Path(folder))
    if command == "fit" and path == "last":
        last = last_run(without("--ckpt_path", given))
        if last is None:
            print("nothing to go on with: starts a new run")
        return from_run(last, configured=True) if last else None
    if path is None:
        return None
    origin = from_checkpoint(Path(path))
    if command == "fit" and not (origin.checkpoint and origin.checkpoint.resumable):
        raise InputError(path, "written by an older version, it holds too little to go on from", "start a new run")
    return origin


def from_checkpoint(path: Path) -> Origin:
    """Takes everything from a checkpoint alone.

    Raises:
        InputError: It is not there, or not whole.
    """
    checkpoint = read_checkpoint(path)
    return Origin(run_folder(path), checkpoint, ["--config", json.dumps(checkpoint.config)], again=False)


def from_run(folder: Path, *, configured: bool = False) -> Origin:
    """Takes the newest whole checkpoint of a run, and the rest from its config.yaml.

    Args:
        folder: Of the run.
        configured: The rest is given again, as it was to begin with.

    Raises:
        InputError: There is no run in that folder, or none of its checkpoints is whole.
    """
    config, settings = folder / "config.yaml", []
    if not config.is_file() and not (folder / "checkpoints").is_dir():
        raise InputError("resume", f"{folder} is not the folder of a run", "name one: logs/cnn/version_0, say")
    if config.is_file() and not configured:
        check_yaml(config)
        settings += ["--config", str(config)]
        root = (yaml.safe_load(config.read_text()).get("data") or {}).get("root")
        if isinstance(root, str) and not Path(root).is_dir():  # it is gone, or the run came from another machine
            settings += ["--data.root=null"]
    checkpoint, broken = newest(folder)
    for error in broken:
        print(f"not using {error.field}: {error.cause}", file=sys.stderr)
    if checkpoint:
        # config.yaml last: where a run was told to go on for more epochs, it knows before the next checkpoint does.
        settings = ["--config", json.dumps(checkpoint.config), *settings]
        return Origin(folder, checkpoint, settings, again=True)
    if broken:
        raise InputError("resume", f"no checkpoint in {folder} is whole", "start a new run")
    if len(metrics_csv.read(RunFolder(folder).metrics)) > 1:  # so their checkpoints were not to be kept
        raise InputError("resume", f"{folder} has no checkpoint, only curves", "start a new run")
    print(f"{folder}: no epoch was finished; starts from the beginning")
    return Origin(folder, None, settings, again=True)


def last_run(runs: Path) -> Path | None:
    """The newest of the runs of one name, in a folder of `version_N`; None if it has nothing to go on from."""
    versions = sorted(runs.glob("version_*"), key=lambda path: int(path.name[8:]) if path.name[8:].isdigit() else -1)
    return versions[-1] if versions and any(versions[-1].glob("checkpoints/*.ckpt")) else None


def changed_trainer(run: Path, config: str) -> list[str]:
    """Settings of the Trainer that a run does not go on with as it began, in words: `trainer.x 2 (there: 1)`.

    Args:
        run: Its folder.
        config: What it goes on with, in the words of config.yaml.
    """
    file = run / "config.yaml"
    there, now = (yaml.safe_load(text)["trainer"] for text in (file.read_text() if file.is_file() else config, config))
    changed = [name for name in now if name not in INDIFFERENT and there.get(name) != now[name]]
    return [f"trainer.{name} {now[name]} (there: {there.get(name)})" for name in changed]
