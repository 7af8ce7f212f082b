"""Whether a checkpoint and the settings of a command go together."""

from typing import Any

from torch import nn

from cifar_lightning.errors import InputError, check
from cifar_lightning.runs.checkpoint import Checkpoint, architecture


def differences(checkpoint: Checkpoint, config: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings of seed, model and data that are not the checkpoint's: name to (its value, the value now)."""
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


def check_continues(checkpoint: Checkpoint, config: dict[str, Any], *, again: bool) -> None:
    """Raises an `InputError` unless training can go on under these settings: the same run, with epochs left to do.

    Args:
        checkpoint: What it goes on from.
        config: All that `fit` goes on with.
        again: Whether there may be no epochs left: a run that is told to go on until it is done, and is.
    """
    for name, (there, now) in differences(checkpoint, config).items():
        raise InputError(name, f"{now!r}, but the run that goes on has {there!r}", "leave it out, or start a new run")
    steps = config["trainer"]["max_steps"]
    if steps not in (None, -1) and not checkpoint.midway:  # Lightning would end the epoch once more
        cause = f"{steps}, but a run that counts steps goes on exactly only in the middle of an epoch"
        raise InputError("trainer.max_steps", cause, "give --trainer.max_steps -1 and how many epochs")
    epochs, schedule = config["trainer"]["max_epochs"], config["model"]["init_args"]["schedule"]
    if 0 <= (epochs or 0) < checkpoint.epochs + (not again):
        cause = f"{epochs}, but {checkpoint.path} has done {checkpoint.epochs}"
        raise InputError("trainer.max_epochs", cause, "give more, or test the checkpoint")
    if schedule != "constant" and epochs != checkpoint.max_epochs:
        cause = f"{epochs}, but the {schedule} schedule was laid out for {checkpoint.max_epochs}"
        raise InputError("trainer.max_epochs", cause, "leave it at that, or start a new run")


def check_evaluates(checkpoint: Checkpoint, command: str, config: dict[str, Any]) -> None:
    """Raises an `InputError` unless these settings leave a command of evaluation something of the same kind to do."""
    there, now = checkpoint.config["data"]["source"], config["data"]["source"]
    if there != now:
        raise InputError("data.source", f"{now}, but the checkpoint was trained on {there}", "leave it out")
    if command == "validate" and not config["data"]["val_size"]:
        raise InputError("data.val_size", "0 leaves nothing to validate on", "give --data.val_size 10000")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def check_fits(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Raises an `InputError` unless the checkpoint is of this architecture, its weights the same by name and shape."""
    remedy = f"leave out --config and --model: {checkpoint.path} knows its own"
    if architecture(model) != checkpoint.architecture:
        cause = f"{architecture(model)} was asked for, the checkpoint holds {checkpoint.architecture}"
        raise InputError("model", cause, remedy)
    theirs = {name: tuple(tensor.shape) for name, tensor in checkpoint.weights.items()}
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    differing = sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))
    if differing:
        name = differing[0]
        cause = f"{name} is {theirs.get(name, 'absent')} in the checkpoint, {ours.get(name, 'absent')} in this model"
        raise InputError("model", cause, remedy)


def check_goes_on(config: Any) -> None:
    """Raises an `InputError` if a run can't go on in its folder with these settings of the Trainer."""
    check(not config.trainer.fast_dev_run, "trainer.fast_dev_run", True, "false: this run goes on")
    own = config.trainer.logger in (None, True, False)
    check(own, "trainer.logger", "another logger", "this program's own: this run goes on")
