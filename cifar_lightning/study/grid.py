"""From experiments to the runs that they take: each a plain `fit`, known by its content."""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cifar_lightning.data.source import Source, data_root, settle, tagged
from cifar_lightning.study.address import code_version, content_address
from cifar_lightning.study.experiments import Experiment
from cifar_lightning.study.records import Point

TAG_DIGITS = 8


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
        epochs: As many as the experiment wants that wants most.
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
        words = [*self.command, "--trainer.max_epochs", str(self.epochs)]
        return shlex.join(["python", "-m", "cifar_lightning", *words])


class Grid(NamedTuple):
    """All of a study.

    Attributes:
        points: Every place, in the order of the configuration.
        cells: The runs that they take, each once.
        places: The folder that each point's run would have, were it its experiment's alone; with the run's address.
    """

    points: list[Point]
    cells: list[Cell]
    places: dict[Path, str]


def grid(experiments: Mapping[str, Experiment], output: Path) -> Grid:
    """Lays the grid out.

    Args:
        experiments: By name.
        output: The study's folder.
    """
    points, cells, places, code = [], dict[str, Cell](), dict[Path, str](), code_version()
    for name, experiment in experiments.items():
        for varied, seed, cell in _cells(name, experiment, output, code):
            places[cell.folder] = cell.address
            there = cells.get(cell.address, cell)
            cells[cell.address] = replace(there, epochs=max(cell.epochs, there.epochs), test=cell.test or there.test)
            points.append(
                Point(
                    experiment=name,
                    variant=_label(varied) or name,
                    varied=varied,
                    seed=seed,
                    epochs=cell.epochs,
                    address=cell.address,
                )
            )
    return Grid(points, list(cells.values()), places)


def _cells(name: str, experiment: Experiment, output: Path, code: str) -> Iterator[tuple[dict[str, Any], int, Cell]]:
    base = flat(yaml.safe_load(Path(experiment.base).read_text()))
    for varied in experiment.variants():
        given = {**experiment.set, **varied}
        settings = base | given
        wanted = settings.get("data.source", "cifar10")
        source = _settled(wanted, settings)
        if wanted == "auto":  # so that the command does the same on a day without a network
            given["data.source"] = source
        for seed in experiment.seeds:
            address = content_address(settings, experiment.epochs, seed, source, code)
            folder = ",".join(filter(None, (_label(varied), f"seed={seed}", address[:TAG_DIGITS])))
            words = ["fit", "--config", experiment.base]
            words += [word for key, value in given.items() for word in (f"--{key}", _word(value))]
            words += ["--seed_everything", str(seed), "--logs", str(output / name), "--name", folder]
            yield (
                varied,
                seed,
                Cell(
                    address=address,
                    experiment=name,
                    name=folder,
                    command=tuple(words),
                    settings=settings | {"data.source": source},
                    seed=seed,
                    source=source,
                    epochs=experiment.epochs,
                    test=experiment.test,
                    code=code,
                ),
            )


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings of a configuration file, dotted as on the command line."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = prefix if key == "init_args" else f"{prefix}{key}."
        found |= flat(value, name) if isinstance(value, dict) else {name[:-1]: value}
    return found


def _settled(wanted: Source, settings: Mapping[str, Any]) -> Source:
    if wanted != "auto":
        return wanted
    from cifar_lightning.data.cifar10 import MIRRORS  # here, because PyTorch takes a second to import

    return settle(wanted, data_root(settings.get("data.root")), settings.get("data.mirrors") or MIRRORS)


def _label(varied: Mapping[str, Any]) -> str:
    return ",".join(f"{key.rpartition('.')[2]}={_word(value)}" for key, value in varied.items())


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value).replace(" ", "")
