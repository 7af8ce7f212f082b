"""Where a command starts from: found before jsonargparse parses the rest, and compared with its settings after that."""

import json
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from cifar_lightning.cli.config_files import flat, load_yaml
from cifar_lightning.errors import InputError, check
from cifar_lightning.models import ImageClassifier
from cifar_lightning.runs import slurm
from cifar_lightning.runs.checkpoint import (
    NOT_RESTORED,
    OURS,
    Checkpoint,
    architecture,
    load,
    newest,
    read_checkpoint,
)
from cifar_lightning.runs.layout import LAST, RunFolder, versions

# Settings that may differ in a run that resumes: they change nothing in what it computes, or are checked elsewhere.
INDIFFERENT = {
    *("config", "ckpt_path", "resume", "logs", "name"),
    *(f"data.{name}" for name in ("root", *NOT_RESTORED)),
    *(f"trainer.{name}" for name in ("max_epochs", "logger", "log_every_n_steps", "profiler")),
    *(f"trainer.{name}" for name in ("enable_progress_bar", "enable_checkpointing")),
}
# Settings of a model that may differ where it is evaluated: they are not of its weights.
NOT_WEIGHTS = {"model.compile", "model.views"}


def read_arguments(args: Sequence[str]) -> tuple[Namespace, list[str]]:
    """Take `--ckpt_path` and `--resume` out: Lightning would put the checkpoint's settings over explicit flags.

    Return what these give, and `logs`, `name`, `model`, `init_from` and all `config` files, which stay; and the others,
    with several files behind `--data.images` (a shell expands `*.png`) as one list.
    """
    for flag, following in pairwise([*args, "--"]):  # the parser would name the section alone
        if (
            re.fullmatch(r"--[\w.]+", flag)
            and following.startswith("--")
            and not flag.endswith(("help", "--print_config", "--probabilities", "--force"))
        ):
            raise InputError(flag.lstrip("-"), "nothing follows it", "give a value")
    taken, seen = (ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False) for _ in range(2))
    for parser, flags in (
        (taken, ("--ckpt_path", "--resume")),
        (seen, ("--logs", "--name", "--model", "--init_from")),
    ):
        for flag in flags:
            parser.add_argument(flag)
    taken.add_argument("--data.images", nargs="+", dest="images", default=[])
    seen.add_argument("--config", "-c", action="append", default=[])
    given, rest = taken.parse_known_args(args)
    seen.parse_known_args(rest, given)
    if given.images:
        rest.append(f"--data.images={json.dumps(given.images) if len(given.images) > 1 else given.images[0]}")
    return given, rest


@dataclass(frozen=True)
class StartingPoint:
    """The run that a command evaluates or resumes."""

    run: RunFolder
    checkpoint: Checkpoint | None  # None if it was stopped in its first epoch
    arguments: list[str]  # to put before what was given, which thus wins
    settings: Mapping[str, Any]  # the checkpoint's, and for `fit` those of config.yaml, with dotted names

    def check(self, now: Mapping[str, Any], *, fits: bool) -> dict[str, tuple[Any, Any]]:
        """Check that a command with these settings is of the same model and data, a `fit` of the same run.

        Return the settings that differ otherwise, each with its value there and its value now.
        """
        shared = {name: (self.settings[name], value) for name, value in now.items() if name in self.settings}
        changed = {name: (x, y) for name, (x, y) in shared.items() if x != y and name not in INDIFFERENT}
        same, holder, remedy = ["model.", "data.source"], "the checkpoint", "leave it out"
        if fits:
            same, holder = ["seed_everything", "model.", "data.", "init_from"], "the run to resume"
            way = f"leave it out (`fit --resume {self.run.path}` needs no flags)"
            remedy = f"{way}, or start a new run from its weights with --init_from {self.run.path}"
        for name, (there, value) in changed.items():
            if name.startswith(tuple(same)) and (fits or name not in NOT_WEIGHTS):
                raise InputError(name, f"{value!r}, but {holder} has {there!r}", remedy)
        return changed

    def check_epochs(self, now: Mapping[str, Any]) -> None:
        """Check that a run that resumes has epochs left to train."""
        saved, steps, epochs = self.checkpoint, now["trainer.max_steps"], now["trainer.max_epochs"]
        assert saved is not None
        schedule = now.get("model.schedule", "constant")
        for name, given, done, laid_out in (
            ("max_epochs", epochs or 0, saved.epochs, saved.max_epochs),
            ("max_steps", steps, saved.steps, self.settings.get("trainer.max_steps", steps)),
        ):
            if 0 <= given < done:
                cause = f"{given}, but {saved.path} has done {done}"
                raise InputError(f"trainer.{name}", cause, "give more, or test the checkpoint")
            if schedule != "constant" and now[f"trainer.{name}"] != laid_out:
                cause = f"{given}, but the {schedule} schedule was laid out for {laid_out}"
                raise InputError(f"trainer.{name}", cause, "leave it at that, or start a new run")


