"""What a checkpoint knows of its run, and the configuration that this makes."""

import pickle
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cifar_lightning.errors import InputError

# Settings of a data module that belong to one call, not to the run.
NOT_RESTORED = ("images", "num_workers", "seed", "mirrors")


class Checkpoint(NamedTuple):
    """A checkpoint of ours.

    Attributes:
        path: The file.
        config: Model, data and precision, in the form of a configuration file.
        weights: The model's state, by name.
        epoch: Epochs done when it was saved.
    """

    path: Path
    config: dict[str, Any]
    weights: dict[str, Tensor]
    epoch: int

    @property
    def architecture(self) -> str:
        """The class of the model, with its module."""
        return str(self.config["model"]["class_path"])


def run_folder(path: Path) -> Path:
    """The folder of the run that saved a checkpoint."""
    return path.parent.parent if path.parent.name == "checkpoints" else path.parent


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint; tensors and plain values only, so that no code in it can run.

    Raises:
        InputError: It is not there, or not one of ours.
    """
    if not path.is_file():
        raise InputError(str(path), "there is no such checkpoint", "a run leaves its own in RUN/checkpoints/best.ckpt")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        data = {k: v for k, v in content["datamodule_hyper_parameters"].items() if k not in NOT_RESTORED}
        model = {"class_path": content["architecture"], "init_args": dict(content["hyper_parameters"])}
        config = {"model": model, "data": data, "trainer": {"precision": content["precision"]}}
        return Checkpoint(path, config, content["state_dict"], content["epoch"] + 1)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError, TypeError, AttributeError) as error:
        remedy = "give a .ckpt file that `fit` of this program wrote"
        raise InputError(str(path), "damaged, or not a checkpoint of this program", remedy) from error


def architecture(model: nn.Module) -> str:
    """The class of a model, with its module."""
    return f"{type(model).__module__}.{type(model).__qualname__}"


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
