"""Read a checkpoint: its run's settings, its weights, and how far it is. Nothing in it can run code."""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cifar_lightning.errors import InputError
from cifar_lightning.runs.layout import RunFolder
from cifar_lightning.runs.metrics_csv import Row

# Settings of a data module that belong to one call or one machine, not to the run.
NOT_RESTORED = ("images", "num_workers", "seed", "mirrors")

REMEDY = "give a .ckpt file that `fit` of this program wrote"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of this project, read and checked."""

    path: Path
    config: dict[str, Any]  # seed, model, data and precision, in the form of a configuration file
    weights: dict[str, Tensor]  # the model's state dict
    epochs: int  # done when it was saved
    steps: int  # training steps done
    midway: int  # of these, steps of an epoch that is not done; 0 if it was saved at the end of one
    rows: list[Row]  # the curves so far, as in metrics.csv
    max_epochs: int | None  # that the run was to last; None where that was left open
    stopped: bool  # whether it was stopped before that, by early stopping for instance
    resumable: bool  # whether it holds all that a run needs to resume; one of an older version may not

    def is_done(self, max_epochs: int | None) -> bool:
        """Return whether a run of so many epochs has nothing left to do after it."""
        return self.epochs == max_epochs or (self.stopped and self.max_epochs == max_epochs)

    @property
    def progress(self) -> str:
        """How far it is: `after epoch 2 and 40 steps`."""
        return f"after epoch {self.epochs}" + (f" and {self.midway} steps" if self.midway else "")

    @property
    def architecture(self) -> str:
        """The import path of the model's class."""
        return str(self.config["model"]["class_path"])


def newest(run: RunFolder) -> tuple[Checkpoint | None, list[InputError]]:
    """Return the whole checkpoint of a run that is furthest on, if any, and what is wrong with the damaged ones."""
    best, broken = None, []
    # Sorted by name, and the last of equals: last.ckpt, not the best.ckpt of the same epoch.
    for path in sorted(run.checkpoints.glob("*.ckpt")):
        try:
            found = read_checkpoint(path)
        except InputError as error:
            broken.append(error)
        else:
            if found.resumable and (best is None or found.steps >= best.steps):
                best = found
    return best, broken


def load(path: Path) -> dict[str, Any]:
    """Read a file of tensors and plain values, and nothing else: no code in it can run, no class is looked up.

    Raises:
        InputError: It can't be read, or is not as it was written: `torch.save` writes a CRC-32 of each part, which
            `torch.load` does not check.
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
    """Read a checkpoint.

    Raises:
        InputError: It is not there, damaged, or not one of this project.
    """
    if not path.is_file():
        raise InputError(str(path), "there is no such checkpoint", "a run leaves its own in RUN/checkpoints/best.ckpt")
    content = load(path)
    try:
        return _parse(path, content)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        raise InputError(str(path), "not a checkpoint of this program", REMEDY) from error


def _parse(path: Path, content: dict[str, Any]) -> Checkpoint:
    loop, callbacks = content["loops"]["fit_loop"], content["callbacks"]
    epochs, batches = loop["epoch_progress"]["current"], loop["epoch_loop.batch_progress"]["current"]
    rows = [dict(row) for row in callbacks["History"]["rows"]]
    [float(x) for row in rows for x in row.values()]  # raises unless all are numbers
    resumable = _is_resumable(content)
    return Checkpoint(
        path=path,
        config=_config(content),
        weights={name: tensor.detach() for name, tensor in content["state_dict"].items()},
        epochs=epochs["processed"],
        steps=content["global_step"],
        midway=batches["processed"] * (epochs["processed"] < epochs["ready"]),
        rows=rows,
        max_epochs=content.get("max_epochs"),
        stopped=resumable and callbacks["Checkpoints"]["stopped"],
        resumable=resumable,
    )


def _config(content: dict[str, Any]) -> dict[str, Any]:
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
    if content.get("max_epochs"):
        config["trainer"]["max_epochs"] = content["max_epochs"]
    json.dumps(config)  # raises unless all are plain values
    return config


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
    """Return the import path of a model's class."""
    return f"{type(model).__module__}.{type(model).__qualname__}"