def find(command: str, given: Namespace, runs: Path | None, arguments: Sequence[str]) -> StartingPoint | None:
    """Find the checkpoint to evaluate, or the run to resume: the one that was asked for, or that of this SLURM job.

    `runs` is the folder of all runs of one name, or None where `best`, `last` and the job need not be looked up in it.
    """
    path, folder, fits = given.ckpt_path, given.resume, command == "fit"
    check(path != "", "ckpt_path", path, "a path")
    check(path is None or folder is None, "resume", folder, "either this or --ckpt_path")
    check(fits or folder is None, "resume", folder, "--ckpt_path: only `fit` resumes a run")
    check(fits or given.init_from is None, "init_from", given.init_from, "--ckpt_path: only `fit` starts a run")
    if not fits:
        if path is None:
            raise InputError("ckpt_path", f"{command} needs a checkpoint", "give --ckpt_path RUN, for its best one")
        checkpoint = read_checkpoint(checkpoint_of(path, runs))
        return _start(RunFolder.of_checkpoint(checkpoint.path), checkpoint, given, fits=False)
    if folder is not None:
        run: RunFolder | None = _run_to_resume(given)
    elif path == "last":
        if (run := last_run(runs) if runs else None) is None:
            print("nothing to resume: starts a new run")
    elif path is not None:
        run = RunFolder(Path(path))
        run = run if run.exists() else RunFolder.of_checkpoint(run.path)
        remedy = f"give --resume {run.path if run.exists() else 'RUN'} to resume the run that it is of"
        remedy += f", or --init_from {path} to start a new run from its weights"
        raise InputError("ckpt_path", f"{path}: `fit` resumes runs, not files", remedy)
    elif (run := slurm.run_of_job(runs, arguments) if runs else None) is not None:
        print(f"SLURM job {slurm.job_id()}: resumes its run {run.path}")
    return _start(run, newest(run), given, fits=True) if run else None


def checkpoint_of(path: str, runs: Path | None = None) -> Path:
    """Return the file that is meant by a path, by a run (its best), or by `best` and `last` of the newest of `runs`."""
    if runs is None:
        run = RunFolder(Path(path))
        return run.best() if run.exists() else run.path
    if not (there := max(versions(runs), default=None)):
        raise InputError("ckpt_path", f"{path}: there is no run in {runs}", "give --ckpt_path RUN, or another --name")
    run = RunFolder(there[1])
    return run.best() if path == "best" else run.checkpoint(LAST)


def initialize(model: ImageClassifier, path: Path) -> None:
    """Give a model the weights of a checkpoint of the same architecture and shapes."""
    found, own = read_checkpoint(path), {name: tensor.shape for name, tensor in model.state_dict().items()}
    there, here = found.config["model"]["class_path"], architecture(model)
    remedy = "give the settings of that model: --config RUN/config.yaml"
    if there != here:
        raise InputError("init_from", f"{path} is of a {there}, and this run of a {here}", remedy)
    names = (name for name in {**found.shapes, **own} if found.shapes.get(name) != own.get(name))
    if name := next(names, None):
        shapes = (str([*shapes[name]]) if name in shapes else "missing" for shapes in (found.shapes, own))
        raise InputError("init_from", f"{name} in {path} is {next(shapes)}, in this run {next(shapes)}", remedy)
    model.load_state_dict(load(path)["state_dict"])
    print(f"{path}: {type(model).__name__} after epoch {found.epochs}; starts a new run from its weights")


def _run_to_resume(given: Namespace) -> RunFolder:
    for name in ("logs", "name", "init_from"):
        check(getattr(given, name) is None, name, getattr(given, name), "none: a run resumes as it is, in its folder")
    run = RunFolder(Path(given.resume))
    if not run.exists():
        parents, inside = run.path.parents[:2], sorted(versions(run.path), reverse=True)
        near = (path for path in (*parents, *(path for _, path in inside)) if RunFolder(path).exists())
        remedy = f"name one: --resume {next(near, 'logs/cnn/version_0, say')}"
        raise InputError("resume", f"{run.path} is not the folder of a run", remedy)
    return run


def last_run(runs: Path) -> RunFolder | None:
    """Return the newest of the runs of one name; None if it has no checkpoint to resume from."""
    found = max(versions(runs), default=None)
    return RunFolder(found[1]) if found and any(RunFolder(found[1]).checkpoints.glob("*.ckpt")) else None


def _start(run: RunFolder, checkpoint: Checkpoint | None, given: Namespace, *, fits: bool) -> StartingPoint:
    """Gather what a run's config.yaml and its checkpoint say of its settings."""
    settings = flat(load_yaml(run.config)) if fits and run.config.is_file() else {}
    arguments: list[str] = []
    if settings and given.resume:
        arguments, root = [f"--config={run.config}"], settings.get("data.root")
        if isinstance(root, str) and not Path(root).is_dir():
            arguments.append("--data.root=null")  # it is gone, or the run came from another machine
    elif checkpoint:
        own = dict(checkpoint.config)
        if not (model := own["model"]["class_path"]).startswith(OURS):
            if not (given.model or given.config):
                remedy = "name it with --model or --config RUN/config.yaml, if you trust it"
                raise InputError(str(checkpoint.path), f"its model {model} is not of this project", remedy)
            del own["model"]
        arguments = [f"--config={json.dumps(own)}"]
    settings |= flat(checkpoint.config) if checkpoint else {}
    return StartingPoint(run, checkpoint, arguments, settings)
