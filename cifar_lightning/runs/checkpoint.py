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
        stopped: Whether the run was stopped before that, for having become no better say.
        resumable: Whether it holds all that a run needs to go on; an older one may not.
    """

    path: Path
    config: dict[str, Any]
    weights: dict[str, Tensor]
    epochs: int
    steps: int
    midway: int
    rows: list[dict[str, float]]
    max_epochs: int | None
    stopped: bool
    resumable: bool

    def is_done(self, max_epochs: int | None) -> bool:
        """Whether a run of so many epochs has nothing left to do after it."""
        return self.epochs == max_epochs or (self.stopped and self.max_epochs == max_epochs)

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
    best, broken = None, []
    # In the order of their names, and the last of equals: last.ckpt, not the best.ckpt of the same epoch.
    for path in sorted((folder / "checkpoints").glob("*.ckpt")):
        try:
            found = read_checkpoint(path)
        except InputError as error:
            broken.append(error)
        else:
            if found.resumable and (best is None or found.steps >= best.steps):
                best = found
    return best, broken


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
        resumable = _is_resumable(content)
        stopped = resumable and content["callbacks"]["Checkpoints"]["stopped"]
        return Checkpoint(
            path, config, weights, epochs["processed"], steps, midway, rows, max_epochs, stopped, resumable
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        raise InputError(str(path), "not a checkpoint of this program", REMEDY) from error


def _is_resumable(content: dict[str, Any]) -> bool:
    try:
        content["optimizer_states"][0]["param_groups"]
        content["callbacks"]["History"]["validation"]
        content["callbacks"]["Checkpoints"]["stopped"]
        torch.Generator().set_state(content["callbacks"]["EpochSeed"]["cpu"])
    except (KeyError, IndexError, TypeError, RuntimeError):
        return False
    return True


def architecture(model: nn.Module) -> str:
    """The class of a model, with its module."""
    return f"{type(model).__module__}.{type(model).__qualname__}"
