"""What a person types, and what comes back."""

import signal
import sys
from pathlib import Path

import pytest
import torch

from cifar_lightning.__main__ import main
from cifar_lightning.cli.lightning_cli import CLI
from cifar_lightning.errors import Interrupted
from cifar_lightning.models import MLP
from tests.conftest import CONFIGS, SMALL

CNN = f"--config={CONFIGS / 'cnn.yaml'}"

# What was typed, and words that the one line must hold. `{folder}` is the working directory.
INPUT_ERRORS = {
    "typo in a flag": ([CNN, "--model.droput=0.3"], ["model.droput", "did you mean model.dropout?"]),
    "typo in a data flag": ([CNN, "--data.batchsize=3"], ["data.batchsize", "data.batch_size"]),
    "unknown flag": ([CNN, "--bogus=3"], ["bogus", "fit --help"]),
    "a stray word": ([CNN, "stray"], ["stray", "--"]),
    "wrong type": ([CNN, "--data.batch_size=abc"], ["data.batch_size", "abc", "a whole number"]),
    "wrong type in the model": ([CNN, "--model.lr=fast"], ["model.lr", "fast", "a number"]),
    "not one of the choices": ([CNN, "--model.optimizer=adamx"], ["model.optimizer", "adamx", "adam, adamw, sgd"]),
    "not a list": ([CNN, "--model.channels=3"], ["model.channels", "3", "list"]),
    "batch of nothing": ([CNN, "--data.batch_size=0"], ["data.batch_size", "0", "1 or more"]),
    "dropout above 1": ([CNN, "--model.dropout=1.5"], ["model.dropout", "1.5", "0 to 1"]),
    "no learning": ([CNN, "--model.lr=0"], ["model.lr", "0", "above 0"]),
    "nothing to train on": ([CNN, "--data.val_size=50000"], ["data.val_size", "50000", "49990"]),
    "negative seed": ([CNN, "--seed_everything=-3"], ["seed_everything", "-3"]),
    "an accelerator that is not there": ([CNN, "--trainer.accelerator=tpu"], ["trainer"]),
    "no such accelerator": ([CNN, "--trainer.accelerator=foo"], ["foo", "cpu"]),
    "no model": ([], ["model", "configs/cnn.yaml"]),
    "no such model": (["--model=ResNet"], ["model", "ResNet", "CNN", "MLP"]),
    "no callback": ([CNN, "--trainer.callbacks=os.system"], ["trainer.callbacks", "os.system", "runs code by itself"]),
    "not a model": (["--model=os.system"], ["model", "os.system", "CNN", "MLP"]),
    "no such file": (["--config=nowhere.yaml"], ["nowhere.yaml", "no such file"]),
    "not YAML": (["--config=broken.yaml"], ["broken.yaml, line 3", "YAML"]),
    "no settings": (["--config=list.yaml"], ["list.yaml", "no settings"]),
    "not text": (["--config=bytes.yaml"], ["bytes.yaml", "not a text file"]),
    "typo in a file": (["--config=typo.yaml"], ["data.batch_sise", "data.batch_size"]),
    "follows another": ([CNN, "--data.seed=3"], ["data.seed", "seed_everything"]),
    "value missing": (["--config"], ["config", "give a value"]),
    "an overlay alone": ([f"--config={CONFIGS / 'no_dropout.yaml'}"], ["model.dropout", "configs/cnn.yaml"]),
    "empty section": (["--config=empty.yaml"], ["empty.yaml, model.init_args", "nothing stands below it"]),
    "batch norm over one": (["--model=MLP", "--data.batch_size=1"], ["data.batch_size", "--model.batch_norm false"]),
    "no folder for runs": ([CNN, "--logs=list.yaml"], ["logs", "list.yaml is not a folder"]),
    "no picture named": ([CNN, "--data.images="], ["data.images", "names of images"]),
    "no such checkpoint": ([CNN, "--ckpt_path=nowhere.ckpt"], ["nowhere.ckpt", "no such checkpoint"]),
    "no data": (
        [CNN, "--data.mirrors=[]"],
        ["data.root", "no CIFAR-10 in data", "CIFAR10_ROOT", "--data.source synthetic"],
    ),
}


