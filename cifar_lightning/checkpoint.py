"""What a checkpoint knows of its run, and the configuration that this makes."""

import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cifar_lightning.errors import InputError

# Settings of a data module that belong to one call or one machine, not to the run.
NOT_RESTORED = ("images", "num_workers", "seed", "mirrors")

REMEDY = "give a .ckpt file that `fit` of this program wrote"


class Checkpoint(NamedTuple):
    """A checkpoint of ours.

    Attributes:
        path: The file.
        config: Seed, model, data and precision, in the form of a configuration file.
        weights: The model's state, by name.
        epochs: Epochs done when it was saved.
        steps: Training steps done.
        midway: Of these, steps of an epoch that is not done: 0 if it was saved at the end of one.
        rows: The curves so far, a row an epoch, as in metrics.csv.
        max_epochs: Epochs that the run was to last; None where it was not laid down.
    """

    path: Path
    config: dict[str, Any]
    weights: dict[str, Tensor]
    epochs: int
    steps: int
    midway: int
    rows: list[dict[str, float]]
    max_epochs: int | None

    @property
    def progress(self) -> str:
        """How far it is, in words."""
        return f"after epoch {self.epochs}" + (f" and {self.midway} steps" if self.midway else "")

    @property
    def architecture(self) -> str:
        """The class of the model, with its module."""
        return str(self.config["model"]["class_path"])


def run_folder(path: Path) -> Path:
    """The folder of the run that saved a checkpoint."""
    return path.parent.parent if path.parent.name == "checkpoints" else path.parent


def newest(folder: Path) -> tuple[Checkpoint | None, list[InputError]]:
    """The whole checkpoint that is furthest on, of a run's folder; None if there is none.

    Returns:
        It, and what is wrong with each that is not whole.
    """
    whole, broken = [], []
    for path in sorted((folder / "checkpoints").glob("*.ckpt")):
        try:
            whole.append(read_checkpoint(path))
        except InputError as error:
            broken.append(error)
    # The name decides between equals: last.ckpt, not the best.ckpt of the same epoch.
    return max(whole, key=lambda found: (found.steps, found.path.name), default=None), broken


def load(path: Path) -> dict[str, Any]:
    """Reads a file of tensors and plain values, and nothing else: no code in it can run, no class in it is looked up.

    Raises:
        InputError: It can't be read, or is not as it was written: `torch.save` writes a CRC-32 of each part, which
            `torch.load` does not look at.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if part := archive.testzip():
                raise zipfile.BadZipFile(part)
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return content
    except OSError as error:
        raise InputError(str(path), f"can't be read ({error.strerror})", REMEDY) from error
    except Exception as error:  # broken bytes make zipfile, zlib and pickle raise anything
        raise InputError(str(path), "damaged, or not a checkpoint of this program", REMEDY) from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint.

    Raises:
        InputError: It is not there, damaged, or not one of ours.
    """
    if not path.is_file():
        raise InputError(str(path), "there is no such checkpoint", "a run leaves its own in RUN/checkpoints/best.ckpt")
    content = load(path)
    try:
        settings = content["datamodule_hyper_parameters"]
        data = {name: value for name, value in settings.items() if name not in NOT_RESTORED}
        if data["root"] and not Path(data["root"]).is_dir():
            data["root"] = None  # it came from another machine
        config = {
            "seed_everything": settings["seed"],
            "model": {"class_path": content["architecture"], "init_args": dict(content["hyper_parameters"])},
            "data": data,
            "trainer": {"precision": content["precision"]},
        }
        max_epochs = content.get("max_epochs")
        if max_epochs:
            config["trainer"]["max_epochs"] = max_epochs
        loop = content["loops"]["fit_loop"]
        epochs = loop["epoch_progress"]["current"]
        midway = loop["epoch_loop.batch_progress"]["current"]["processed"] * (epochs["processed"] < epochs["ready"])
        rows = [dict(row) for row in content["callbacks"]["History"]["rows"]]
        [float(x) for row in rows for x in row.values()]  # numbers
        weights = {name: tensor.detach() for name, tensor in content["state_dict"].items()}
        steps = content["global_step"]
        json.dumps(config)  # plain values
        content["optimizer_states"][0]["param_groups"]  # without it, no run goes on
        torch.Generator().set_state(content["callbacks"]["EpochSeed"]["cpu"])  # nor without this
        return Checkpoint(path, config, weights, epochs["processed"], steps, midway, rows, max_epochs)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        raise InputError(str(path), "not a checkpoint of this program", REMEDY) from error


def architecture(model: nn.Module) -> str:
    """The class of a model, with its module."""
    return f"{type(model).__module__}.{type(model).__qualname__}"


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
