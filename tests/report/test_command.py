"""The command `report`."""

import json
from pathlib import Path

import pytest

from cifar_lightning.errors import InputError
from cifar_lightning.report.command import report
from tests.report import handmade
from tests.report.handmade import curve, record


def test_it_says_where_the_report_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = handmade.write(handmade.study(tmp_path / "study", {"other": [record(curve(2))]}))
    assert report([str(made)]) == 0
    assert capsys.readouterr().out == f"written to {made / 'report.html'}\n"
    assert (made / "report.md").is_file()
    assert not list(made.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "command line: the following arguments are required: FOLDER; `report --help` lists what there is"),
        (["a", "--fast"], "command line: unrecognized arguments: --fast; `report --help` lists what there is"),
        (["a", "b"], "command line: unrecognized arguments: b; `report --help` lists what there is"),
        (["nowhere"], "nowhere/plan.json: can't be read (No such file or directory); name the folder of a study"),
    ],
)
def test_what_cannot_be_used_is_named(args: list[str], words: str, empty_folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        report(args)
    assert str(caught.value) == words


def test_publishing_copies_the_records_and_nothing_else(tmp_path: Path) -> None:
    runs = {"other": [record(curve(2), seed=0), record(curve(2), seed=1)]}
    made = handmade.write(handmade.study(tmp_path / "study", runs))
    (run,) = made.glob("other/*seed=1*")
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").write_text("large")
    report([str(made)])
    report([str(made), f"--output={tmp_path / 'published'}"])

    def content(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    checkpoint = str((run / "checkpoints" / "last.ckpt").relative_to(made))
    assert content(tmp_path / "published") == {k: v for k, v in content(made).items() if k != checkpoint}


@pytest.mark.parametrize("folder", ["../../elsewhere/version_0", "/elsewhere/version_0"])
def test_a_record_stays_in_its_study(folder: str, tmp_path: Path) -> None:
    made = handmade.write(handmade.study(tmp_path / "study", {"other": [record(curve(2))]}))
    (path,) = made.rglob("result.json")
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"folder": folder}))
    with pytest.raises(InputError, match="not the record of a run"):
        report([str(made), f"--output={tmp_path / 'published'}"])
    assert [each.name for each in tmp_path.iterdir()] == ["study"]


def test_help_needs_no_study(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        report(["--help"])
    assert "FOLDER" in capsys.readouterr().out
