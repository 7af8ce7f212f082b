"""Checkpoints: written durably, read only if whole, and nothing in them can run code."""

import io
import json
import sys
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import nn

from cifar_lightning.errors import InputError
from cifar_lightning.runs import metrics_csv
from cifar_lightning.runs.layout import OWN, RunFolder
from cifar_lightning.utils import files

# Settings of a data module that belong to one call or one machine, not to the run.
NOT_RESTORED = ("images", "num_workers", "seed", "mirrors")

# All that a checkpoint may have imported on its own word: it may come from anywhere.
OURS = "cifar_lightning.models."

# What taking a checkpoint apart raises where something is missing, or of another kind.
LACKING = (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError)

REMEDY = "give a .ckpt file that `fit` of this program wrote"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of this project, read and checked."""

    path: Path
    config: dict[str, Any]  # seed, model, data, precision and epochs, in the form of a configuration file
    shapes: dict[str, torch.Size]  # of the model's weights
    max_epochs: int | None  # that the run was to last; None where that was left open
    epochs: int = 0  # done when it was saved
    steps: int = 0  # training steps done
    midway: int = 0  # of these, steps of an epoch that is not done; 0 if it was saved at the end of one
    rows: Sequence[metrics_csv.Row] = ()  # the curves so far, as in metrics.csv; none in a file of weights alone
    # A request to stop before the last epoch, in the form of callbacks/early_stopping.py.
    asked: dict[str, Any] = field(default_factory=dict)

    def behind(self) -> tuple[int, int]:
        """Return how many steps and epochs it has behind it: later points of the curves are written again."""
        return self.steps, len(self.rows)


def architecture(model: nn.Module) -> str:
    """Return the import path of a model's class."""
    return f"{type(model).__module__}.{type(model).__qualname__}"


def newest(run: RunFolder) -> Checkpoint | None:
    """Return the whole checkpoint of a run that is furthest on; None if it was stopped in its first epoch."""
    best, broken = None, False
    # By name, and the last of equals: last.ckpt, not the best.ckpt of the same epoch, nor one of a person's callback.
    for path in sorted(run.checkpoints.glob("*.ckpt"), key=lambda path: (path.name in OWN, path.name)):
        try:
            found = read_checkpoint(path, to_resume=True)
            if best is None or found.steps >= best.steps:
                best = found
        except InputError as error:
            if path.name in OWN:  # a callback may save weights alone
                broken = True
                print(f"not using {error.field}: {error.cause}", file=sys.stderr)
    if best is None:
        if broken:
            raise InputError("resume", f"no checkpoint in {run.path} is whole", "start a new run")
        if len(metrics_csv.read(run.metrics)) > 1:  # so its checkpoints were not to be kept
            raise InputError("resume", f"{run.path} has no checkpoint, only curves", "start a new run")
        print(f"{run.path}: no epoch was finished; starts from the beginning")
    return best


def load(path: Path) -> dict[str, Any]:
    """Read a file of tensors and plain values, and nothing else: no code in it can run, no class is looked up."""
    try:
        with zipfile.ZipFile(path) as archive:  # `torch.save` writes a CRC-32 of each part; `torch.load` checks none
            if part := archive.testzip():
                raise zipfile.BadZipFile(part)
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return content
    except OSError as error:
        raise InputError(str(path), f"can't be read ({error.strerror})", REMEDY) from error
    except Exception as error:  # broken bytes make zipfile, zlib and pickle raise anything
        raise InputError(str(path), "damaged, or not a checkpoint of this program", REMEDY) from error


def read_checkpoint(path: Path, *, to_resume: bool = False) -> Checkpoint:
    """Read a checkpoint; an `InputError` unless it is there, whole, one of this project, and can be used."""
    if not path.is_file():
        raise InputError(str(path), "there is no such checkpoint", "a run keeps its own in RUN/checkpoints")
    content, lacks = load(path), "not a checkpoint of this program"
    try:
        config, progress = _config(content), {}
        shapes = {name: tensor.shape for name, tensor in content["state_dict"].items()}
        with nullcontext() if to_resume else suppress(*LACKING):  # what evaluates can do without
            lacks = "of an older version, or damaged: it holds too little to resume from" if to_resume else lacks
            progress = _progress(content)
            progress |= _training(content) if to_resume else {}
        return Checkpoint(path, config, shapes, content.get("max_epochs"), **progress)
    except LACKING as error:
        raise InputError(str(path), lacks, REMEDY) from error


def _progress(content: Mapping[str, Any]) -> dict[str, Any]:
    loop, steps = content["loops"]["fit_loop"], content["global_step"]
    epochs, batches = loop["epoch_progress"]["current"], loop["epoch_loop.batch_progress"]["current"]
    midway = batches["processed"] * (epochs["processed"] < epochs["ready"])
    return {"epochs": epochs["processed"], "steps": steps, "midway": midway}


def _training(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rest of what a run resumes from; raise one of LACKING unless all of it is there."""
    history, asked = content["callbacks"]["History"], content["callbacks"]["Checkpoints"].get("asked", {})
    content["optimizer_states"][0]["param_groups"], history["validation"]
    torch.Generator().set_state(torch.atleast_2d(content["callbacks"]["EpochSeed"]["cpu"])[0])
    [float(x) for row in history["rows"] for x in row.values()]
    return {"rows": [dict(row) for row in history["rows"]], "asked": asked}


def _config(content: dict[str, Any]) -> dict[str, Any]:
    given = content.get("datamodule_hyper_parameters", {})  # none if a plain Trainer had loaders instead
    data = {name: x for name, x in given.items() if name not in NOT_RESTORED}
    if data.get("root") and not Path(data["root"]).is_dir():
        data["root"] = None  # it came from another machine
    epochs = {"max_epochs": content["max_epochs"]} if content.get("max_epochs") else {}
    config = {
        "seed_everything": given.get("seed", 0),
        "model": {"class_path": str(content["architecture"]), "init_args": dict(content["hyper_parameters"])},
        "data": data,
        "trainer": {"precision": content["precision"], **epochs},
    }
    plain: dict[str, Any] = json.loads(json.dumps(config))  # raises unless all are plain values
    return plain


class DurableCheckpoints(TorchCheckpointIO):
    """Writes checkpoints that survive the process and a power cut, and reads none but whole ones of plain values.

    It reads no file but those in `named`, and those that it wrote itself: Lightning would resume from any
    `hpc_ckpt_1.ckpt` in the working directory, or from what an `OnExceptionCheckpoint` of another run left there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.named: set[Path] = set()  # resolved

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint to disk, and only then give it its name."""
        buffer, path = io.BytesIO(), Path(path)
        self.named.add(path.resolve())
        torch.save(checkpoint, buffer)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, buffer.getbuffer())

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Read one to the CPU: tensors and plain values alone, whatever is asked for."""
        if Path(path).resolve() not in self.named:
            cause = "Lightning would resume from it, though the command does not name it"
            raise InputError(str(path), cause, "move it away, or give --init_from to start from its weights")
        return load(Path(path))
