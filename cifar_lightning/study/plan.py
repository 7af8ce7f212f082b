"""From experiments to the runs that they take: each a plain `fit`, known by its content."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

from cifar_lightning.cli.config_files import flat, load_yaml
from cifar_lightning.data.datamodule import Source, data_root, resolve_source
from cifar_lightning.errors import check
from cifar_lightning.results.records import Point, Record
from cifar_lightning.study.cells import Cell, label, make_cell
from cifar_lightning.study.config import Experiment
from cifar_lightning.study.identity import code_version, content_address


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


class Wanted(NamedTuple):
    """What a point asks for.

    Attributes:
        cell: Its own run.
        varied: What varies there.
        lasting: The run of so many epochs that is otherwise the same.
    """

    cell: Cell
    varied: dict[str, Any]
    lasting: Callable[[int], Cell]


def grid(experiments: Mapping[str, Experiment], output: Path, there: Iterable[Record] = ()) -> Grid:
    """Lays the grid out.

    Args:
        experiments: By name.
        output: The study's folder.
        there: Records of runs that have been made, for whatever experiments.
    """
    wanted = list(_wanted(experiments, output, code_version()))
    longest, done, own = dict[str, int](), _lengths(there), dict[str, Cell]()
    for cell, _, _ in wanted:
        own.setdefault(cell.address, cell)
        content = _beginning_of(cell)
        longest[content] = max(longest.get(content, 0), cell.epochs)
    points, cells, places = [], dict[str, Cell](), dict[Path, str]()
    for cell, varied, lasting in wanted:
        content = _beginning_of(cell)
        enough = [epochs for epochs in done.get(content, ()) if epochs >= cell.epochs]
        other = lasting(min(enough, default=longest[content]))
        serving = cell if cell.test else own.get(other.address, other)
        first = cells.get(serving.address, serving)
        cells[serving.address] = replace(first, test=serving.test or first.test)
        places[cell.folder] = serving.address
        points.append(
            Point(
                experiment=cell.experiment,
                variant=label(varied) or cell.experiment,
                varied=varied,
                seed=cell.seed,
                epochs=cell.epochs,
                address=serving.address,
            )
        )
    return Grid(points, list(cells.values()), places)


def _beginning(settings: Mapping[str, Any], epochs: int, seed: int, source: str, code: str) -> str:
    """What runs have in common of which a shorter one is the beginning of a longer one, bit for bit.

    It is where the learning rate is constant. The longer one then serves both, if no test of the shorter one is wanted.
    """
    constant = settings.get("model.schedule", "constant") == "constant"
    return content_address(settings, 0 if constant else epochs, seed, source, code)


def _beginning_of(cell: Cell) -> str:
    return _beginning(cell.settings, cell.epochs, cell.seed, cell.source, cell.code)


def _lengths(records: Iterable[Record]) -> dict[str, list[int]]:
    """How many epochs runs have that have had them all, by how they begin."""
    found: dict[str, list[int]] = {}
    for record in records:
        epochs, code = record.settings.get("trainer.max_epochs"), record.environment.get("code")
        if code and isinstance(epochs, int) and len(record.rows) >= epochs:
            content = _beginning(record.settings, epochs, record.seed, record.source, code)
            found.setdefault(content, []).append(epochs)
    return found


def _wanted(experiments: Mapping[str, Experiment], output: Path, code: str) -> Iterator[Wanted]:
    settled = cache(_settled)  # once, or a day with a bad network would ask at every point
    for name, experiment in experiments.items():
        base = flat(load_yaml(Path(experiment.base)))
        for varied in experiment.variants():
            given = {**experiment.set, **varied}
            asked, root, mirrors = _asked(f"experiment {name}", base | given)
            source = settled(asked, root, mirrors)
            settings = base | given | {"data.source": source}
            if asked == "auto":  # so that the command does the same on a day without a network
                given["data.source"] = source
            for seed in experiment.seeds:
                lasting = partial(make_cell, name, experiment, output, seed, given, settings, code)
                yield Wanted(lasting(experiment.epochs), varied, lasting)


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

    return resolve_source(asked, data_root(root), mirrors or MIRRORS)
