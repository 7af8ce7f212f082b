"""`benchmark` as a person types it, and its parts with stand-ins for what takes long."""

import contextlib
import errno
import io
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock, call

import pytest
import torch

from cifar_lightning.__main__ import main
from cifar_lightning.benchmark import command, timing, training_loops
from cifar_lightning.benchmark.command import Variant, compare
from cifar_lightning.benchmark.tables import MEANINGS, summarize
from cifar_lightning.cli import app
from cifar_lightning.errors import InputError, RunError
from cifar_lightning.utils.environment import hardware, software

FEW = ["--data.source=synthetic", "--data.train_size=500", "--data.val_size=200", "--data.train_clean_size=100"]
TINY = [*FEW, "--model=MLP", "--model.width=8", "--trainer.accelerator=cpu"]
EPOCH = {"seconds": 1.0, "steps": 1, "peak_mib": None, "peak_device_mib": None}
SETTING = {
    "model": "MLP",
    "parameters": 3072 * 8 + 8 + 2 * 8 + 8 * 10 + 10,
    "batch_size": 100,
    "train_images": 500,
    "source": "synthetic",
    "device": "cpu",
    "precision": "32-true",
    "threads": 1,
}
SUMMARY = summarize(SETTING, {name: [EPOCH] for name in MEANINGS})


