"""A checkpoint alone is enough: validate, test and predict."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from cifar_lightning.__main__ import main
from cifar_lightning.data import synthetic
from cifar_lightning.models import MLP
from tests.conftest import CONFIGS, Fit


@pytest.fixture
def run(mlp_run: Path, empty_folder: Path) -> Path:
    """A copy of the small run, to write into."""
    return Path(shutil.copytree(mlp_run, empty_folder / "run"))


def best_row(run: Path) -> dict[str, float]:
    with (run / "metrics.csv").open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    return max(rows, key=lambda row: row["val/acc"])


def test_validate_reproduces_the_best_epoch_to_the_last_digit(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", f"--ckpt_path={run / 'checkpoints/best.ckpt'}"]) == 0
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  "))
    row = best_row(run)
    names = {"val/loss", "val/acc", "train_clean/loss", "train_clean/acc", "gap/loss", "gap/acc"}
    # metrics.csv holds the shortest decimal of each float32; rounded as it stands it may end in another digit.
    assert printed == {name: f"{np.float32(row[name]):.6f}" for name in names}


def test_test_writes_what_it_measured(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", f"--ckpt_path={run / 'checkpoints/best.ckpt'}"]) == 0
    report = json.loads((run / "test.json").read_text())
    counts = report["confusion_matrix"]
    assert [sum(row) for row in counts] == [1000] * 10
    assert report["acc"] == sum(counts[i][i] for i in range(10)) / 10_000
    assert report["per_class_acc"] == {name: counts[i][i] / 1000 for i, name in enumerate(synthetic.CLASSES)}
    assert (report["images"], report["source"]) == (10_000, "synthetic")
    assert report["checkpoint"].endswith("best.ckpt")
    # The same figures by hand, image by image, without Trainer or data module.
    model = MLP.load_from_checkpoint(run / "checkpoints/best.ckpt", map_location="cpu").eval()
    test = synthetic.make(train=False)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)))
    # In the precision in which it was trained, and is tested: that of the hardware at hand.
    half = yaml.safe_load((run / "config.yaml").read_text())["trainer"]["precision"] == "bf16-mixed"
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits = model((test.images / 255 - mean) / std).float()
    by_hand = torch.zeros(10, 10, dtype=torch.int64)
    for true, predicted in zip(test.labels.tolist(), logits.argmax(1).tolist(), strict=True):
        by_hand[true, predicted] += 1
    assert (by_hand - torch.tensor(counts)).abs().sum() <= 4  # two images may stand on the edge of rounding
    assert report["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, test.labels).item(), abs=1e-5)
    text = capsys.readouterr().out
    assert f"loss {report['loss']:.4f}  accuracy {report['acc']:.4f}" in text
    assert all(name in text for name in synthetic.CLASSES)
    assert "SYNTHETIC" in text


def test_the_test_set_is_read_by_nobody_else(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bool] = []
    make = synthetic.make

    def spy(*, train: bool) -> object:
        read.append(train)
        return make(train=train)

    monkeypatch.setattr(synthetic, "make", spy)
    checkpoint = f"--ckpt_path={run / 'checkpoints/best.ckpt'}"
    assert main(["fit", "--model=MLP", "--data.source=synthetic", "--trainer.fast_dev_run=true"]) == 0
    assert main(["validate", checkpoint]) == 0
    assert read == [True, True]
    assert main(["test", checkpoint]) == 0
    assert read == [True, True, False]


def test_flags_win_over_the_checkpoint_and_it_is_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", f"--ckpt_path={run / 'checkpoints/best.ckpt'}", "--data.val_size=500"]) == 0
    text = capsys.readouterr().out
    assert "MLP after epoch" in text
    assert "data.val_size 500 (there: 1000)" in text
    assert "train_size" not in text


@pytest.mark.parametrize(
    "flags",
    [[f"--config={CONFIGS / 'cnn.yaml'}"], ["--model=CNN"], ["--model.width=100"], ["--model.batch_norm=false"]],
    ids=["another file", "another model", "another width", "no batch norm"],
)
def test_a_contradiction_is_an_error(flags: list[str], run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(run.rglob("*"))
    assert main(["test", f"--ckpt_path={run / 'checkpoints/best.ckpt'}", *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: model: ")
    assert "best.ckpt knows its own" in line
    assert sorted(run.rglob("*")) == before


def test_the_stand_in_is_no_match_for_the_real_set(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", f"--ckpt_path={run / 'checkpoints/best.ckpt'}", "--data.source=cifar10"]) == 2
    assert "error: data.source: cifar10, but the checkpoint was trained on synthetic" in capsys.readouterr().err


def test_nothing_to_validate_on(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", f"--ckpt_path={run / 'checkpoints/best.ckpt'}", "--data.val_size=0"]) == 2
    assert "error: data.val_size: 0 leaves nothing to validate on" in capsys.readouterr().err


def test_of_two_checkpoints_the_last_counts(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = f"--ckpt_path={run / 'checkpoints/best.ckpt'}"
    assert main(["test", best, "--ckpt_path=nowhere.ckpt"]) == 2
    assert capsys.readouterr().err.startswith("error: nowhere.ckpt: there is no such checkpoint")


def test_a_checkpoint_copied_elsewhere_is_enough(run: Path) -> None:
    Path("elsewhere").mkdir()
    shutil.copy(run / "checkpoints/best.ckpt", "elsewhere/mine.ckpt")
    shutil.rmtree(run)
    assert main(["test", "--ckpt_path=elsewhere/mine.ckpt"]) == 0
    assert Path("elsewhere/test.json").exists()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])  # in bfloat16 some classes are equally likely
def test_predict_without_pictures_takes_the_test_set(precision: str, run: Path) -> None:
    for command in ("predict", "test"):
        assert main([command, f"--ckpt_path={run / 'checkpoints/best.ckpt'}", f"--trainer.precision={precision}"]) == 0
    with (run / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10_000
    test = synthetic.make(train=False)
    right = sum(row["class"] == synthetic.CLASSES[label] for row, label in zip(rows, test.labels.tolist(), strict=True))
    assert right / 10_000 == json.loads((run / "test.json").read_text())["acc"]
    for row in rows[:100]:
        top = [float(row[f"top{i}_probability"]) for i in (1, 2, 3)]
        assert top == sorted(top, reverse=True)
        assert 0 < sum(top) <= 1.00001
        assert (row["class"], row["probability"]) == (row["top1_class"], row["top1_probability"])


def test_predict_takes_a_persons_pictures(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").mkdir()
    Image.new("RGB", (300, 200), "red").save("mine/a.png")
    Image.new("LA", (20, 50)).save("mine/b.png")
    Path("mine/c.png").write_text("not a picture")
    Image.new("L", (32, 32)).save("d.jpg")
    args = ["--data.images", "mine", "d.jpg"]
    assert main(["predict", f"--ckpt_path={run / 'checkpoints/best.ckpt'}", *args]) == 1
    with (run / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["mine/a.png", "mine/b.png", "d.jpg"]
    assert {row["class"] for row in rows} <= set(synthetic.CLASSES)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: mine/c.png: ")


@pytest.mark.parametrize("images", ["nowhere", "empty"])
def test_predict_without_any_picture(images: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    assert main(["predict", f"--ckpt_path={run / 'checkpoints/best.ckpt'}", "--data.images", images]) == 2
    assert capsys.readouterr().err.startswith(f"error: {images}: ")
    assert not (run / "predictions.csv").exists()


@pytest.mark.cifar10
def test_the_real_set_from_training_to_test(cifar10_root: Path, fit: Fit, tmp_path: Path) -> None:
    flags = ["--model=MLP", f"--data.root={cifar10_root}", "--data.train_size=5000", "--trainer.max_epochs=2"]
    run = fit(tmp_path, flags)
    assert run.parent.name == "mlp"  # no tag: this is CIFAR-10
    assert main(["test", f"--ckpt_path={run / 'checkpoints/best.ckpt'}"]) == 0
    report = json.loads((run / "test.json").read_text())
    assert (report["source"], report["classes"][:3]) == ("cifar10", ["airplane", "automobile", "bird"])
    assert [sum(row) for row in report["confusion_matrix"]] == [1000] * 10
    assert 0.33 < report["acc"] < 0.5  # chance is 0.1; seeds 0, 1 and 2 gave 0.386 to 0.399
