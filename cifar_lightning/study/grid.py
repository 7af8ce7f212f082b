"""From experiments to the runs that they take: each a plain `fit`, known by its content."""

import ast
import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import cifar_lightning
from cifar_lightning.data.source import Source, data_root, settle, tagged
from cifar_lightning.study.experiments import Experiment
from cifar_lightning.study.records import Point

# What decides the figures of a run; not what watches it or speaks of it.
DECIDING = ("data/*.py", "models/*.py", "seeds.py", "callbacks/seeding.py")
# Settings that change no figure but the seconds, or are told apart by something else.
NOT_CONTENT = ("data.root", "data.source", "data.num_workers", "data.mirrors", "trainer.accelerator", "seed_everything")
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
    """All of a study: every place, in the order of the configuration, and the runs that they take, each once."""

    points: list[Point]
    cells: list[Cell]


def grid(experiments: Mapping[str, Experiment], output: Path) -> Grid:
    """Lays the grid out.

    Args:
        experiments: By name.
        output: The study's folder.
    """
    points, cells, code = [], dict[str, Cell](), code_version()
    for name, experiment in experiments.items():
        for varied, seed, cell in _cells(name, experiment, output, code):
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
    return Grid(points, list(cells.values()))


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


def content_address(settings: Mapping[str, Any], epochs: int, seed: int, source: Source, code: str) -> str:
    """What identifies a run.

    Where the learning rate is constant the number of epochs is no part of it: a shorter run is the beginning of the
    longer one, bit for bit, so one serves both, and a finished run can be made longer.

    Args:
        settings: All that is set, dotted.
        epochs: How many it wants.
        seed: Of the run.
        source: Where the images come from. What they are is then certain: the official files are verified by their
            published checksums, the stand-in is made by the code.
        code: Its version.
    """
    content = {key: value for key, value in settings.items() if key not in NOT_CONTENT}
    content["trainer.max_epochs"] = None if settings.get("model.schedule", "constant") == "constant" else epochs
    if _is_no_limit(settings):
        del content["trainer.limit_train_batches"]
    plain = {key: _plain(value) for key, value in content.items()} | {"seed": seed, "source": source, "code": code}
    return _digest(json.dumps(plain, sort_keys=True).encode())


def code_version() -> str:
    """A hash of the code that decides a run's figures, comments and docstrings left out."""
    package = Path(cifar_lightning.__file__).parent
    trees = [ast.parse(file.read_bytes()) for pattern in DECIDING for file in sorted(package.glob(pattern))]
    for node in (node for tree in trees for node in ast.walk(tree)):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _is_text(line)]  # type: ignore[attr-defined]
    return _digest("\n".join(map(ast.dump, trees)).encode())


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings of a configuration file, dotted as on the command line."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = prefix if key == "init_args" else f"{prefix}{key}."
        found |= flat(value, name) if isinstance(value, dict) else {name[:-1]: value}
    return found


def _settled(wanted: Source, settings: Mapping[str, Any]) -> Source:
    from cifar_lightning.data.cifar10 import MIRRORS  # here, because PyTorch takes a second to import

    return settle(wanted, data_root(settings.get("data.root")), settings.get("data.mirrors") or MIRRORS)


def _is_no_limit(settings: Mapping[str, Any]) -> bool:
    """Whether an epoch is limited to at least as many batches as it has."""
    images = settings.get("data.train_size") or 50_000 - settings.get("data.val_size", 10_000)
    limit = settings.get("trainer.limit_train_batches")
    return isinstance(limit, int) and limit >= -(-images // settings.get("data.batch_size", 100))


def _label(varied: Mapping[str, Any]) -> str:
    return ",".join(f"{key.rpartition('.')[2]}={_word(value)}" for key, value in varied.items())


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value).replace(" ", "")


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value  # 0.0 and 0 are one setting


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