@pytest.mark.slow
def test_a_whole_benchmark(
    empty_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    scratch = tmp_path_factory.mktemp("scratch")
    left_by_fit: list[str] = []

    def look(*args: Any) -> dict[str, Any]:
        """At what `fit` has written by the end of the last epoch, before the folder goes."""
        (run,) = scratch.glob("benchmark-*/run-synthetic/version_0")
        left_by_fit.extend(path.name.split(".tfevents")[0] for path in run.rglob("*") if path.is_file())
        assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["epoch"] == 1  # counted from 0
        return summarize(*args)

    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setattr(command, "summarize", look)
    given = [*TINY, "--rounds=2", "--output=b.json", "--trainer.precision=32-true"]
    assert main(["benchmark", *given]) == 0
    kept = ["best.ckpt", "config.yaml", "events.out", "last.ckpt", "metrics.csv", "previous.ckpt"]
    assert sorted(left_by_fit) == kept
    assert [path.name for path in empty_folder.rglob("*")] == ["b.json"]
    assert list(scratch.iterdir()) == []
    output = capfd.readouterr()
    assert output.out.startswith("\nMLP, batch 100, 5 steps per epoch, cpu (threads: ")
    assert output.out.endswith("|\n\nwritten to b.json\n")
    assert output.err == ""

    results = json.loads(Path("b.json").read_text())
    (model,) = results.pop("models")
    typed = f"python -m cifar_lightning benchmark {' '.join(given)}"
    assert results == {"command": typed, "hardware": hardware(), "software": software()}
    assert model["setting"] == {**SETTING, "threads": model["setting"]["threads"]}
    assert list(model["variants"]) == list(MEANINGS) == list(training_loops.VARIANTS)
    assert [variant["steps"] for variant in model["variants"].values()] == [5, 5, 5, training_loops.LIMIT_STEPS]
    for variant in model["variants"].values():
        assert [seconds > 0 for seconds in variant["seconds"]] == [True, True]
        assert variant["peak_device_mib"] is None


# What was typed, and words that the one line must hold.
OWN_ERRORS = {
    "no rounds": (["--rounds=0"], ["rounds", "0", "1 or more"]),
    "no such folder": (["--output=nowhere/b.json"], ["output", "nowhere/b.json", "a folder that exists"]),
    "a folder": (["--output=."], ["output", "a folder that exists"]),
    "a run to resume": (["--ckpt_path=last.ckpt"], ["ckpt_path", "--config"]),
    "wrong type": (["--rounds=x"], ["rounds", "x", "int"]),
    "value missing": (["--rounds"], ["rounds", "expected one argument"]),
}
# Settings that only `fit` can refuse, in a process of its own.
FIT_ERRORS = {
    "unknown flag": ([*TINY, "--bogus=3"], ["bogus", "no such setting"]),
    "impossible value": ([*TINY, "--model.dropout", "3"], ["model.dropout", "3", "0 to 1"]),
    "no such file": (["--config=nowhere.yaml"], ["nowhere.yaml", "no such file"]),
}


def check_one_line(error: str, words: Sequence[str]) -> None:
    (line,) = error.splitlines()
    assert line.startswith("error: ")
    assert [word for word in words if word not in line] == []


@pytest.mark.parametrize("name", OWN_ERRORS)
def test_wrong_options_are_refused_before_anything_runs(
    name: str, empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "compare", None)  # must not be called
    args, words = OWN_ERRORS[name]
    assert main(["benchmark", *TINY, *args]) == 2
    check_one_line(capfd.readouterr().err, words)
    assert list(empty_folder.iterdir()) == []


@pytest.mark.parametrize("name", FIT_ERRORS)
def test_what_fit_refuses_ends_a_variant_with_one_line(
    name: str, empty_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    args, words = FIT_ERRORS[name]
    assert app.guarded(training_loops.main, ["baseline", *args]) == 2
    check_one_line(capfd.readouterr().err, words)
    assert list(empty_folder.iterdir()) == []


def test_the_command_ends_as_its_first_variant(empty_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    args, words = FIT_ERRORS["impossible value"]
    with pytest.raises(SystemExit, match="2"):
        main(["benchmark", *args])
    output = capfd.readouterr()
    check_one_line(output.err, words)
    assert output.out == ""
    assert list(empty_folder.iterdir()) == []


def test_help_names_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["benchmark", "--help"])
    text = capsys.readouterr().out
    assert [flag for flag in ("--rounds", "--output", "--config") if flag not in text] == []


@pytest.mark.parametrize(
    ("flags", "compared"),
    [
        (FEW, [["--model=MLP", *FEW], ["--model=CNN", *FEW]]),
        (["--model", "MLP"], [["--model", "MLP"]]),
        (["-c", "a.yaml"], [["-c", "a.yaml"]]),
        (["--config=a.yaml", *FEW], [["--config=a.yaml", *FEW]]),
    ],
)
def test_both_models_unless_one_is_named(
    flags: list[str], compared: list[list[str]], empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = Mock(return_value=SUMMARY)
    monkeypatch.setattr(command, "compare", compare)
    assert main(["benchmark", "--rounds=7", *flags]) == 0
    assert compare.call_args_list == [call(each, 7) for each in compared]
    assert json.loads(Path("benchmark.json").read_text())["models"] == [SUMMARY] * len(compared)


@pytest.mark.parametrize("finished", [0, 1])
def test_ctrl_c_keeps_what_was_finished(
    finished: int, empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "compare", Mock(side_effect=[*[SUMMARY] * finished, KeyboardInterrupt]))
    assert main(["benchmark"]) == 130
    check_one_line(capsys.readouterr().err, ["benchmark.json" if finished else "nothing is written", "--rounds 1"])
    assert [json.loads(path.read_text())["models"] for path in empty_folder.iterdir()] == [[SUMMARY]] * finished


def test_a_full_disk_leaves_the_old_file(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty_folder / "b.json").write_text("old")
    monkeypatch.setattr(command, "compare", Mock(return_value=SUMMARY))
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    assert main(["benchmark", "--output=b.json"]) == 1
    check_one_line(capsys.readouterr().err, ["b.json", "No space left"])
    assert [path.read_text() for path in empty_folder.iterdir()] == ["old"]


def test_the_variants_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    given: list[list[str]] = []

    @contextlib.contextmanager
    def stand_in(name: str, flags: list[str]) -> Any:
        def answer() -> dict[str, Any]:
            events.append(name)
            if len(events) <= 8:
                return SETTING if name == "bare loop" else {}
            return {**EPOCH, "seconds": float(len(events))}

        events.append(f"start {name}")
        given.append(flags)
        yield Mock(answer=answer)
        events.append(f"end {name}")

    monkeypatch.setattr(command, "Variant", stand_in)
    result = compare(["--model=MLP"], 3)
    # Each is ready before the next starts.
    starts = [event for name in MEANINGS for event in (f"start {name}", name)]
    assert events == [*starts, *MEANINGS, *MEANINGS, *MEANINGS, *(f"end {name}" for name in reversed(MEANINGS))]
    assert result["variants"]["fit"]["seconds"] == [10.0, 14.0, 18.0]
    assert result["setting"] == SETTING
    assert all(flags == given[0] for flags in given)
    # One epoch more than rounds: its start is the end of the last.
    assert given[0][0] == "--model=MLP"
    assert given[0][2:] == ["--name=run", "--trainer.max_epochs=4"]


def program(monkeypatch: pytest.MonkeyPatch, code: str) -> Variant:
    """A variant that runs some Python."""
    monkeypatch.setattr(command, "PROGRAM", [sys.executable, "-c", f"import os, sys, time; {code}"])
    return Variant("fit", [])


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
@pytest.mark.parametrize(
    ("code", "error", "cause"),
    [
        ("os.kill(os.getpid(), 9)", RunError, "fit: ended by signal 9, .*--data.batch_size"),
        ("pass", InputError, "trainer: .*leave out fast_dev_run"),
        ("sys.exit(3)", SystemExit, "3"),
    ],
)
def test_a_variant_that_ends_too_early_tells_why(
    code: str, error: type[BaseException], cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with program(monkeypatch, code) as variant:
        variant.wait()  # nobody reads the line that asks
        with pytest.raises(error, match=cause):
            variant.answer()


@pytest.mark.skipif(sys.platform == "win32", reason="has no sessions")
def test_ctrl_c_is_for_the_benchmark_which_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    variant = program(monkeypatch, "input(); print(os.getsid(0), flush=True); time.sleep(600)")
    with contextlib.suppress(KeyboardInterrupt), variant:
        assert variant.answer() == variant.pid  # a session of its own: a terminal signals one
        raise KeyboardInterrupt
    assert variant.poll() == -signal.SIGKILL


def test_an_epoch_lasts_from_a_line_to_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n\n\n"))
    monkeypatch.setattr(timing, "STDOUT", output)
    epochs = timing.timed_epochs(torch.device("cpu"), 7, {"model": "MLP"})
    next(epochs)
    assert json.loads(output.getvalue()) == {"model": "MLP"}  # ready, and nothing timed yet
    next(epochs)
    epoch = json.loads(output.getvalue().splitlines()[1])
    assert epoch.pop("seconds") > 0
    assert epoch == {"steps": 7, "peak_mib": timing.peak_mib(), "peak_device_mib": None}
    with pytest.raises(SystemExit, match="0"):  # with the last line the process ends
        next(epochs)


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells")
def test_the_peak_lies_between_what_is_held_and_what_linux_counts() -> None:
    import resource  # Windows has none

    held = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    peak = timing.peak_mib()
    assert peak is not None
    # Linux keeps these counters for each core and sums them up when it likes.
    assert 0.95 * held < peak < 1.05 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
