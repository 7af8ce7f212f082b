"""Writes and reads a study's records."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cifar_lightning import files
from cifar_lightning.errors import InputError
from cifar_lightning.study.records import SCHEMA, Mistake, Plan, Point, Record, Test
from cifar_lightning.study.results import Run, Study

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
    paths = sorted(path for path in folder.glob(f"*/*/{RESULT}") if not path.parent.is_symlink())
    found = [_read_record(path, folder) for path in paths]
    wanted = {point.address for point in plan.points}
    return {record.address: record for record in found if record.address in wanted}


def publish(study: Study, folder: Path) -> Study:
    """Copies the records of a study's points, and nothing else of its runs, to another folder.

    Returns:
        The study as it is there.
    """
    there = replace(study, folder=folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_plan(folder, study.plan)
    for record in there.records.values():
        write_record(folder / record.folder, record)
    write_table(there)
    return there


def _json(what: Plan | Record) -> bytes:
    return f"{json.dumps(asdict(what), indent=1)}\n".encode()


def _read_plan(path: Path) -> Plan:
    content = _read(path)
    try:
        return Plan(**content | {"points": [Point(**point) for point in content["points"]]})
    except (TypeError, KeyError) as error:
        raise InputError(str(path), f"not the plan of a study ({error})", "run `study` again") from None


def _read_record(path: Path, study: Path) -> Record:
    content = _read(path)
    try:
        if study / content["folder"] != path.parent:
            raise KeyError("folder")
        if test := content["test"]:
            content["test"] = Test(**test | {"mistakes": [Mistake(**each) for each in test["mistakes"]]})
        return Record(**content)
    except (TypeError, KeyError) as error:
        raise InputError(str(path), f"not the record of a run ({error})", "remove it and run `study` again") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise InputError(str(path), f"can't be read ({error.strerror})", "name the folder of a study") from None
    except ValueError:
        raise InputError(str(path), "damaged", "remove it and run `study` again") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
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
            *(("done", "") if run.is_done else ("failed", record.reason)),
            *((len(run.rows), int(run.best["epoch"]), run.best["val/acc"]) if run.rows else (0, "", "")),
            *(run.last.get(name, "") if run.rows else "" for name in FIGURES),
            *((run.test.loss, run.test.acc) if run.test else ("", "")),
            *(record.settings.get(name, "") for name in varied),
            record.folder,
        ]
