"""Commands as typed, and their output and exit status."""

import contextlib
import signal
import sys
from pathlib import Path

import pytest

from cifar_lightning.__main__ import main
from cifar_lightning.cli.app import guarded
from cifar_lightning.cli.dry_run import DryRun
from cifar_lightning.errors import Interrupted
from cifar_lightning.runs.checkpoint import load
from tests.conftest import CONFIGS, SMALL

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch
pytestmark = pytest.mark.usefixtures("empty_folder")

CNN = f"--config={CONFIGS / 'cnn.yaml'}"


@pytest.mark.parametrize("flags", [["--debug"], []])
def test_alone_it_names_the_commands(flags: list[str], capsys: Capture) -> None:
    assert main(flags) == 0
    text = capsys.readouterr().out
    assert text.startswith("An MLP and a CNN on CIFAR-10. Commands:")
    assert all(each in text for each in ("fit --config", "test --ckpt_path", "predict --ckpt_path", "tensorboard"))
    assert len(text.splitlines()) <= 15


def test_debug_shows_the_traceback(capsys: Capture) -> None:
    assert main(["fit", CNN, "--model.dropout=1.5", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def fit(*more: str, epochs: int = 1) -> int:
    """Train a small network, into the working directory."""
    return main(["fit", "--name=mlp", "--model=MLP", *SMALL, f"--trainer.max_epochs={epochs}", *more])


def test_a_log_file_gets_one_line_per_epoch(capsys: Capture) -> None:
    assert fit("--trainer.check_val_every_n_epoch=2", epochs=3) == 0
    output = capsys.readouterr()
    lines = [line for line in output.out.splitlines() if line.startswith("epoch")]
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
    assert "\r" not in output.out
    assert output.err == ""
    assert ["val loss" in line for line in lines] == [False, True, False]
    rows = Path("logs/mlp-synthetic/version_0/metrics.csv").read_text().splitlines()[1:]
    assert [",,,,,," in row for row in rows] == [True, False, True]


def test_without_validation_nothing_is_best_but_the_last_epoch_is_kept(capsys: Capture) -> None:
    assert fit("--name=all", "--data.val_size=0", epochs=2) == 0
    run = Path("logs/all-synthetic/version_0")
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["last.ckpt", "previous.ckpt"]
    assert load(run / "checkpoints/last.ckpt")["epoch"] == 1  # saved at the end of the second, not after the run
    assert (run / "metrics.csv").read_text().splitlines()[0] == "epoch,train/loss,train/acc,lr,epoch_seconds"
    assert f"test --ckpt_path {run / 'checkpoints/last.ckpt'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("", "mlp"),
        ("--config=configs/no_dropout.yaml --trainer.max_epochs=3", "mlp-no_dropout"),
        ("--model.dropout=0.5 --data.batch_size 100", "mlp"),  # what the file says
        ("--seed_everything 3 --model.dropout 0 --data.num_workers=0", "mlp-seed=3-dropout=0.0"),
        ("--model.init_args.width=8 --name ours", "ours"),
        ("--model CNN --model.dropout 0.1", "cnn-dropout=0.1"),  # what ran, not what the file is called
        ("--config=configs/cpu.yaml --model.class_path=CNN", "cnn-cpu"),
        ("--config=configs/cnn.yaml --config=configs/no_dropout.yaml", "mlp-cnn-no_dropout"),
    ],
)
def test_runs_are_named_by_what_differs(flags: str, name: str) -> None:
    Path("configs").symlink_to(CONFIGS)
    args = ["fit", "--config=configs/mlp.yaml", *flags.split(), "--data.source=synthetic"]
    assert DryRun(args).runs == Path(f"logs/{name}-synthetic")


def test_the_stand_in_is_never_silent(mlp_run: Path, capsys: Capture) -> None:
    assert mlp_run.parent.name == "mlp-synthetic"
    assert "source: synthetic" in (mlp_run / "config.yaml").read_text()
    assert fit("--data.source=auto", "--data.mirrors=[]") == 0
    output = capsys.readouterr()
    assert ["SYNTHETIC" in part for part in output.out.split("\nepoch")] == [True, True]  # before and after it
    assert "using the synthetic stand-in instead of CIFAR-10" in output.err
    assert [path.name for path in Path("logs").iterdir()] == ["mlp-synthetic"]


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("error", [ValueError("Invalid bounding box"), SystemExit()])
def test_a_signal_that_an_extension_module_drops_ends_the_command_all_the_same(
    error: BaseException, signum: signal.Signals, status: int, capsys: Capture
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may have it ignored

    def command(_: object) -> int:
        with contextlib.suppress(KeyboardInterrupt, Interrupted):
            signal.raise_signal(signum)
        raise error

    def fails(_: object) -> int:
        raise ValueError("of its own")

    assert guarded(command, []) == status
    signal.signal(signal.SIGINT, before)
    assert guarded(fails, []) == 1  # the next command is not to be taken for interrupted
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"{signum.name}: stopped at once; start it again",
        "error: ValueError: of its own; --debug shows where",
    ]


@pytest.mark.parametrize(("cause", "status"), [(KeyboardInterrupt(), 130), (Interrupted(signal.SIGTERM), 143)])
@pytest.mark.parametrize(
    ("during", "wrapped", "flag"),
    [
        ("models.MLP.on_train_batch_end", False, "--seed_everything=0"),
        ("cli.lightning_cli.CLI.instantiate_classes", True, "--seed_everything=0"),  # as extension modules do
        ("cli.error_messages.explain", False, "--seed_everything=-3"),
    ],
)
def test_a_signal_ends_with_its_own_status(
    during: str,
    wrapped: bool,
    flag: str,
    cause: BaseException,
    status: int,
    monkeypatch: Patch,
    capsys: Capture,
) -> None:
    def interrupted(*_: object) -> None:
        if wrapped:
            raise SystemError("returned a result with an exception set") from cause
        raise cause

    monkeypatch.setattr(f"cifar_lightning.{during}", interrupted)
    assert main(["fit", "--model=MLP", flag, *SMALL]) == status
    assert capsys.readouterr().err == f"{signal.Signals(status - 128).name}: stopped at once; start it again\n"
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning leaves it ignored


OWN = """
from torch import nn
from cifar_lightning.models import ImageClassifier

class Net(ImageClassifier):
    def __init__(self, *, width: int = 4, **optimization):
        super().__init__(**optimization)
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(3072, width), nn.Linear(width, 10))
"""


def test_an_own_model_works_but_a_checkpoint_alone_imports_none(monkeypatch: Patch, capsys: Capture) -> None:
    Path("my_models.py").write_text(OWN)
    monkeypatch.syspath_prepend(Path.cwd())
    assert main(["fit", "--name=net", "--model=my_models.Net", *SMALL, "--trainer.max_epochs=1"]) == 0
    run = Path("logs/net-synthetic/version_0")
    assert f"best.ckpt --config {run}/config.yaml" in capsys.readouterr().out
    monkeypatch.delitem(sys.modules, "my_models")
    assert main(["test", f"--ckpt_path={run}"]) == 2
    assert "its model my_models.Net is not of this project; name it with --model" in capsys.readouterr().err
    assert "my_models" not in sys.modules
    assert main(["test", f"--ckpt_path={run}", f"--config={run}/config.yaml"]) == 0
    assert main(["fit", f"--resume={run}", "--trainer.max_epochs=2"]) == 0
