"""A checkpoint alone is enough for validate, test and predict."""

import json
import shutil
import tempfile
from pathlib import Path
from unittest.mock import Mock, call

import numpy as np
import pytest
import torch
import yaml

from cifar_lightning.__main__ import main
from cifar_lightning.data import synthetic
from cifar_lightning.data.transforms import normalize
from cifar_lightning.models import MLP, WhitenedCNN
from tests.conftest import SMALL, Fit, fewer_test_images, rows
from tests.test_reproducibility import RECIPES


@pytest.fixture
def run(mlp_run: Path, empty_folder: Path) -> Path:
    return Path(shutil.copytree(mlp_run, empty_folder / "run"))  # to write into


@pytest.fixture
def best(run: Path) -> str:
    return f"--ckpt_path={run / 'checkpoints/best.ckpt'}"


def test_validate_reproduces_the_best_epoch_exactly(run: Path, best: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", best]) == 0
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  "))
    row = max(rows(run / "metrics.csv"), key=lambda row: float(row["val/acc"]))
    names = {"val/loss", "val/acc", "train_clean/loss", "train_clean/acc", "gap/loss", "gap/acc"}
    # metrics.csv holds the shortest decimal of each float32; rounded as it stands it may end in another digit.
    assert printed == {name: f"{np.float32(row[name]):.6f}" for name in names}


def test_a_checkpoint_may_lie_in_a_folder_of_the_first_level(run: Path) -> None:
    with tempfile.NamedTemporaryFile(suffix=".ckpt") as copy:  # in /tmp, if it is anywhere
        copy.write((run / "checkpoints/best.ckpt").read_bytes())
        copy.flush()
        assert main(["validate", f"--ckpt_path={copy.name}"]) == 0


def test_test_writes_the_metrics_of_the_test_set(run: Path, best: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", best]) == 0
    results = json.loads((run / "test.json").read_text())
    counts = results["confusion_matrix"]
    assert [sum(row) for row in counts] == [1000] * 10
    assert results["acc"] == sum(counts[i][i] for i in range(10)) / 10_000
    assert results["per_class_acc"] == {name: counts[i][i] / 1000 for i, name in enumerate(synthetic.CLASSES)}
    assert [results[name] for name in ("images", "source", "checkpoint")] == [10_000, "synthetic", best.split("=")[1]]
    # The same metrics by hand, image by image, without Trainer or data module.
    model = MLP.load_from_checkpoint(run / "checkpoints/best.ckpt", map_location="cpu").eval()
    test = synthetic.make(train=False)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)))
    # In the precision in which it was trained, and is tested: that of the hardware at hand.
    half = yaml.safe_load((run / "config.yaml").read_text())["trainer"]["precision"] == "bf16-mixed"
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits = model((test.images / 255 - mean) / std).float()
    by_hand = torch.bincount(test.labels * 10 + logits.argmax(1), minlength=100).view(10, 10)
    assert (by_hand - torch.tensor(counts)).abs().sum() <= 4  # two images may stand on the edge of rounding
    assert results["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, test.labels).item(), abs=1e-5)
    text = capsys.readouterr().out
    assert f"loss {results['loss']:.4f}  accuracy {results['acc']:.4f}" in text
    assert all(name in text for name in (*synthetic.CLASSES, "SYNTHETIC"))


def test_the_test_set_is_read_by_test_alone(best: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Mock(wraps=synthetic.make)
    monkeypatch.setattr(synthetic, "make", make)
    assert main(["fit", "--model=MLP", "--data.source=synthetic", "--trainer.fast_dev_run=true"]) == 0
    assert main(["validate", best]) == 0
    assert make.mock_calls == [call(train=True), call(train=True)]
    assert main(["test", best]) == 0
    assert make.mock_calls[2:] == [call(train=False)]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])  # in bfloat16 some classes are equally likely
def test_predict_without_images_takes_the_test_set(precision: str, run: Path, best: str) -> None:
    for command in ("predict", "test"):
        assert main([command, best, f"--trainer.precision={precision}"]) == 0
    predictions, labels = rows(run / "predictions.csv"), synthetic.make(train=False).labels.tolist()
    right = sum(row["class"] == synthetic.CLASSES[label] for row, label in zip(predictions, labels, strict=True))
    assert right / 10_000 == json.loads((run / "test.json").read_text())["acc"]
    for row in predictions[:100]:
        top = [float(row[f"top{i}_probability"]) for i in (1, 2, 3)]
        assert top == sorted(top, reverse=True)
        assert 0 < sum(top) <= 1.00001
        assert (row["class"], row["probability"]) == (row["top1_class"], row["top1_probability"])


def test_a_checkpoint_holds_whitening_and_averages(
    fit: Fit, empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fewer_test_images(1000, monkeypatch)
    flags = [*RECIPES["whitened_cnn"].split(), *SMALL, "--model.views=6", "--trainer.max_epochs=2"]
    run = fit(empty_folder / "logs", [*flags, "--trainer.precision=32-true"])
    (run / "checkpoints/best.ckpt").rename("mine.ckpt")
    shutil.rmtree(run)
    accs = []
    for views in (6, 1):
        for command in ("test", "predict"):
            assert main([command, "--ckpt_path=mine.ckpt", f"--model.views={views}"]) == 0
        accs.append(json.loads(Path("test.json").read_text())["acc"])
        labels = synthetic.make(train=False).labels.tolist()
        classes = [row["class"] for row in rows(Path("predictions.csv"))]
        right = sum(name == synthetic.CLASSES[label] for name, label in zip(classes, labels, strict=True))
        assert right / 1000 == accs[-1]
    model = WhitenedCNN.load_from_checkpoint("mine.ckpt", map_location="cpu").eval()
    test = synthetic.make(train=False)
    with torch.no_grad():
        logits = model.classify(normalize(test.images))
    assert (logits.argmax(1) == test.labels).float().mean().item() == pytest.approx(accs[0], abs=1e-3)
    assert accs[0] != accs[1]


@pytest.mark.cifar10
def test_the_real_set_from_training_to_test(cifar10_root: Path, fit: Fit, tmp_path: Path) -> None:
    flags = ["--model=MLP", f"--data.root={cifar10_root}", "--data.train_size=5000", "--trainer.max_epochs=2"]
    run = fit(tmp_path, flags)
    assert run.parent.name == "mlp-train_size=5000"  # no tag: this is CIFAR-10
    assert main(["test", f"--ckpt_path={run / 'checkpoints/best.ckpt'}"]) == 0
    results = json.loads((run / "test.json").read_text())
    assert (results["source"], results["classes"][:3]) == ("cifar10", ["airplane", "automobile", "bird"])
    assert [sum(row) for row in results["confusion_matrix"]] == [1000] * 10
    assert 0.33 < results["acc"] < 0.5  # chance is 0.1; seeds 0, 1 and 2 gave 0.386 to 0.399
