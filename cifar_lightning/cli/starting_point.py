"""Where a command starts from, found before jsonargparse parses the rest, and whether its settings go with that."""

import json
import os
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from cifar_lightning.cli.config_files import flat, load_yaml
from cifar_lightning.errors import InputError, check
from cifar_lightning.runs import metrics_csv
from cifar_lightning.runs.checkpoint import OURS, Checkpoint, architecture, newest, read_checkpoint
from cifar_lightning.runs.layout import RunFolder, versions

# Settings of a Trainer that change nothing in what it computes.
INDIFFERENT = ("max_epochs", "enable_progress_bar", "logger", "enable_checkpointing", "log_every_n_steps", "profiler")

Changes = dict[str, tuple[Any, Any]]  # a setting to its value there and its value now


class StartingPoint(NamedTuple):
    """The run that a command evaluates or resumes."""

    run: RunFolder
    checkpoint: Checkpoint | None  # None if it was stopped in its first epoch
    settings: list[str]  # arguments to put before what was given, which thus wins
    may_be_done: bool  # whether it resumes only to find that it has no epochs left


def read_arguments(args: Sequence[str]) -> tuple[Namespace, list[str]]:
    """Take `--ckpt_path` and `--resume` out: Lightning would put the checkpoint's settings over explicit flags.

    Return what these give, and `logs`, `name`, `model` and all `config` files, which stay; and the other arguments,
    with several files behind `--data.images` (a shell expands `*.png`) as one list.
    """
    for flag, following in pairwise([*args, "--"]):  # the parser would name the section alone
        if re.fullmatch(r"--[\w.]+", flag) and following.startswith("--") and flag not in ("--help", "--print_config"):
            raise InputError(flag.lstrip("-"), "nothing follows it", "give a value")
    taken, seen, images = (ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False) for _ in range(3))
    for parser, flags in ((taken, ("--ckpt_path", "--resume")), (seen, ("--logs", "--name", "--model"))):
        for flag in flags:
            parser.add_argument(flag)
    seen.add_argument("--config", "-c", action="append", default=[])
    images.add_argument("--data.images", nargs="+", dest="images", default=[])
    given, rest = taken.parse_known_args(args)
    seen.parse_known_args(rest, given)
    found, others = images.parse_known_args(rest)
    return given, [*others, f"--data.images={json.dumps(found.images)}"] if len(found.images) > 1 else rest


def find(command: str, given: Namespace, runs: Callable[[], Path]) -> StartingPoint | None:
    """Find the checkpoint or the run that was asked for; `runs` returns the folder of all runs of the name given."""
    path, folder, fits = given.ckpt_path, given.resume, command == "fit"
    check(path != "", "ckpt_path", path, "a path")
    check(folder != "", "resume", folder, "a path")
    check(path is None or folder is None, "resume", folder, "either this or --ckpt_path")
    check(fits or folder is None, "resume", folder, "--ckpt_path: only `fit` resumes a run")
    if folder is not None:
        for name in ("logs", "name"):
            check(getattr(given, name) is None, name, getattr(given, name), "none: a run resumes in its folder")
        return from_run(RunFolder(Path(folder)), given)
    if fits and path is None:
        return None
    if path is None:
        raise InputError("ckpt_path", f"{command} needs a checkpoint", "give --ckpt_path RUN/checkpoints/best.ckpt")
    if fits and path == "last":
        if run := last_run(runs()):
            return from_run(run, given, configured=True)
        print("nothing to resume: starts a new run")
        return None
    checkpoint = read_checkpoint(Path(path))
    if fits and not checkpoint.resumable:
        raise InputError(path, "written by an older version, it holds too little to resume from", "start a new run")
    return StartingPoint(RunFolder.of_checkpoint(checkpoint.path), checkpoint, _settings(checkpoint, given), False)


def from_run(run: RunFolder, given: Namespace, *, configured: bool = False) -> StartingPoint:
    """Take a run's newest whole checkpoint, and the rest from its config.yaml, unless that is `configured` again."""
    if not run.config.is_file() and not run.checkpoints.is_dir():
        raise InputError("resume", f"{run.path} is not the folder of a run", "name one: logs/cnn/version_0, say")
    configs = [run.config] if run.config.is_file() and not configured else []
    settings = [f"--config={config}" for config in configs]
    roots = [flat(load_yaml(config)).get("data.root") for config in configs]
    if any(isinstance(root, str) and not Path(root).is_dir() for root in roots):
        settings.append("--data.root=null")  # it is gone, or the run came from another machine
    checkpoint, broken = newest(run)
    for error in broken:
        print(f"not using {error.field}: {error.cause}", file=sys.stderr)
    if checkpoint:
        # config.yaml last: where a run was told to train more epochs, it knows before the next checkpoint does.
        return StartingPoint(run, checkpoint, [*_settings(checkpoint, given, *configs), *settings], True)
    if broken:
        raise InputError("resume", f"no checkpoint in {run.path} is whole", "start a new run")
    if len(metrics_csv.read(run.metrics)) > 1:  # so its checkpoints were not to be kept
        raise InputError("resume", f"{run.path} has no checkpoint, only curves", "start a new run")
    print(f"{run.path}: no epoch was finished; starts from the beginning")
    return StartingPoint(run, None, settings, True)


def _settings(checkpoint: Checkpoint, given: Namespace, *configs: Path) -> list[str]:
    """Return the configuration that a checkpoint carries, as arguments; its model only if that is of this project."""
    settings, theirs = checkpoint.config, checkpoint.architecture
    if not theirs.startswith(OURS):
        files = (*map(Path, given.config), *configs)
        if theirs not in [given.model, *(flat(load_yaml(file)).get("model.class_path") for file in files)]:
            remedy = "name it with --model or --config RUN/config.yaml, if you trust it"
            raise InputError(str(checkpoint.path), f"its model {theirs} is not of this project", remedy)
        settings = {name: value for name, value in settings.items() if name != "model"}
    return ["--config", json.dumps(settings)]


def last_run(runs: Path) -> RunFolder | None:
    """Return the newest of the runs of one name; None if it has no checkpoint to resume from."""
    found = max(versions(runs), default=None)
    return RunFolder(found[1]) if found and any(RunFolder(found[1]).checkpoints.glob("*.ckpt")) else None


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
        folder.lstat()
    except (FileNotFoundError, NotADirectoryError):
        folder = next(path for path in folder.absolute().parents if os.path.lexists(path))
    except OSError as error:  # the name is too long, say
        raise InputError("logs", f"{folder}: {error.strerror}", "name another with --logs") from error
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        cause = "can't be written to" if folder.is_dir() else "is not a folder"
        raise InputError("logs", f"{folder} {cause}", "name another with --logs")
