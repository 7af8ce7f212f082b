"""An exported file predicts what the checkpoint predicts, says what it is, and works without this package."""

import csv
import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import cifar_lightning
from cifar_lightning.__main__ import main
from cifar_lightning.data import synthetic
from cifar_lightning.export import command, formats
from cifar_lightning.export.formats import FORMATS
from tests.conftest import CONFIGS, IMAGES, SMALL
from tests.export.conftest import MODELS

Runs = dict[str, Path]
Capture = pytest.CaptureFixture[str]
GUIDE = (CONFIGS.parent / ".github/EXPORT.md").read_text()
pytestmark = pytest.mark.usefixtures("few_images", "empty_folder")


def rows(path: str | Path) -> list[dict[str, str]]:
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def export(run: Path, form: str, *flags: str) -> Path:
    """Export into the working directory."""
    output = Path(f"a{FORMATS[form].suffix}")
    assert main(["export", f"--ckpt_path={run}", f"--format={form}", f"--output={output}", *flags]) == 0
    return output


Exported = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def contents() -> dict[tuple[str, str], bytes]:
    """Exported files, by model and format."""
    return {}


@pytest.fixture
def exported(runs: Runs, contents: dict[tuple[str, str], bytes]) -> Exported:
    """Writes an exported file into the working directory; each is exported once."""

    def make(model: str, form: str) -> Path:
        if (model, form) not in contents:
            contents[model, form] = export(runs[model], form).read_bytes()
        file = Path(f"a{FORMATS[form].suffix}")
        file.write_bytes(contents[model, form])
        return file

    return make


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("form", FORMATS)
def test_it_predicts_what_predict_predicts(
    model: str, form: str, runs: Runs, contents: dict[tuple[str, str], bytes], capfd: Capture
) -> None:
    file = export(runs[model], form)
    contents[model, form] = file.read_bytes()
    output = capfd.readouterr()
    assert output.err == ""
    largest = float(re.findall(r"largest difference of a probability: (\S+)", output.out)[0])
    assert largest < 1e-5
    assert f"all {IMAGES} test images are predicted as by the checkpoint: SYNTHETIC" in output.out
    flags = ["--trainer.precision=32-true", "--probabilities", "--output=expected.csv"]
    assert main(["predict", f"--ckpt_path={runs[model]}", *flags]) == 0
    probabilities = FORMATS[form].read(file.read_bytes())(synthetic.make(train=False).images.numpy())
    expected = [[float(row[name]) for name in synthetic.CLASSES] for row in rows("expected.csv")]
    assert np.abs(probabilities - expected).max() < 5e-7 + 1e-5  # written with six digits
    assert [synthetic.CLASSES[i] for i in probabilities.argmax(1)] == [row["class"] for row in rows("expected.csv")]


@pytest.mark.parametrize("model", MODELS)
def test_test_and_predict_by_a_file_are_as_by_the_checkpoint(
    model: str, runs: Runs, exported: Exported, capsys: Capture
) -> None:
    shutil.copytree(runs[model], "run")
    file = str(exported(model, "onnx"))
    Path("pics").mkdir()
    for color in ("red", "lime"):
        Image.new("RGB", (50, 40), color).save(f"pics/{color}.png")
    results = {}
    for source in ("--ckpt_path=run", f"--model={file}"):
        precision = ["--trainer.precision=32-true"] * source.startswith("--ckpt")
        assert main(["test", source, *precision]) == 0
        where = Path("run" if precision else ".")
        tested = json.loads((where / "test.json").read_text())
        for images in ([], ["--data.images", "pics"], ["--data.images=pics/*.png", "--probabilities"]):
            assert main(["predict", source, *precision, *images]) == 0
            tested[str(images)] = rows(where / "predictions.csv")
        results[tested.pop("checkpoint")] = tested
    assert capsys.readouterr().out.count("ms per image by ONNX Runtime on this machine") == 4
    expected, found = results.values()
    assert [*results] == ["run/checkpoints/best.ckpt", file]
    for name, value in expected.items():
        if isinstance(value, float):
            assert found[name] == pytest.approx(value, abs=1e-5)
        elif not isinstance(value, list) or not isinstance(value[0], dict):
            assert found[name] == value
        else:
            assert len(value) in (IMAGES, 2)
            for one, other in zip(value, found[name], strict=True):
                assert [*one] == [*other]
                assert all(one[k] == other[k] or abs(float(one[k]) - float(other[k])) < 2e-6 for k in one)


