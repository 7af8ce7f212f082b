"""From experiments to the runs that they take: each a plain `fit`, known by its content."""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

from cifar_lightning.configuration import flat, load_yaml
from cifar_lightning.data.source import Source, data_root, settle, tagged
from cifar_lightning.errors import check
from cifar_lightning.study.address import code_version, content_address
from cifar_lightning.study.experiments import Experiment
from cifar_lightning.study.records import Point

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
    wanted = list(_wanted(experiments, output, code_version()))
    longest = dict[str, Cell]()
    for cell, _ in wanted:
        content = _beginning(cell)
        longest[content] = max(longest.get(content, cell), cell, key=lambda each: each.epochs)
    points, cells, places = [], dict[str, Cell](), dict[Path, str]()
    for cell, varied in wanted:
        serving = cell if cell.test else longest[_beginning(cell)]
        first = cells.get(serving.address, serving)
        cells[serving.address] = replace(first, test=serving.test or first.test)
        places[cell.folder] = serving.address
        points.append(
            Point(
                experiment=cell.experiment,
                variant=_label(varied) or cell.experiment,
                varied=varied,
                seed=cell.seed,
                epochs=cell.epochs,
                address=serving.address,
            )
        )
    return Grid(points, list(cells.values()), places)


def _beginning(cell: Cell) -> str:
    """What cells have in common of which a shorter one is the beginning of a longer one, bit for bit.

    It is where the learning rate is constant. The longer one then serves both, if no test of the shorter one is wanted.
    """
    constant = cell.settings.get("model.schedule", "constant") == "constant"
    return content_address(cell.settings, 0 if constant else cell.epochs, cell.seed, cell.source, cell.code)


def _wanted(experiments: Mapping[str, Experiment], output: Path, code: str) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """A cell for each point, and what varies there."""
    settled = cache(_settled)  # once, or a day with a bad network would ask at every point
    for name, experiment in experiments.items():
        base = flat(load_yaml(Path(experiment.base)))
        for varied in experiment.variants():
            given = {**experiment.set, **varied}
            settings = base | given
            asked, root, mirrors = _asked(f"experiment {name}", settings)
            source = settled(asked, root, mirrors)
            if asked == "auto":  # so that the command does the same on a day without a network
                given["data.source"] = source
            for seed in experiment.seeds:
                yield _cell(name, experiment, output, seed, given, settings | {"data.source": source}, code), varied


def _cell(
    name: str,
    experiment: Experiment,
    output: Path,
    seed: int,
    given: Mapping[str, Any],
    settings: Mapping[str, Any],
    code: str,
) -> Cell:
    address = content_address(settings, experiment.epochs, seed, settings["data.source"], code)
    varied = {key: value for key, value in given.items() if key in experiment.vary}
    label = _label(varied).replace("/", "_").encode()[:LABEL_BYTES].decode(errors="ignore")
    folder = ",".join(filter(None, (label, f"seed={seed}", address[:TAG_DIGITS])))
    words = ["fit", "--config", experiment.base]
    words += [word for key, value in given.items() for word in (f"--{key}", _word(value))]
    words += ["--trainer.max_epochs", str(experiment.epochs), "--seed_everything", str(seed)]
    return Cell(
        address=address,
        experiment=name,
        name=folder,
        command=(*words, "--logs", str(output / name), "--name", folder),
        settings={**settings, "trainer.max_epochs": experiment.epochs},
        seed=seed,
        source=settings["data.source"],
        epochs=experiment.epochs,
        test=experiment.test,
        code=code,
    )


def _asked(where: str, settings: Mapping[str, Any]) -> tuple[Source, str | None, tuple[str, ...]]:
    """Where the images are to come from; looked at here already, as it is used before `fit` sees it."""
    asked: Source = settings.get("data.source", "cifar10")
    root, mirrors = settings.get("data.root"), settings.get("data.mirrors")
    check(asked in get_args(Source), f"{where}, data.source", asked, " or ".join(get_args(Source)))
    check(root is None or isinstance(root, str), f"{where}, data.root", root, "the name of a folder")
    urls = mirrors is None or (isinstance(mirrors, list) and all(isinstance(each, str) for each in mirrors))
    check(urls, f"{where}, data.mirrors", mirrors, "a list of addresses")
    return asked, root, tuple(mirrors or ())


def _settled(asked: Source, root: str | None, mirrors: tuple[str, ...]) -> Source:
    if asked != "auto":
        return asked
    from cifar_lightning.data.cifar10 import MIRRORS  # here, because PyTorch takes a second to import

    return settle(asked, data_root(root), mirrors or MIRRORS)


def _label(varied: Mapping[str, Any]) -> str:
    return ",".join(f"{key.rpartition('.')[2]}={_word(value)}" for key, value in varied.items())


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
