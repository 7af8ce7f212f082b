"""A study's folder: who has it, and where the runs are in it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from cifar_lightning.errors import InputError
from cifar_lightning.results.records import Record
from cifar_lightning.study.cells import Cell
from cifar_lightning.utils import files

VERSION = "version_0"  # what `fit` makes in a run's folder


@contextmanager
def own(output: Path) -> Iterator[None]:
    """Has the study's folder to itself."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError("output", f"{output} is not a folder", "name another") from None
    with ExitStack() as stack:
        try:
            stack.enter_context(files.locked(output))
        except BlockingIOError:
            raise InputError(str(output), "another study is running here", "wait for it, or stop it") from None
        yield


def located(cell: Cell, output: Path) -> Cell:
    """The cell at the place where its run is already, begun when the configuration was another one say."""
    for path in sorted(output.glob(f"*/*{cell.tag}*")):
        name = path.name.removesuffix("-synthetic")
        if name.endswith(cell.tag) and not is_shown(path, output):
            return replace(cell, experiment=path.parent.name, name=name)
    return cell


def show_shared(places: Mapping[Path, str], cells: Sequence[Cell], output: Path) -> None:
    """Has a run that several experiments share stand in the folder of each, so that TensorBoard shows it there."""
    homes = {cell.address: cell.folder for cell in cells}
    for path in (output / place for place in (*homes.values(), *places)):
        if is_shown(path, output):  # of another run perhaps, or of one that is its own now
            path.unlink()
    for place, address in places.items():
        if place != homes[address]:
            with suppress(OSError):  # it is there, or the file system has no links
                (output / place).parent.mkdir(parents=True, exist_ok=True)
                (output / place).symlink_to(Path("..") / homes[address])


def is_shown(run: Path, output: Path) -> bool:
    """Whether a run's folder is a link to that of another experiment here, not to another disk say."""
    return run.is_symlink() and run.resolve().is_relative_to(output.resolve())


def epochs_done(cell: Cell, record: Record | None, output: Path) -> int:
    """How many epochs of a run are there, be it that it has a record or that it was stopped."""
    try:
        curves = (output / cell.folder / VERSION / "metrics.csv").read_text()
    except OSError:
        curves = ""
    return min(cell.epochs, max(curves.count("\n") - 1, len(record.rows) if record else 0))
