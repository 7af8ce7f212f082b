"""The command `report`."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cifar_lightning.errors import InputError
from cifar_lightning.report.command import report
from cifar_lightning.results import store
from cifar_lightning.results.records import Record
from cifar_lightning.utils import files
from tests.report import handmade
from tests.report.handmade import curve, outcome, record


def written(folder: Path, *runs: Record) -> Path:
    return handmade.write(handmade.study(folder, {"other": list(runs or [record(curve(2))])}))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "command line: the following arguments are required: FOLDER; `report --help` lists what there is"),
        (["a", "--fast"], "command line: unrecognized arguments: --fast; `report --help` lists what there is"),
        (["nowhere"], "nowhere/plan.json: can't be read (No such file or directory); name the folder of a study"),
    ],
)
def test_what_cannot_be_used_is_named(args: list[str], words: str, empty_folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        report(args)
    assert str(caught.value) == words


def test_publishing_copies_the_records_as_they_grow_and_nothing_else(tmp_path: Path) -> None:
    def content(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    runs = [record(curve(2), seed=seed) for seed in (0, 1)]
    for so_far in (runs[:1], runs):
        made = written(tmp_path / "study", *so_far)
        report([str(made)])
        before = content(made)
        (made / "other/seed=0/checkpoints").mkdir(parents=True, exist_ok=True)
        (made / "other/seed=0/checkpoints/last.ckpt").write_text("large")
        assert report([str(made), f"--output={tmp_path / 'published'}"]) == 0
        assert content(tmp_path / "published") == {k: v for k, v in before.items() if not k.endswith("last.ckpt")}


def test_what_is_there_is_not_overwritten_by_another_study(tmp_path: Path) -> None:
    made = written(tmp_path / "study")
    another = written(tmp_path / "another", record(curve(3)))
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "report.md").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for folder, words in (
        (another, "another holds another study; name another folder"),
        (tmp_path / "paper", "paper holds other files; name another folder"),
        (tmp_path / "file", "file is not a folder; name another"),
    ):
        with pytest.raises(InputError, match=words):
            report([str(made), f"--output={folder}"])
    with files.locked(another), pytest.raises(InputError, match="another study is running here"):
        report([str(made), f"--output={another}"])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_copies_of_runs_and_files_of_others_are_left_out(tmp_path: Path) -> None:
    made = written(tmp_path / "study")
    report([str(made)])
    before = (made / "report.html").read_bytes()
    (run,) = made.glob("other/seed=0")
    shutil.copytree(run, made / "other" / "seed=0.bak")
    (made / "mine" / "x").mkdir(parents=True)
    (made / "mine" / "x" / "result.json").write_text('{"acc": 3}')
    assert report([str(made)]) == 0
    assert (made / "report.html").read_bytes() == before


def test_a_run_on_another_disk_is_read_through_its_link(tmp_path: Path) -> None:
    made = written(tmp_path / "study")
    (run,) = made.glob("other/seed=0")
    run.rename(tmp_path / "disk")
    run.symlink_to(tmp_path / "disk")
    assert len(store.read(made).records) == 1


def spoilt(folder: Path, name: str, change: Callable[[Any], object]) -> Path:
    """A study whose plan or whose only record was changed; returns the file."""
    made = handmade.write(handmade.study(folder, {"cnn": [record(curve(2), test=outcome(0.5))]}))
    (path,) = made.rglob(name)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


RESULT, PLAN = "result.json", "plan.json"


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (RESULT, lambda record: record.pop("seed"), "Object missing required field `seed`"),
        (RESULT, lambda record: record.update(more=1), "Object contains unknown field `more`"),
        (RESULT, lambda record: record.update(seed=True), "seed: Expected `int`, got `bool`"),
        (RESULT, lambda record: record.update(status="begun"), "status: Invalid enum value 'begun'"),
        (RESULT, lambda record: record.pop("rows"), "rows: Expected at least one"),
        (RESULT, lambda record: record.update(rows=[]), "rows: Expected at least one"),
        (RESULT, lambda record: record["rows"][0].pop("val/acc"), "Expected epoch, epoch_seconds, val/acc in rows"),
        (RESULT, lambda record: record["rows"][0].update(epoch="much"), "rows[0][...]: Expected `float`, got `str`"),
        (RESULT, lambda record: record["test"]["confusion_matrix"].pop(), "Expected confusion_matrix to have a row"),
        (RESULT, lambda record: record["test"]["mistakes"][0].update(png="bm8="), "Expected png to be a PNG file"),
        (RESULT, lambda record: record["test"]["mistakes"][0].update(png="?"), "test.mistakes[0]: "),
        (PLAN, lambda plan: plan["points"][0].update(epochs=0), "study (points[0].epochs: Expected `int` >= 1"),
        (PLAN, lambda plan: plan["points"][0].update(seed="0"), "study (points[0].seed: Expected `int`, got"),
    ],
)
def test_a_file_that_was_changed_is_named_with_the_place(name: str, change: Any, words: str, tmp_path: Path) -> None:
    path = spoilt(tmp_path, name, change)
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        report([str(tmp_path)])
    assert str(caught.value).startswith(f"{path}: ")


def test_deep_nesting_is_damage(tmp_path: Path) -> None:
    spoilt(tmp_path, RESULT, len).write_text("[" * 100_000)
    with pytest.raises(InputError, match="damaged"):
        report([str(tmp_path)])


@pytest.mark.parametrize("folder", ["../../elsewhere/version_0", "/elsewhere/version_0"])
def test_a_record_stays_in_its_study(folder: str, tmp_path: Path) -> None:
    spoilt(tmp_path / "study", "result.json", lambda record: record.update(folder=folder))
    with pytest.raises(InputError, match="not the record of a run"):
        report([str(tmp_path / "study"), f"--output={tmp_path / 'published'}"])
    assert [each.name for each in tmp_path.iterdir()] == ["study"]
