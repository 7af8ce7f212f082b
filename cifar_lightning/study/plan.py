"""From experiments to points and runs: each run a plain `fit`, known by its content, made once for all its points."""

import json
import shlex
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from cifar_lightning.errors import InputError, RunError
from cifar_lightning.results.records import Point, Record
from cifar_lightning.results.store import is_link
from cifar_lightning.runs.layout import VERSION, RunFolder, tagged
from cifar_lightning.study import identity
from cifar_lightning.study.config import Experiment
from cifar_lightning.study.executor import answers
from cifar_lightning.study.identity import EPOCHS, RECIPE

TAG_DIGITS = 8
LABEL_BYTES = 150  # a name may have 255 in all


@dataclass(kw_only=True)
class Run:
    """A run that a study asks for, in the study's folder, and there in that of an experiment."""

    study: Path
    experiment: str
    name: str  # what varies there, as text, and the seed
    flags: list[str]  # its configuration, for `fit`
    settings: Mapping[str, Any]  # the content of that
    seed: int
    source: str
    test: bool  # whether the test set is asked

    def __post_init__(self) -> None:
        content, self.epochs = (self.settings, self.seed, self.source), int(self.settings[EPOCHS])
        self.address = identity.address(*content)
        self.beginning = identity.address(*content, beginning=True)  # shared with longer runs that begin with it
        self.title = f"{self.experiment}, {self.name.replace(',', ', ').replace('seed=', 'seed ')}"  # for people
        self.folder = Path(self.experiment) / tagged(self.name, self.source)  # below `study`
        self.files = RunFolder(self.study / self.folder / f"{VERSION}0")  # that `fit` makes there
        place = ["--logs", str(self.study / self.experiment), "--name", self.name]  # `fit` tags it itself
        length = [f"--{EPOCHS}", str(self.epochs), "--seed_everything", str(self.seed)]
        self.arguments = ["fit", *self.flags, *length, *place]
        self.command = shlex.join(["python", "-m", "cifar_lightning", *self.arguments])

    def record(self, **result: Any) -> Record:
        """Return its record with a result."""
        result |= {"seed": self.seed, "source": self.source, "settings": dict(self.settings)}
        return Record(address=self.address, command=self.command, folder=str(self.folder), **result)


class Layout(NamedTuple):
    """All of a study: points in the order of the configuration, and the runs that serve them, each once."""

    points: list[Point]
    runs: list[Run]
    links: dict[Path, Path]  # where else a run is to be seen: in the experiment of each point that it serves


def plan(experiments: Mapping[str, Experiment], study: Path, records: Collection[Record] = ()) -> Layout:
    """Lay out the points, and the runs that serve them; `records` are of all runs in the folder of the study.

    A run serves every point that needs its beginning; finished runs serve before those that are still to be made, the
    shortest first. A test is asked of a run of exactly so many epochs.
    """
    finished, wanted = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list)  # epochs, by beginning
    for record in records:
        epochs = record.settings.get(EPOCHS, 0)
        if record.environment.get("recipe") == RECIPE and len(record.rows) >= epochs:
            finished[identity.address(record.settings, record.seed, record.source, beginning=True)].append(epochs)
    asked, varied = zip(*_requests(experiments, study), strict=True)
    for run in asked:
        wanted[run.beginning].append(run.epochs)

    def serving(run: Run) -> Run:
        enough = [epochs for epochs in finished[run.beginning] if epochs >= run.epochs] or [max(wanted[run.beginning])]
        return run if run.test else replace(run, settings={**run.settings, EPOCHS: min(enough)})

    served = [serving(run) for run in asked]
    # A run has the place of the first point that asks for just that one, or else of the first that it serves.
    first = {run.address: run for run in reversed([*asked, *served])}
    tested = {run.address for run in asked if run.test}
    addresses, homes = [run.address for run in served], {record.address: Path(record.folder) for record in records}
    runs = dict[str, Run]()
    for each in dict.fromkeys(addresses):
        runs[each] = _located(replace(first[each], test=each in tested), homes)
        homes[each] = runs[each].folder
    points = []
    for run, values, address in zip(asked, varied, addresses, strict=True):
        shown = {"experiment": run.experiment, "variant": label(values) or run.experiment, "varied": values}
        points.append(Point(**shown, seed=run.seed, epochs=run.epochs, address=address))
    places = {run.folder: runs[address].folder for run, address in zip(asked, addresses, strict=True)}
    own = {*homes.values()}
    links = {place: home for place, home in places.items() if place not in own and place.parent != home.parent}
    return Layout(points, list(runs.values()), links)


def is_missing(run: Run, record: Record | None, retry: bool) -> bool:
    """Return whether a run is still to be made, by its record if there is one; `retry` what failed."""
    if record is None or record.status == "started":
        return True
    return retry if record.status == "failed" else run.test and record.test is None


def show_links(layout: Layout, study: Path) -> None:
    """Link a run that several experiments share into the folder of each, so that TensorBoard shows it there."""
    for path in study.glob("*/*"):
        if is_link(path, study):  # of another layout perhaps
            path.unlink()
    for place, home in layout.links.items():
        with suppress(OSError):  # it is there, or the file system has no links
            (study / place).parent.mkdir(parents=True, exist_ok=True)
            (study / place).symlink_to(Path("..") / home)


def _requests(experiments: Mapping[str, Experiment], study: Path) -> Iterator[tuple[Run, dict[str, Any]]]:
    """Yield the run of each point alone, and what varies there."""
    variants = [(name, each, varied) for name, each in experiments.items() for varied in each.variants]
    asked = []
    for name, each, varied in variants:
        flags = [word for key, value in {**each.set, **varied}.items() for word in (f"--{key}", _text(value))]
        asked.append((f"experiment {name}, {label(varied)}".rstrip(", "), ["--config", each.base, *flags]))
    found = list(answers(identity.contents, asked))
    if len(found) < len(asked):
        raise RunError("study", "the process that reads its settings was killed", "start it again")
    known = set[tuple[str, str]]()
    for (name, each, varied), (where, _), (content, source, flags) in zip(variants, asked, found, strict=True):
        short = label(varied).replace("/", "_").encode()[:LABEL_BYTES].decode(errors="ignore")
        prefix, settings = f"{short}," if short else "", {**content, EPOCHS: each.epochs}
        same = {"study": study, "experiment": name, "flags": flags, "settings": settings}
        for seed in each.seeds:
            run = Run(**same, name=f"{prefix}seed={seed}", seed=seed, source=source, test=each.test)
            if (name, run.address) in known:
                raise InputError(where, "the same run as that of another value", "give each value once")
            known.add((name, run.address))
            yield run, varied


def _located(run: Run, homes: Mapping[str, Path]) -> Run:
    """The run in the folder that it has by its record; else in one that no other run has. `homes` are by address."""
    home = homes.get(run.address)
    if home:  # of another name perhaps: it was begun when the configuration was another one
        return replace(run, experiment=home.parent.name, name=home.name.removesuffix(tagged("", run.source)))
    marked = replace(run, name=f"{run.name},{run.address[:TAG_DIGITS]}")
    if run.folder in homes.values() or _is_there(run) or _is_there(marked):  # a folder without a record may be anyone's
        return marked
    return run


def _is_there(run: Run) -> bool:
    folder = run.study / run.folder
    return any(folder.glob(f"{VERSION}*")) and not is_link(folder, run.study)


def label(varied: Mapping[str, Any]) -> str:
    """Return what varies as text: `batch_size=10,lr=0.001`."""
    return ",".join(f"{key.rpartition('.')[2]}={_text(value)}" for key, value in varied.items())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
