"""`benchmark` as a person types it, and its parts with stand-ins for what takes long."""

import errno
import json
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from cifar_lightning.__main__ import main
from cifar_lightning.benchmark import command, startup
from cifar_lightning.benchmark.command import ORDER, Way, compare, save
from cifar_lightning.benchmark.stopped import StoppedError
from cifar_lightning.benchmark.table import summary
from cifar_lightning.benchmark.timing import Pace, Turn, peak_bytes
from cifar_lightning.benchmark.training_loops import LIMIT_STEPS
from cifar_lightning.errors import InputError
from cifar_lightning.utils.environment import processor
from tests.conftest import Fit

FEW = ["--data.source=synthetic", "--data.train_size=500", "--data.val_size=200", "--data.train_clean_size=100"]
TINY = [*FEW, "--model=MLP", "--model.width=8", "--trainer.accelerator=cpu"]


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_whole_benchmark(
    empty_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    scratch = tmp_path_factory.mktemp("scratch")
    left_by_fit: list[str] = []
    epochs: list[int] = []

    def look(setting: dict[str, Any], turns: dict[str, list[Any]]) -> dict[str, Any]:
        """What `fit` has written by the end of the last turn, before the folder goes."""
        (run,) = scratch.glob("benchmark-*/run-synthetic/version_0")
        left_by_fit.extend(files_below(run))
        epochs.append(torch.load(run / "checkpoints/last.ckpt", weights_only=True)["epoch"])
        assert len(multiprocessing.active_children()) == 4
        return summary(setting, turns)

    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setattr(command, "summary", look)
    assert main(["benchmark", *TINY, "--rounds=2", "--starts=0", "--output=b.json"]) == 0
    assert multiprocessing.active_children() == []
    assert files_below(empty_folder) == ["b.json"]
    assert list(scratch.iterdir()) == []
    check_results(json.loads(Path("b.json").read_text()))

    events, *others = sorted(left_by_fit, key=lambda name: "events.out.tfevents" not in name)
    assert "events.out.tfevents" in events
    kept = [f"checkpoints/{name}.ckpt" for name in ("best", "last", "previous")]
    assert others == [*kept, "config.yaml", "metrics.csv"]
    assert epochs == [1]  # the second, counted from 0

    output = capfd.readouterr()
    assert "MLP, batch 100, 5 steps an epoch, cpu (threads: " in output.out
    assert output.out.endswith("written to b.json\n")
    assert output.err == ""


def check_results(results: dict[str, Any]) -> None:
    assert list(results) == ["command", "hardware", "software", "models"]
    words = [*TINY, "--rounds=2", "--starts=0", "--output=b.json"]
    assert results["command"] == f"python -m cifar_lightning benchmark {' '.join(words)}"
    assert results["hardware"]["processor"] == processor()
    assert results["hardware"]["cores"] >= 1
    assert list(results["software"]) == ["python", "torch", "torchvision", "lightning", "torchmetrics"]
    assert torch.__version__.startswith(results["software"]["torch"])
    (model,) = results["models"]
    assert model["setting"].pop("threads") >= 1
    assert model["setting"].pop("precision") in ("32-true", "bf16-mixed")
    assert model["setting"] == {
        "model": "MLP",
        "parameters": 3072 * 8 + 8 + 2 * 8 + 8 * 10 + 10,
        "batch_size": 100,
        "train_images": 500,
        "source": "synthetic",
        "device": "cpu",
    }
    assert list(model["ways"]) == list(ORDER)
    for way, figures in model["ways"].items():
        assert figures["steps"] == (LIMIT_STEPS if way == "limit" else 5)
        assert len(figures["seconds"]) == 2
        assert min(figures["seconds"]) > 0
        assert figures["peak_device_mib"] is None
    assert list(model["ratios"]) == ["plain/ours", "ours/loop", "ours/limit"]


# What was typed, and words that the one line must hold.
INPUT_ERRORS = {
    "no rounds": (["--rounds=0"], ["rounds", "0", "1 or more"]),
    "fewer than no starts": (["--starts=-1"], ["starts", "-1", "0 or more"]),
    "no such folder": (["--output=nowhere/b.json"], ["output", "nowhere/b.json", "a folder that exists"]),
    "a folder": (["--output=."], ["output", "a folder that exists"]),
    "a run that goes on": (["--ckpt_path=last.ckpt"], ["ckpt_path", "--config"]),
    "wrong type": (["--rounds=x"], ["rounds", "x", "a whole number"]),
    "value missing": (["--rounds"], ["rounds", "give a value"]),
}


def check_one_line(error: str, words: Sequence[str]) -> None:
    (line,) = error.splitlines()
    assert line.startswith("error: ")
    assert [word for word in words if word not in line] == []


@pytest.mark.parametrize("name", INPUT_ERRORS)
def test_what_a_person_did_wrong_is_one_line(
    name: str, empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "compare", None)  # which nobody may come to call
    args, words = INPUT_ERRORS[name]
    assert main(["benchmark", *TINY, *args]) == 2
    check_one_line(capfd.readouterr().err, words)
    assert list(empty_folder.iterdir()) == []


# Settings that only `fit` can refuse, in a process of its own.
FIT_ERRORS = {
    "unknown flag": ([*TINY, "--bogus=3"], ["bogus", "no such setting"]),
    "impossible value": ([*TINY, "--model.dropout", "3"], ["model.dropout", "3", "0 to 1"]),
    "no such file": (["--config=nowhere.yaml"], ["nowhere.yaml", "no such file"]),
}


@pytest.mark.parametrize("name", FIT_ERRORS)
def test_what_fit_refuses_ends_a_way_with_one_line(
    name: str, empty_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    args, words = FIT_ERRORS[name]
    with pytest.raises(SystemExit) as stop:
        command._start("loop", cast(Any, None), args)
    assert stop.value.code == 2
    check_one_line(capfd.readouterr().err, words)
    assert list(empty_folder.iterdir()) == []


def test_what_a_way_ends_with_the_command_ends_with(empty_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    args, words = FIT_ERRORS["impossible value"]
    assert main(["benchmark", *args]) == 2
    output = capfd.readouterr()
    check_one_line(output.err, words)
    assert output.out == ""
    assert list(empty_folder.iterdir()) == []
    assert multiprocessing.active_children() == []


def test_help_names_the_flags(empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["benchmark", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert [flag for flag in ("--rounds", "--starts", "--output", "--config") if flag not in text] == []


@pytest.mark.parametrize(("raised", "status"), [(KeyboardInterrupt(), 130), (StoppedError(3), 3)])
def test_what_ends_early_writes_nothing(
    raised: BaseException,
    status: int,
    empty_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(*_: object) -> None:
        raise raised

    monkeypatch.setattr(command, "compare", stop)
    assert main(["benchmark", *TINY]) == status
    assert list(empty_folder.iterdir()) == []
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("error: interrupted: nothing is written") for line in lines] == [True] * (status == 130)


def empty_result(name: str) -> dict[str, Any]:
    setting = {"model": name, "batch_size": 1, "train_images": 1, "device": "cpu", "threads": 1, "precision": "32-true"}
    return summary({**setting, "source": "synthetic"}, {way: [Turn(1.0, 1, None, None)] for way in ORDER})


@pytest.mark.parametrize(
    ("flags", "compared", "started"),
    [
        (FEW, [["--model=MLP", *FEW], ["--model=CNN", *FEW]], ["--model=CNN", *FEW]),
        (["--model", "MLP"], [["--model", "MLP"]], ["--model", "MLP"]),
        (["-c", "a.yaml"], [["-c", "a.yaml"]], ["-c", "a.yaml"]),
        (["--config=a.yaml", *FEW], [["--config=a.yaml", *FEW]], ["--config=a.yaml", *FEW]),
    ],
)
def test_both_models_unless_one_is_named(
    flags: list[str],
    compared: list[list[str]],
    started: list[str],
    empty_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[Any] = []

    def note(flags: list[str], rounds: int) -> dict[str, Any]:
        calls.append((flags, rounds))
        return empty_result(flags[0])

    def note_start(flags: list[str], times: int) -> dict[str, Any]:
        calls.append((flags, times))
        return {"import lightning": {"median": 1.0, "seconds": [1.0]}}

    monkeypatch.setattr(command, "compare", note)
    monkeypatch.setattr(command, "startup", note_start)
    assert main(["benchmark", "--rounds=7", *flags, "--starts=2"]) == 0
    assert calls == [*((each, 7) for each in compared), (started, 2)]
    results = json.loads(Path("benchmark.json").read_text())
    assert [model["setting"]["model"] for model in results["models"]] == [each[0] for each in compared]
    assert results["startup"]["import lightning"]["median"] == 1.0


def test_the_ways_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    given: list[list[str]] = []

    class Fake:
        def __init__(self, name: str, flags: list[str]) -> None:
            self.name = name
            events.append(f"start {name}")
            given.append(flags)

        def __enter__(self) -> "Fake":
            return self

        def __exit__(self, *_: object) -> None:
            events.append(f"end {self.name}")

        def answer(self) -> dict[str, Any]:
            events.append(f"hear {self.name}")
            setting: dict[str, Any] = empty_result("MLP")["setting"]
            return setting

        def turn(self) -> Turn:
            events.append(self.name)
            return Turn(float(len(events)), 1, None, None)

    monkeypatch.setattr(command, "Way", Fake)
    result = compare(["--model=MLP"], 3)
    starts = ["start loop", "hear loop", "start plain", "start ours", "start limit"]
    ends = ["end limit", "end ours", "end plain", "end loop"]
    assert events == [*starts, *ORDER, *ORDER, *ORDER, *ends]
    assert result["ways"]["ours"]["seconds"] == [7.0, 11.0, 15.0]
    assert all(flags == given[0] for flags in given)
    # One epoch more than turns: with its start the last turn ends.
    assert given[0][0] == "--model=MLP"
    assert given[0][2:] == ["--name=run", "--trainer.max_epochs=4"]


def dies(name: str, connection: Connection, flags: list[str]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
def test_a_way_that_dies_is_one_line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "_start", dies)
    with Way("ours", []) as way:
        way.process.join()
        with pytest.raises(StoppedError) as stop:
            way.turn()
    assert stop.value.args == (1,)
    check_one_line(capfd.readouterr().err, ["ours", "signal 9", "--data.batch_size"])


def waits(name: str, connection: Connection, flags: list[str]) -> None:
    connection.send(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)
    connection.recv()


def test_a_way_leaves_ctrl_c_to_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_start", waits)
    before = signal.getsignal(signal.SIGINT)
    with Way("ours", []) as way:
        assert way.answer() is True
        assert signal.getsignal(signal.SIGINT) == before


def test_a_file_that_was_there_stays_until_the_new_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "b.json"
    save({"run": 1}, output)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(InputError, match="No space left"):
            save({"run": 2}, output)
    assert json.loads(output.read_text()) == {"run": 1}
    assert list(tmp_path.iterdir()) == [output]


def speaks(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_time_until_the_first_step() -> None:
    # It never ends by itself: the first step is enough.
    code = "import threading; print('noise'); print('step', flush=True); threading.Event().wait()"
    assert startup.until_first_step(speaks(code)) > 0


@pytest.mark.parametrize(("code", "status"), [("print('one step'); raise SystemExit(3)", 3), ("print('steps')", 1)])
def test_no_step_is_no_time(code: str, status: int) -> None:
    with pytest.raises(StoppedError) as stop:
        startup.until_first_step(speaks(code))
    assert stop.value.args == (status,)


def test_time_until_done(capfd: pytest.CaptureFixture[str]) -> None:
    assert startup.until_done(speaks("print('noise')")) > 0
    assert capfd.readouterr().out == ""
    with pytest.raises(StoppedError) as stop:
        startup.until_done(speaks("raise SystemExit(3)"))
    assert stop.value.args == (3,)


def test_starts_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def note(command: list[str]) -> float:
        commands.append(command)
        return float(len(commands))

    monkeypatch.setattr(startup, "until_done", note)
    monkeypatch.setattr(startup, "until_first_step", lambda command: 100 + note(command))
    assert startup.startup(["--model=MLP"], 3) == {
        "import lightning": {"median": 5.0, "seconds": [1.0, 5.0, 9.0]},
        "--help": {"median": 6.0, "seconds": [2.0, 6.0, 10.0]},
        "fit --help": {"median": 7.0, "seconds": [3.0, 7.0, 11.0]},
        "fit, first step done": {"median": 108.0, "seconds": [104.0, 108.0, 112.0]},
    }
    program = [sys.executable, "-m", "cifar_lightning"]
    assert commands[1:3] == [[*program, "--help"], [*program, "fit", "--help"]]
    assert commands[3][:5] == [*program, "fit", "--model=MLP"]


def test_a_fit_says_its_steps(fit: Fit, empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    callback = "--trainer.callbacks+=cifar_lightning.benchmark.timing.FirstStep"
    fit(empty_folder, [*TINY, "--trainer.max_epochs=1", callback])
    assert [line.strip() for line in capsys.readouterr().out.splitlines()].count("step") == 5


def test_a_turn_lasts_from_a_message_to_the_next_call() -> None:
    ours, theirs = multiprocessing.Pipe()
    turns = Pace(theirs, torch.device("cpu")).turns(7)
    ours.send("go")
    next(turns)
    assert not ours.poll()
    ours.send("go")
    next(turns)
    turn = ours.recv()
    assert turn.seconds > 0
    assert (turn.steps, turn.peak_device_bytes) == (7, None)
    assert not ours.poll()


def test_the_last_turn_ends_the_process() -> None:
    ours, theirs = multiprocessing.Pipe()
    ours.close()
    with pytest.raises(SystemExit) as stop:
        next(Pace(theirs, torch.device("cpu")).turns(1))
    assert stop.value.code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells")
def test_the_peak_lies_between_what_is_held_and_what_linux_counts() -> None:
    import resource  # Windows has none

    held = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    peak = peak_bytes()
    assert peak is not None
    # Linux keeps these counters for each core and sums them up when it likes.
    assert 0.95 * held < peak < 1.05 * 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


AMD = """\
processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 9R14: 96-Core
flags\t\t: fpu avx2 avx512_bf16 sse avx512f avx512_bf16x
bugs\t\t:

processor\t: 1
model name\t: another
flags\t\t: fpu
"""


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        (AMD, "AMD EPYC 9R14: 96-Core (avx2, avx512f, avx512_bf16)"),
        ("model name\t: Xeon\nflags\t\t: fpu amx_bf16 avx2\n", "Xeon (avx2, amx_bf16)"),
        ("model name\t: Xeon\nflags\t\t: fpu sse\n", "Xeon"),
        ("model name\t: Xeon\n", "Xeon"),
        ("processor\t: 0\nFeatures\t: fp asimd\n", "of the platform"),
        ("", "of the platform"),
        (None, "of the platform"),
    ],
)
def test_the_processors_name(cpuinfo: str | None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.processor", lambda: "of the platform")
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert processor(tmp_path / "cpuinfo") == name