@pytest.mark.parametrize("name", INPUT_ERRORS)
def test_what_a_person_did_wrong_is_one_line(name: str, empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (empty_folder / "broken.yaml").write_text("model:\n  channels: [\n")
    (empty_folder / "list.yaml").write_text("- 1\n")
    (empty_folder / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    (empty_folder / "empty.yaml").write_text("model:\n  class_path: CNN\n  init_args:\n")
    (empty_folder / "typo.yaml").write_text("data:\n  batch_sise: 3\n")
    before = sorted(empty_folder.iterdir())
    args, words = INPUT_ERRORS[name]
    assert main(["fit", *args]) == 2
    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    assert line.startswith("error: ")
    assert [word for word in words if word not in line] == []
    assert output.out == ""
    assert [p for p in empty_folder.iterdir() if p.name not in ("data", *(b.name for b in before))] == []


@pytest.mark.parametrize("flags", [["--debug"], []])
def test_nothing_typed(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(flags) == 0
    assert "An MLP and a CNN on CIFAR-10. Commands:" in capsys.readouterr().out


def test_the_command_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([CNN, "fit"]) == 2
    assert capsys.readouterr().err.startswith("error: command: ")


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", CNN, "--model.dropout=1.5", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_no_such_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train"]) == 2
    assert "train: no such command; use one of fit, validate, test, predict" in capsys.readouterr().err


def test_alone_it_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(
        command in text for command in ("fit --config", "test --ckpt_path", "predict --ckpt_path", "tensorboard")
    )
    assert len(text.splitlines()) < 15


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_evaluation_wants_a_checkpoint(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command]) == 2
    assert f"{command} needs a checkpoint; give --ckpt_path" in capsys.readouterr().err


