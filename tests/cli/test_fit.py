"""`fit` called from Python: what it returns, what it raises, and one at a time."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import cifar_lightning
from cifar_lightning import InputError, Interrupted, Result, RunError
from cifar_lightning.__main__ import main
from cifar_lightning.cli import app
from cifar_lightning.runs import metrics_csv
from tests.conftest import SMALL, curves

pytestmark = pytest.mark.usefixtures("empty_folder")
ARGS = ["--name=mlp", "--model=MLP", "--model.width=4", *SMALL, "--trainer.max_epochs=2", "--trainer.accelerator=cpu"]


def fit(*more: str) -> Result:
    return cifar_lightning.fit([*ARGS, *more])


def test_it_returns_what_the_command_leaves() -> None:
    result = fit()
    assert (run := result.folder) is not None
    assert run == Path("logs/mlp-synthetic/version_0")
    assert result.rows == metrics_csv.read(run / "metrics.csv")
    assert result.best == run / "checkpoints/best.ckpt"
    assert main(["fit", *ARGS]) == 0
    assert curves(run) == curves(run.with_name("version_1"))
    assert cifar_lightning.fit(["--resume", str(run)]) == result  # all epochs are done
    assert len(cifar_lightning.fit(["--resume", str(run), "--trainer.max_epochs=3"]).rows) == 3


def test_it_returns_rows_where_nothing_is_kept() -> None:
    result = fit("--trainer.logger=false")
    assert (len(result.rows), result.best, result.folder) == (2, None, None)
    last = fit("--data.val_size=0").best
    assert last is not None
    assert last.name == "last.ckpt"


@pytest.mark.parametrize(
    ("flag", "kind", "field"),
    [
        ("--model.width=0", InputError, "model.width"),
        ("--model.bogus=1", InputError, "model.bogus"),
        ("--trainer.precision=99", InputError, "trainer.precision"),
        ("--model.lr=1e38", RunError, "train/loss"),
    ],
)
def test_it_raises_the_line_that_the_command_prints(
    flag: str, kind: type[InputError | RunError], field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(kind) as caught:
        fit(flag)
    assert caught.value.field == field
    capsys.readouterr()
    assert main(["fit", *ARGS, flag]) == kind.status
    assert capsys.readouterr().err == f"error: {caught.value}\n"


def test_a_signal_ends_more_than_this_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cifar_lightning.models.MLP.on_train_start", interrupted)
    with pytest.raises(Interrupted, match="SIGINT"):
        fit()


def in_a_thread() -> Result:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(fit).result()


def test_a_thread_may_fit_and_a_second_is_refused_while_the_first_keeps_its_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone, refused = in_a_thread(), []

    def beside(*_: object) -> None:
        with pytest.raises(InputError, match=r"^fit: another thread .*; .* a process of its own$") as caught:
            in_a_thread()
        refused.append(caught.value)

    monkeypatch.setattr("cifar_lightning.models.MLP.on_train_start", beside)
    result = fit()
    assert len(refused) == 1
    assert alone.folder is not None
    assert result.folder is not None
    assert curves(result.folder) == curves(alone.folder)


def test_importing_the_package_is_cheap() -> None:
    code = "import cifar_lightning, sys; sys.exit(bool({'torch', 'lightning', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(app.__file__).parents[2]).returncode == 0
