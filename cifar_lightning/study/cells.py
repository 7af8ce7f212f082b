"""A run of a study: its content, the `fit` that makes it, its folder."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_lightning.data.datamodule import Source, tagged
from cifar_lightning.study.config import Experiment
from cifar_lightning.study.identity import content_address

TAG_DIGITS = 8
LABEL_BYTES = 150  # a name may have 255 in all


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A run that is wanted.

    Attributes:
        address: A hash of its content, 16 hexadecimal digits.
        experiment: The first that wants it.
        name: Its folder, in that of the experiment.
        command: The words of the `fit`.
        settings: All that is set, dotted.
        seed: Of the run.
        source: Of the images.
        epochs: How many it has.
        test: Whether the test set is asked.
        code: Version of the code.
    """

    address: str
    experiment: str
    name: str
    command: tuple[str, ...]
    settings: Mapping[str, Any]
    seed: int
    source: Source
    epochs: int
    test: bool
    code: str

    @property
    def tag(self) -> str:
        """The part of the address that is in the folder's name."""
        return self.address[:TAG_DIGITS]

    @property
    def folder(self) -> Path:
        """Where its run and its record are, below the study's folder."""
        return Path(self.experiment) / tagged(self.name, self.source)

    @property
    def typed(self) -> str:
        """What to type to run it by hand."""
        return shlex.join(["python", "-m", "cifar_lightning", *self.command])

    @property
    def identity(self) -> dict[str, Any]:
        """What its record repeats of it."""
        same = {"address": self.address, "seed": self.seed, "source": self.source, "settings": dict(self.settings)}
        return {**same, "command": self.typed, "folder": str(self.folder)}


def make_cell(
    name: str,
    experiment: Experiment,
    output: Path,
    seed: int,
    given: Mapping[str, Any],
    settings: Mapping[str, Any],
    code: str,
    epochs: int,
) -> Cell:
    """A run of an experiment.

    Args:
        name: Of the experiment.
        experiment: That wants it.
        output: The study's folder.
        seed: Of the run.
        given: Settings that the command has to say, dotted: those that are not in the base configuration.
        settings: All settings, dotted.
        code: Version of the code.
        epochs: How many it has.
    """
    address = content_address(settings, epochs, seed, settings["data.source"], code)
    varied = {key: value for key, value in given.items() if key in experiment.vary}
    short = label(varied).replace("/", "_").encode()[:LABEL_BYTES].decode(errors="ignore")
    folder = ",".join(filter(None, (short, f"seed={seed}", address[:TAG_DIGITS])))
    words = ["fit", "--config", experiment.base]
    words += [word for key, value in given.items() for word in (f"--{key}", _word(value))]
    words += ["--trainer.max_epochs", str(epochs), "--seed_everything", str(seed)]
    return Cell(
        address=address,
        experiment=name,
        name=folder,
        command=(*words, "--logs", str(output / name), "--name", folder),
        settings={**settings, "trainer.max_epochs": epochs},
        seed=seed,
        source=settings["data.source"],
        epochs=epochs,
        test=experiment.test,
        code=code,
    )


def label(varied: Mapping[str, Any]) -> str:
    """What varies, in words: `batch_size=10,lr=0.001`."""
    return ",".join(f"{key.rpartition('.')[2]}={_word(value)}" for key, value in varied.items())


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
