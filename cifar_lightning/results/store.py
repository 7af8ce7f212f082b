"""Write, read and publish a study's records."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from cifar_lightning.errors import InputError
from cifar_lightning.results.records import Plan, Record, Study
from cifar_lightning.utils import files

PLAN, RESULT, TABLE = "plan.json", "result.json", "results.csv"
AGAIN = "remove it and run `study` again"

Content = TypeVar("Content", Plan, Record)


@contextmanager
def own(folder: Path) -> Iterator[None]:
    """Hold a study's folder, made if need be, against other processes that write records to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError("output", f"{folder} is not a folder", "name another") from None
    with ExitStack() as stack:
        try:
            stack.enter_context(files.locked(folder))
        except BlockingIOError:
            raise InputError(str(folder), "another study is running here", "wait for it, or stop it") from None
        yield


def write_plan(folder: Path, plan: Plan) -> None:
    """Write plan.json."""
    _write(folder / PLAN, plan)


def write_record(folder: Path, record: Record) -> None:
    """Write a run's result.json into its folder, which need not exist: a run may fail before it has one."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / RESULT, record)


def write_table(study: Study) -> None:
    """Write results.csv."""
    from cifar_lightning.results.tables import runs  # here, because pandas takes 0.35 s to import

    files.replace(study.folder / TABLE, runs(study).to_csv(index=False, lineterminator="\n").encode())


def read(folder: Path) -> Study:
    """Read a study: its plan, and the records of the runs that the plan asks for.

    Raises:
        InputError: There is none in that folder, or a file of it is damaged.
    """
    plan = _as(Plan, folder / PLAN, _load(folder / PLAN))
    return Study(plan, records(folder, plan), folder)


def records(folder: Path, plan: Plan) -> dict[str, Record]:
    """Read the record of every run that a plan asks for and that is there, by address."""
    wanted = {point.address for point in plan.points}
    return {address: record for address, record in every_record(folder).items() if address in wanted}


def every_record(folder: Path) -> dict[str, Record]:
    """Read the record of every run below a study's folder, by address; a copy outside the run's place is left out.

    Raises:
        InputError: One is damaged.
    """
    paths = sorted(path for path in folder.glob(f"*/*/{RESULT}") if not is_link(path.parent, folder))
    found = filter(None, (_record(path, folder) for path in paths))
    return {record.address: record for record in found}


def is_link(run: Path, folder: Path) -> bool:
    """Whether a run's folder is a link to that of another experiment here, and not to another disk, say."""
    return run.is_symlink() and run.resolve().is_relative_to(folder.resolve())


def publish(study: Study, folder: Path) -> Study:
    """Copy the records of a study's points, and nothing else of its runs, to another folder.

    Returns:
        The study as it is there.

    Raises:
        InputError: Another study is there, or something else.
    """
    copy = replace(study, folder=folder)
    with own(folder):
        _check_same_study(study.plan, folder)
        write_plan(folder, study.plan)
        for record in study.records.values():
            write_record(folder / record.folder, record)
        write_table(copy)
    return copy


def _check_same_study(plan: Plan, folder: Path) -> None:
    if (folder / PLAN).exists():
        # The same study may have grown since: one point in common will do.
        known = {point.address for point in _as(Plan, folder / PLAN, _load(folder / PLAN)).points}
        if known and known.isdisjoint(point.address for point in plan.points):
            raise InputError("output", f"{folder} holds another study", "name another folder, or an empty one")
    elif any(path.name != files.LOCK for path in folder.iterdir()):
        raise InputError("output", f"{folder} holds other files", "name another folder, or an empty one")


def _record(path: Path, folder: Path) -> Record | None:
    content = _load(path)
    if isinstance(content, dict) and "schema" not in content:
        return None  # a file of another program
    record = _as(Record, path, content)
    if record.status == "done" and not record.rows:
        raise InputError(str(path), "not a record of a study (rows: Expected at least one)", AGAIN)
    if folder / record.folder == path.parent:
        return record
    if (folder / record.folder / RESULT).exists():
        return None  # a copy
    raise InputError(str(path), f"not the record of a run here, but in {record.folder}", "move its folder there")


def _write(path: Path, content: Plan | Record) -> None:
    # The standard library's JSON: it keeps a loss of NaN or infinity, of which msgspec's makes null.
    files.replace(path, f"{json.dumps(msgspec.to_builtins(content), indent=1)}\n".encode())


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise InputError(str(path), f"can't be read ({error.strerror})", "name the folder of a study") from None
    except (ValueError, RecursionError):
        raise InputError(str(path), "damaged", AGAIN) from None


def _as(kind: type[Content], path: Path, content: Any) -> Content:
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise InputError(str(path), f"not a {kind.__name__.lower()} of a study ({fault(error)})", AGAIN) from None


def fault(error: msgspec.ValidationError) -> str:
    """Return the place and the cause: "points[0].epochs: Expected `int` >= 1"."""
    cause, _, place = str(error).partition(" - at `$")
    return f"{place.strip('.`')}: {cause}" if place else cause
