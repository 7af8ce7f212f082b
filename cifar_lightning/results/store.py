"""Writes and reads a study's records."""

import base64
import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cifar_lightning.errors import InputError
from cifar_lightning.results.records import SCHEMA, Plan, Record
from cifar_lightning.results.schema import build
from cifar_lightning.results.study_results import Run, Study
from cifar_lightning.study.folder import is_shown, own
from cifar_lightning.utils import files

PLAN, RESULT, TABLE = "plan.json", "result.json", "results.csv"

# Columns of results.csv behind those that name the point: figures of the last epoch, but for the best validation.
FIGURES = ("train/loss", "train/acc", "train_clean/loss", "train_clean/acc", "val/loss", "val/acc", "gap/loss")


def write_plan(folder: Path, plan: Plan) -> None:
    """Writes plan.json."""
    files.replace(folder / PLAN, _json(plan))


def write_record(folder: Path, record: Record) -> None:
    """Writes a run's result.json into its folder, which need not be there: it may have failed before it had one."""
    folder.mkdir(parents=True, exist_ok=True)
    files.replace(folder / RESULT, _json(record))


def write_table(study: Study) -> None:
    """Writes results.csv."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(_table(study))
    files.replace(study.folder / TABLE, text.getvalue().encode())


def read(folder: Path) -> Study:
    """Reads a study's records.

    Raises:
        InputError: There are none in that folder, or they can't be understood.
    """
    plan = _read_plan(folder / PLAN)
    return Study(plan, records(folder, plan), folder)


def records(folder: Path, plan: Plan) -> dict[str, Record]:
    """The record of every run that a plan asks for and that is there, by address.

    Raises:
        InputError: One can't be understood.
    """
    wanted = {point.address for point in plan.points}
    return {address: record for address, record in everything(folder).items() if address in wanted}


def everything(folder: Path) -> dict[str, Record]:
    """The record of every run below a study's folder, by address; copies elsewhere than in the run's place don't count.

    Raises:
        InputError: One can't be understood.
    """
    paths = sorted(path for path in folder.glob(f"*/*/{RESULT}") if not is_shown(path.parent, folder))
    found = filter(None, (_read_record(path, folder) for path in paths))
    return {record.address: record for record in found}


def publish(study: Study, folder: Path) -> Study:
    """Copies the records of a study's points, and nothing else of its runs, to another folder.

    Returns:
        The study as it is there.

    Raises:
        InputError: Another study is there, or something else.
    """
    there = replace(study, folder=folder)
    with own(folder):
        _check_is_for(study.plan, folder)
        write_plan(folder, study.plan)
        for record in there.records.values():
            write_record(folder / record.folder, record)
        write_table(there)
    return there


def _check_is_for(plan: Plan, folder: Path) -> None:
    """Refuses a folder that holds what is not of the same study, begun when it had fewer points perhaps."""
    if (folder / PLAN).exists():
        known = {point.address for point in _read_plan(folder / PLAN).points}
        if known and known.isdisjoint(point.address for point in plan.points):
            raise InputError("output", f"{folder} holds another study", "name another folder, or an empty one")
    elif any(folder.iterdir()):
        raise InputError("output", f"{folder} holds other files", "name another folder, or an empty one")


def _json(what: Plan | Record) -> bytes:
    return f"{json.dumps(asdict(what), indent=1)}\n".encode()


def _read_plan(path: Path) -> Plan:
    content = _read(path)
    try:
        plan = build(Plan, content)
        for point in plan.points:
            _expect(point.epochs >= 1, "points: expected epochs of 1 or more")
    except ValueError as error:
        raise InputError(str(path), f"not the plan of a study ({error})", "run `study` again") from None
    return plan


def _read_record(path: Path, study: Path) -> Record | None:
    """A run's record; None if that is a file of another program, or the copy of a record that is in its place."""
    content = _read(path)
    if "schema" not in content:
        return None
    try:
        record = build(Record, content)
        _check(record)
    except ValueError as error:
        raise InputError(str(path), f"not the record of a run ({error})", "remove it and run `study` again") from None
    if study / record.folder == path.parent:
        return record
    if (study / record.folder / RESULT).exists():
        return None
    raise InputError(str(path), f"not the record of a run here, but in {record.folder}", "move its folder there")


def _check(record: Record) -> None:
    """Raises a `ValueError` unless what the report counts on is there."""
    _expect(bool(record.rows) or record.status == "failed", "rows: expected at least one")
    for row in record.rows:
        _expect({"epoch", "epoch_seconds", "val/acc"} <= row.keys(), "rows: expected epoch, epoch_seconds and val/acc")
    if record.test:
        sizes = {len(record.test.confusion_matrix), *map(len, record.test.confusion_matrix)}
        _expect(sizes == {len(record.test.classes)}, "test.confusion_matrix: expected a row and a column a class")
        for mistake in record.test.mistakes:
            png = base64.b64decode(mistake.png, validate=True)
            _expect(png.startswith(b"\x89PNG"), "test.mistakes: expected PNG files in Base64")


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise InputError(str(path), f"can't be read ({error.strerror})", "name the folder of a study") from None
    except (ValueError, RecursionError):
        raise InputError(str(path), "damaged", "remove it and run `study` again") from None
    if not isinstance(content, dict) or content.get("schema", SCHEMA) != SCHEMA:
        raise InputError(str(path), f"not of layout {SCHEMA}", "remove it and run `study` again")
    return content


def _table(study: Study) -> Iterator[list[Any]]:
    names = (
        "experiment",
        "variant",
        "model",
        "seed",
        "address",
        "status",
        "reason",
        "epochs",
        "best_epoch",
        "best_val/acc",
    )
    varied = sorted({name for point in study.plan.points for name in point.varied})
    yield [*names, *FIGURES, "test/loss", "test/acc", *varied, "folder"]
    for point in study.plan.points:
        record = study.records.get(point.address)
        if record is None:
            continue
        run = Run(point, record)
        model = str(record.settings.get("model.class_path", "")).rpartition(".")[2]
        yield [
            *(point.experiment, point.variant, model, point.seed, point.address),
            *("done" if run.is_done else "failed", run.reason),
            *((len(run.rows), int(run.best["epoch"]), run.best["val/acc"]) if run.rows else (0, "", "")),
            *(run.last.get(name, "") if run.rows else "" for name in FIGURES),
            *((run.test.loss, run.test.acc) if run.test else ("", "")),
            *(record.settings.get(name, "") for name in varied),
            record.folder,
        ]