@pytest.mark.parametrize("form", FORMATS)
def test_it_says_what_it_is_and_nothing_of_this_machine(form: str, runs: Runs) -> None:
    run = Path(shutil.copytree(runs["whitened_cnn"], "run"))
    assert main(["test", "--ckpt_path=run"]) == 0
    content = export(run, form).read_bytes()
    if form == "onnx":
        found = {each.key: each.value for each in onnx.load_from_string(content).metadata_props}
    elif form == "torch":
        with zipfile.ZipFile("a.pt2") as archive:
            found = {
                name.rpartition("/")[2]: archive.read(name).decode() for name in archive.namelist() if "extra" in name
            }
    else:
        found = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    assert json.loads(found["classes"]) == list(synthetic.CLASSES)
    best = max(rows(run / "metrics.csv"), key=lambda row: float(row["val/acc"]))
    assert float(found["val_acc"]) == pytest.approx(float(best["val/acc"]), abs=1e-4)
    assert float(found["test_acc"]) == pytest.approx(json.loads((run / "test.json").read_text())["acc"], abs=1e-4)
    assert found["checkpoint_sha256"] == hashlib.sha256((run / "checkpoints/best.ckpt").read_bytes()).hexdigest()
    assert (found["run"], found["source"], found["checkpoint"]) == ("run", "synthetic", "run/checkpoints/best.ckpt")
    assert found["architecture"] == "cifar_lightning.models.whitened_cnn.WhitenedCNN"
    assert "middle square, resized (bicubic" in found["preparation"]
    assert json.loads(found["settings"])["model"]["init_args"]["views"] == 6
    assert str(Path(cifar_lightning.__file__).parent).encode() not in content
    assert str(Path(torch.__file__).parent).encode() not in content


