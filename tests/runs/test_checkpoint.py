"""A checkpoint is read as it was written, or not at all."""

import random
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from cifar_lightning.__main__ import main
from cifar_lightning.cli import starting_point
from cifar_lightning.errors import InputError
from cifar_lightning.runs.checkpoint import load, newest, read_checkpoint
from cifar_lightning.runs.layout import RunFolder
from tests.faults.compare import unequal

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def run(mlp_run: Path, tmp_path: Path) -> Path:
    """A copy of that run, to write to."""
    return Path(shutil.copytree(mlp_run, tmp_path / "logs/mlp-synthetic/version_0"))


def test_a_flipped_bit_changes_nothing_unseen(mlp_run: Path, tmp_path: Path) -> None:
    """Anywhere in the file: what is read is what was written, or it is refused."""
    last, path, rng, refused = mlp_run / "checkpoints/last.ckpt", tmp_path / "flipped.ckpt", random.Random(0), 0
    whole, expected = last.read_bytes(), load(last)
    with zipfile.ZipFile(last) as archive:
        directory = archive.start_dir
    # Half of them in the directory at the end, which no checksum covers.
    for flip in range(60):
        position = rng.randrange(directory, len(whole)) if flip % 2 else rng.randrange(len(whole))
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            assert list(unequal(load(path), expected)) == [], position
        except InputError:
            refused += 1
    assert refused >= 30


def test_of_the_checkpoints_of_one_epoch_the_last_is_the_newest(mlp_run: Path) -> None:
    found = newest(RunFolder(mlp_run))
    assert found
    assert (found.path.name, found.epochs, found.midway) == ("last.ckpt", 3, 0)


@pytest.mark.parametrize("earlier", [0, 2])  # files that were set aside before
def test_an_epoch_that_is_done_again_is_the_same(earlier: int, mlp_run: Path, run: Path, capsys: Capture) -> None:
    last = run / "checkpoints/last.ckpt"
    names = ["last.ckpt.damaged", "last.ckpt.damaged.1", "last.ckpt.damaged.2"]
    for content, name in enumerate(["last.ckpt", *names][: earlier + 1]):
        last.with_name(name).write_text(str(content))
    assert main(["fit", f"--resume={run}", "--trainer.max_epochs=3"]) == 0
    assert f"sets aside {last} as {names[earlier]}\n" in capsys.readouterr().err
    there = {path.name: path.read_text() for path in last.parent.glob("*.damaged*")}
    assert there == {names[earlier]: "0"} | {name: str(i) for i, name in enumerate(names[:earlier], 1)}
    assert list(unequal(load(last), load(mlp_run / "checkpoints/last.ckpt"))) == []
    assert read_checkpoint(run / "checkpoints/previous.ckpt").epochs == 2


def test_last_is_the_newest_version_and_only_that(tmp_path: Path) -> None:
    for name in ("version_9", "version_10", "version_x"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "checkpoints/last.ckpt").touch()
    run = starting_point.last_run(tmp_path)
    assert run
    assert run.path == tmp_path / "version_10"
    (tmp_path / "version_11").mkdir()  # killed before its first checkpoint: nothing to resume from
    assert starting_point.last_run(tmp_path) is None
    assert starting_point.last_run(tmp_path / "nowhere") is None


@pytest.mark.parametrize("name", ["", "version_0/checkpoints", "version_0/checkpoints/last.ckpt"])
def test_what_is_near_a_run_tells_its_folder(name: str, mlp_run: Path, capsys: Capture) -> None:
    assert main(["fit", f"--resume={mlp_run.parent / name}"]) == 2
    assert f"is not the folder of a run; name one: --resume {mlp_run}\n" in capsys.readouterr().err


@pytest.mark.parametrize("lacking", ["EpochSeed", "Checkpoints"])
def test_an_older_one_can_be_tested_but_not_resumed(lacking: str, run: Path, capsys: Capture) -> None:
    path = run / "checkpoints/last.ckpt"
    for name in ("best.ckpt", "previous.ckpt"):
        path.with_name(name).unlink()
    content, before = load(path), sorted(run.rglob("*"))
    del content["callbacks"][lacking]
    torch.save(content, path)
    assert main(["validate", f"--ckpt_path={path}"]) == 0
    assert main(["fit", f"--resume={run}", "--trainer.max_epochs=4"]) == 2
    assert "older version" in capsys.readouterr().err
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize("flag", ["--trainer.fast_dev_run=true", "--name=x", "--logs=x"])
def test_a_run_resumes_as_itself_or_not_at_all(flag: str, mlp_run: Path, capsys: Capture) -> None:
    assert main(["fit", f"--resume={mlp_run}", "--trainer.max_epochs=4", flag]) == 2
    assert f"error: {flag[2:].partition('=')[0]}" in capsys.readouterr().err