def test_a_file_that_is_no_checkpoint(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.ckpt").write_text("hello")
    torch.save({"state_dict": {}}, "other.ckpt")
    for name in ("text.ckpt", "other.ckpt"):
        assert main(["test", f"--ckpt_path={name}"]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: {name}: ")
        assert "not a checkpoint of this program" in said


def test_a_batch_of_one_is_refused_by_batch_norm_but_not_without(empty_folder: Path) -> None:
    few = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", *SMALL, "--data.batch_size=1"]
    assert main(["fit", "--model=MLP", "--model.batch_norm=false", *few]) == 0
    assert main(["fit", "--model=CNN", *few]) == 0


@pytest.mark.parametrize("flag", ["--trainer.logger=false", "--trainer.fast_dev_run=true"])
def test_what_keeps_nothing_writes_nothing(flag: str, empty_folder: Path) -> None:
    assert main(["fit", "--model=MLP", *SMALL, "--trainer.max_epochs=1", flag]) == 0
    assert list(empty_folder.iterdir()) == []


@pytest.mark.parametrize("switch", ["enable_progress_bar", "enable_checkpointing"])
def test_what_is_ours_can_be_switched_off(switch: str, empty_folder: Path) -> None:
    assert main(["fit", "--model=MLP", *SMALL, "--trainer.max_epochs=1", f"--trainer.{switch}=false"]) == 0
    kept = Path("logs/mlp-synthetic/version_0/checkpoints/best.ckpt").exists()
    assert kept is (switch != "enable_checkpointing")


def test_an_epoch_without_validation_shows_none(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--trainer.max_epochs=3", "--trainer.check_val_every_n_epoch=2"]
    assert main(["fit", "--model=MLP", *SMALL, *flags]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert ["val loss" in line for line in lines] == [False, True, False]
    rows = Path("logs/mlp-synthetic/version_0/metrics.csv").read_text().splitlines()[1:]
    assert [",,,,,," in row for row in rows] == [True, False, True]


def test_half_precision_trains(empty_folder: Path) -> None:
    for precision in ("bf16-mixed", "bf16-true"):
        assert main(["fit", "--model=MLP", *SMALL, "--trainer.max_epochs=1", f"--trainer.precision={precision}"]) == 0
    assert main(["validate", "--ckpt_path=logs/mlp-synthetic/version_0/checkpoints/best.ckpt"]) == 0


def test_flags_win_over_files_and_later_files_over_earlier(empty_folder: Path) -> None:
    Path("a.yaml").write_text("model: {class_path: MLP, init_args: {width: 8, dropout: 0.1}}\n")
    Path("b.yaml").write_text("model: {init_args: {width: 16}}\n")
    args = ["--config=a.yaml", "--config=b.yaml", "--model.depth=2", *SMALL, "--trainer.max_epochs=1"]
    assert main(["fit", *args]) == 0
    content = torch.load("logs/a-b-synthetic/version_0/checkpoints/last.ckpt", weights_only=True)
    settings = content["hyper_parameters"]
    assert (settings["width"], settings["dropout"], settings["depth"]) == (16, 0.1, 2)


def test_without_validation_nothing_is_best(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--model=MLP", "--name=all", *SMALL, "--data.val_size=0", "--trainer.max_epochs=1"]
    assert main(["fit", *args]) == 0
    folder = empty_folder / "logs/all-synthetic/version_0"
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["last.ckpt"]
    assert (folder / "metrics.csv").read_text().splitlines()[0] == "epoch,train/loss,train/acc,lr,epoch_seconds"
    assert f"test --ckpt_path {Path('logs/all-synthetic/version_0/checkpoints/last.ckpt')}" in capsys.readouterr().out


def test_a_log_file_gets_one_line_an_epoch(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--model=MLP", *SMALL, "--trainer.max_epochs=3"]) == 0
    output = capsys.readouterr()
    assert [line.split()[1] for line in output.out.splitlines() if line.startswith("epoch")] == ["1/3", "2/3", "3/3"]
    assert "\r" not in output.out + output.err
    assert output.err == ""


def test_the_stand_in_is_never_silent(mlp_run: Path, empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mlp_run.parent.name == "mlp-synthetic"
    assert "source: synthetic" in (mlp_run / "config.yaml").read_text()
    assert (
        main(["fit", "--model=MLP", *SMALL, "--data.source=auto", "--data.mirrors=[]", "--trainer.max_epochs=1"]) == 0
    )
    output = capsys.readouterr()
    lines = output.out.splitlines()
    first, last = next(i for i, line in enumerate(lines) if line.startswith("epoch")), len(lines)
    assert any("SYNTHETIC" in line for line in lines[:first])
    assert any("SYNTHETIC" in line for line in lines[first:last])
    assert "using the synthetic stand-in instead of CIFAR-10" in output.err
    assert [p.name for p in (empty_folder / "logs").iterdir()] == ["mlp-synthetic"]


def test_ctrl_c_ends_with_its_own_status(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(MLP, "on_train_batch_end", interrupt)
    assert main(["fit", "--model=MLP", *SMALL]) == 130
    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    assert line == "error: SIGINT: stopped at once; start it again"
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning leaves it ignored


@pytest.mark.parametrize(("raised", "status"), [(KeyboardInterrupt(), 130), (Interrupted(signal.SIGTERM), 143)])
def test_a_signal_inside_a_library_is_still_a_signal(
    raised: BaseException, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An extension module that is interrupted raises a SystemError because of it."""

    def interrupted(*_: object) -> None:
        raise SystemError("returned a result with an exception set") from raised

    monkeypatch.setattr(CLI, "before_instantiate_classes", interrupted)
    assert main(["fit", "--model=MLP", *SMALL]) == status
    assert capsys.readouterr().err.endswith(": stopped at once; start it again\n")


OWN = """
from lightning.pytorch import Callback
from torch import nn
from cifar_lightning.models import ImageClassifier

class Hello(Callback):
    def __init__(self, word: str = "hello"):
        self.word = word
    def on_fit_start(self, trainer, pl_module):
        print(self.word)

class Net(ImageClassifier):
    def __init__(self, *, width: int = 4, **optimization):
        super().__init__(**optimization)
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(3072, width), nn.Linear(width, 10))
"""


def test_own_classes_work_but_a_checkpoint_alone_imports_none(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("my_classes.py").write_text(OWN)
    monkeypatch.syspath_prepend(empty_folder)
    own = ["--model=my_classes.Net", "--model.width=5", "--trainer.callbacks+=my_classes.Hello"]
    assert main(["fit", *own, "--trainer.callbacks.word=moin", *SMALL, "--trainer.max_epochs=1"]) == 0
    assert "moin" in capsys.readouterr().out.splitlines()
    run = Path("logs/net-synthetic/version_0")
    best = f"--ckpt_path={run}/checkpoints/best.ckpt"
    monkeypatch.delitem(sys.modules, "my_classes")
    assert main(["test", best]) == 2
    assert "its model my_classes.Net is not of this project; name it with --model" in capsys.readouterr().err
    assert "my_classes" not in sys.modules
    assert main(["test", best, f"--config={run}/config.yaml"]) == 0
    assert main(["fit", f"--resume={run}", "--trainer.max_epochs=2"]) == 0


@pytest.mark.parametrize("command", ["fit", "test", "predict"])
def test_help_needs_nothing(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "--ckpt_path" in capsys.readouterr().out
