"""Write, read and publish a study's records."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from cifar_lightning.errors import InputError
from cifar_lightning.results.records import Plan, Record, Study
from cifar_lightning.utils import files

PLAN, RESULT, TABLE = "plan.json", "result.json", "results.csv"
AGAIN = "remove it, a run's with the folder that it is in, and run `study` again"

Content = TypeVar("Content", Plan, Record)


@contextmanager
def own(folder: Path) -> Iterator[None]:
    """Hold a study's folder against other processes that write records to it; made here, it goes again if empty."""
    with ExitStack() as stack:
        try:
            if not folder.exists():
                stack.callback(_remove_empty, folder)
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(files.locked(folder))
        except (FileExistsError, NotADirectoryError):
            raise InputError("output", f"{folder} is not a folder", "name another") from None
        except BlockingIOError:
            raise InputError(str(folder), "another study is running here", "wait for it, or stop it") from None
        yield


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def write(folder: Path, content: Plan | Record) -> None:
    """Write plan.json, or a run's result.json into its folder, which need not exist: a run may fail before it has."""
    folder.mkdir(parents=True, exist_ok=True)
    # The standard library's JSON: it keeps a loss of NaN or infinity, of which msgspec's makes null.
    text = json.dumps(msgspec.to_builtins(content), indent=1)
    files.replace(folder / (PLAN if isinstance(content, Plan) else RESULT), f"{text}\n".encode())


def write_table(study: Study) -> None:
    """Write results.csv."""
    from cifar_lightning.results.tables import runs  # here, because pandas takes 0.35 s to import

    files.replace(study.folder / TABLE, runs(study).to_csv(index=False, lineterminator="\n").encode())


def read(folder: Path) -> Study:
    """Read a study: its plan, and the records of the runs that the plan asks for and that have ended.

    Raises:
        InputError: There is none in that folder, or a file of it is damaged.
    """
    plan = _as(Plan, folder / PLAN, _load(folder / PLAN))
    wanted, known = {point.address for point in plan.points}, every_record(folder)
    return Study(plan, {key: x for key, x in known.items() if key in wanted and x.status != "started"}, folder)


def every_record(folder: Path) -> dict[str, Record]:
    """Read the record of every run below a study's folder, by address; a copy outside the run's place is left out.

    Raises:
        InputError: One is damaged.
    """
    found = dict[str, Record]()
    for path in sorted(path for path in folder.glob(f"*/*/{RESULT}") if not is_link(path.parent, folder)):
        content = _load(path)
        if isinstance(content, dict) and "schema" not in content:  # a file of another program
            continue
        record = _as(Record, path, content)
        if folder / record.folder == path.parent:
            found[record.address] = record
        elif not (folder / record.folder / RESULT).exists():  # no copy
            cause = f"not the record of a run here, but in {record.folder}"
            raise InputError(str(path), cause, "move its folder there")
    return found


def is_link(run: Path, folder: Path) -> bool:
    """Whether a run's folder is a link to that of another experiment here, and not to another disk, say."""
    return run.is_symlink() and run.resolve().is_relative_to(folder.resolve())


def publish(study: Study, folder: Path) -> Study:
    """Copy the records of a study's points, and nothing else of its runs, to another folder; return the study there.

    Raises:
        InputError: Another study is there, or something else.
    """
    copy, path = study._replace(folder=folder), folder / PLAN
    with own(folder):
        if path.exists():
            # The same study may have grown since: one point in common will do.
            known = {point.address for point in _as(Plan, path, _load(path)).points}
            if known and known.isdisjoint(point.address for point in study.plan.points):
                raise InputError("output", f"{folder} holds another study", "name another folder, or an empty one")
        elif any(each.name != files.LOCK for each in folder.iterdir()):
            raise InputError("output", f"{folder} holds other files", "name another folder, or an empty one")
        write(folder, study.plan)
        for record in study.records.values():
            write(folder / record.folder, record)
        write_table(copy)
    return copy


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