@pytest.mark.parametrize("form", FORMATS)
def test_without_normalization_it_is_not_kept(
    form: str, runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The negative control."""
    file = Path(f"a{FORMATS[form].suffix}")
    file.write_bytes(before := b"the former one")
    monkeypatch.setattr(formats, "normalize", torch.Tensor.float)
    for output, kept in ((file, before), (file.with_stem("b"), None)):
        flags = [f"--ckpt_path={runs['cnn']}", f"--format={form}", f"--output={output}", "--force"]
        assert main(["export", *flags]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert re.match(rf"error: {output}: in batches of 1 it predicts test/0000, .* and \d+ more otherwise", line)
        assert (output.read_bytes() if output.exists() else None) == kept
    assert [*Path().iterdir()] == [file]


def test_it_lies_beside_its_checkpoint_and_replaces_nothing_unasked(runs: Runs, capsys: Capture) -> None:
    shutil.copytree(runs["mlp"], "run")
    assert main(["test", "--ckpt_path=run"]) == 0
    Path("run/metrics.csv").write_text("x\n1\n")  # nothing to learn from
    assert main(["export", "--ckpt_path=run"]) == 0
    assert "written to run/checkpoints/best.onnx (" in capsys.readouterr().out
    Path("run/checkpoints/best.onnx").write_text("mine")
    assert main(["export", "--ckpt_path=run/checkpoints/best.ckpt"]) == 2
    line = "error: output: run/checkpoints/best.onnx is there already; name another, or add --force\n"
    assert capsys.readouterr().err == line
    assert main(["export", "--ckpt_path=run", "--force"]) == 0
    assert main(["test", "--model", "run/checkpoints/best.onnx"]) == 0
    assert "written to run/test.json, in place of the former one" in capsys.readouterr().out
    assert json.loads(Path("run/test.json").read_text())["checkpoint"] == "run/checkpoints/best.onnx"


def test_predictions_replace_nothing_unasked(runs: Runs, capsys: Capture) -> None:
    predict = ["predict", f"--ckpt_path={runs['mlp']}", "--output", "mine.csv"]
    Path("mine.csv").write_text("mine")
    assert main(predict) == 2
    assert "error: output: mine.csv is there already; name another, or add --force\n" in capsys.readouterr().err
    assert Path("mine.csv").read_text() == "mine"
    assert main([*predict, "--force"]) == 0
    assert "written to mine.csv, in place of the former one" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["onnx", "safetensors"])
def test_without_the_extra_it_says_what_to_type(
    form: str, runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert main(["export", f"--ckpt_path={runs['mlp']}", f"--format={form}"]) == 2
    error = capsys.readouterr().err
    pattern = rf"error: format: {form} needs {form}, which is not installed; pip install .* -e '\.\[export\]'\n"
    assert re.fullmatch(pattern, error)
    assert main(["predict", "--model=a.onnx"]) == 2
    assert capsys.readouterr().err == re.sub("format: \\w+ needs \\w+", "model: onnx needs onnx", error)
    export(runs["mlp"], "torch")


def test_the_documented_commands_run(runs: Runs) -> None:
    shutil.copytree(runs["cnn"], "logs/cnn/version_0")
    Path("pics").mkdir()
    Image.new("RGB", (50, 40), "red").save("pics/a.png")
    commands = re.findall(r"python -m cifar_lightning (.*)", GUIDE.replace("\\\n", ""))
    assert len(commands) == 4
    for words in commands:
        assert main(shlex.split(words, comments=True)) == 0
    assert [*rows("pics.csv")[0]][-10:] == list(synthetic.CLASSES)


WITHOUT = "import sys\nfor name in {}: sys.modules[name] = None\n"


def alone(missing: list[str], code: str) -> str:
    """Run code in a process where some packages can't be imported, and return what it prints."""
    args = [sys.executable, "-W", "error", "-c", WITHOUT.format(missing) + code]
    return subprocess.run(args, check=True, capture_output=True, text=True).stdout


def test_the_documented_python_needs_neither_pytorch_nor_this_package(runs: Runs, exported: Exported) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 60, 3), np.uint8)).save("cat.png")
    exported("cnn", "onnx").rename("best.onnx")
    code = GUIDE.partition("```python\n")[2].partition("```")[0]
    assert len(code.splitlines()) <= 6
    label, probability = alone(["torch", "cifar_lightning", "lightning"], code).split()
    flags = ["--trainer.precision=32-true", "--output=a.csv", "--data.images=cat.png"]
    assert main(["predict", f"--ckpt_path={runs['cnn']}", *flags]) == 0
    (row,) = rows("a.csv")
    assert label == row["class"]
    assert float(probability) == pytest.approx(float(row["probability"]), abs=1e-5)


@pytest.mark.slow
def test_the_file_of_torch_export_needs_no_more_than_pytorch(exported: Exported) -> None:
    exported("whitened_cnn", "torch")
    code = "import torch\nimages = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)\n"
    code += "print(*torch.export.load('a.pt2').module()(images)[2].tolist())"
    found = [float(x) for x in alone(["cifar_lightning", "lightning"], code).split()]
    assert sum(found) == pytest.approx(1)


OWN = """
from torch import nn
from cifar_lightning.models import ImageClassifier

class Net(ImageClassifier):
    def __init__(self, *, width: int = 4, **optimization):
        super().__init__(**optimization)
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(3072, width), nn.Linear(width, 10))
"""


@pytest.mark.slow
def test_a_model_of_a_persons_own(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    Path("own_net.py").write_text(OWN)
    monkeypatch.syspath_prepend(Path.cwd())
    assert main(["fit", "--name=net", "--model=own_net.Net", *SMALL, "--trainer.max_epochs=1"]) == 0
    run = Path("logs/net-synthetic/version_0")
    assert main(["export", f"--ckpt_path={run}"]) == 2
    assert "its model own_net.Net is not of this project" in capsys.readouterr().err
    for form in FORMATS:
        export(run, form, f"--config={run}/config.yaml")
