"""`benchmark` as a person types it, and its parts with stand-ins for what takes long."""

import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock, call

import pytest
import torch

from cifar_lightning.__main__ import main
from cifar_lightning.benchmark import command, training_loops
from cifar_lightning.benchmark.command import MEANINGS, busy_programs, compare, summarize, table
from cifar_lightning.errors import InputError, RunError
from cifar_lightning.utils.environment import hardware, software
from tests.benchmark.test_training_loops import FEW
from tests.conftest import CONFIGS

MLP_YAML = str(CONFIGS / "mlp.yaml")
TINY = [*FEW, "--model=MLP", "--model.width=8"]
DATA = {"batch_size": 100, "train_images": 500, "source": "synthetic"}
NETWORK = {"model": "MLP", "parameters": 3072 * 8 + 8 + 2 * 8 + 8 * 10 + 10, "precision": "32-true"}
SETTING = {**NETWORK, **DATA, "device": "cpu", "threads": 2}
# Powers of two: no quotient of these is rounded.
SECONDS = {
    "baseline": [8.0, 4.0, 16.0],
    "fit": [1.0, 2.0, 4.0],
    "bare loop": [0.5, 0.5, 1.0],
    "limit": [0.25, 1.0, 0.5],
}
TABLE = """\
MLP, batch 50, 20 steps per epoch, cpu (threads: 2), 32-true, synthetic, median and range of 3

|               |  ms/step |             range | images/s |     peak MiB |                                        |
| ------------- | -------: | ----------------: | -------: | -----------: | -------------------------------------- |
| baseline      |    400.0 |     200.0 - 800.0 |      124 |          300 | the loop people write                  |
| fit           |    100.0 |      50.0 - 200.0 |      495 |          300 | everything included                    |
| bare loop     |     25.0 |       25.0 - 50.0 |    1,980 |          300 | without the Trainer                    |
| limit         |     12.5 |        6.2 - 25.0 |    4,000 |          300 | convolutions and matrix products alone |
| baseline/fit  |     4.00 |       2.00 - 8.00 |          |              |                                        |
| fit/bare loop |     4.00 |       2.00 - 4.00 |          |              |                                        |
| fit/limit     |     8.00 |      4.00 - 16.00 |          |              |                                        |"""


def summary(peak_mib: int | None = 100, device_mib: int | None = None) -> Any:
    """Of epochs as they come, 20 steps of 990 images: each tells the peak so far, which grows as much in each."""
    epochs: dict[str, list[Any]] = {name: [] for name in SECONDS}
    for name, values in SECONDS.items():
        for number, value in enumerate(values, 1):
            peaks = {"peak_mib": peak_mib and peak_mib * number, "peak_device_mib": device_mib}
            epochs[name].append({"seconds": value, "steps": 40 if name == "limit" else 20, **peaks})
    return summarize(SETTING | {"batch_size": 50, "train_images": 990}, epochs)


@pytest.mark.parametrize(
    ("peak_mib", "device_mib", "head", "shown"),
    [
        (100, None, "peak MiB", "300"),
        (100, 2048, "peak GPU MiB", "2,048"),  # the device's, if it has some
        (None, None, "peak MiB", ""),  # a system that does not tell
    ],
)
def test_medians_ranges_and_ratios_by_pair(peak_mib: int | None, device_mib: int | None, head: str, shown: str) -> None:
    # Of images there are 990, not 20 batches of 50; the limit has only full batches. A ratio is of a step to a step in
    # the same round (fit/limit: 50/6.25, 100/25, 200/12.5 ms): a machine that slows down leaves it as it is.
    result = summary(peak_mib, device_mib)
    assert table(result) == TABLE.replace("    peak MiB", f"{head:>12}").replace("         300", f"{shown:>12}")
    assert result["variants"]["fit"] == {
        "ms_per_step": {"median": 100.0, "range": [50.0, 200.0]},  # 2 s for 20 steps
        "images_per_second": 495.0,
        "peak_mib": peak_mib and 300,  # of the last epoch
        "peak_device_mib": device_mib,
        "steps": 20,
        "seconds": [1.0, 2.0, 4.0],
    }


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
    assert (
        " ".join(sorted(set(left_by_fit)))
        == ".lock best.ckpt config.yaml events.out last.ckpt metrics.csv previous.ckpt"
    )
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
    assert [variant["steps"] for variant in model["variants"].values()] == [5, 5, 5, training_loops.LIMIT_STEPS]
    assert [[s > 0 for s in each["seconds"]] for each in model["variants"].values()] == [[True, True]] * 4


def check_one_line(error: str, *words: str) -> None:
    (line,) = error.splitlines()
    assert line.startswith(("error: ", "SIGINT: "))
    assert [word for word in words if word not in line] == []


def test_what_only_shows_in_a_variant_ends_the_command_with_its_line(
    empty_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model=MLP", "--data.source=cifar10", "--data.root=none", "--data.mirrors=[]"]
    with pytest.raises(SystemExit, match="2"):
        main(["benchmark", *flags])
    output = capfd.readouterr()
    check_one_line(output.err, "data.root", "no CIFAR-10 in none")
    assert output.out == ""
    assert list(empty_folder.iterdir()) == []


def test_several_processes_are_refused(empty_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--model=MLP", *FEW, "--trainer.accelerator=cpu", "--trainer.devices=2"]) == 2
    check_one_line(capfd.readouterr().err, "trainer.devices: 2 is not possible")


@pytest.mark.parametrize(
    ("flags", "compared"),
    [
        (FEW, [["--model=MLP", *FEW], ["--model=CNN", *FEW]]),
        *((flags, [flags]) for flags in (["--model", "MLP", *FEW], ["-c", MLP_YAML, *FEW], [f"--config={MLP_YAML}"])),
    ],
)
def test_both_models_unless_one_is_named(
    flags: list[str], compared: list[list[str]], empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = Mock(return_value=[summary()])
    monkeypatch.setattr(command, "compare", compare)
    assert main(["benchmark", "--rounds=7", *flags]) == 0
    assert compare.call_args_list == [call(each, 7, 0) for each in compared]
    assert json.loads(Path("benchmark.json").read_text())["models"] == [summary()] * len(compared)


@pytest.mark.parametrize("finished", [[], [summary()]])
def test_ctrl_c_keeps_what_was_finished(
    finished: list[Any], empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "compare", Mock(side_effect=[*([each] for each in finished), KeyboardInterrupt]))
    assert main(["benchmark", *FEW]) == 130
    check_one_line(capsys.readouterr().err, "benchmark.json" if finished else "nothing is written", "--rounds 1")
    assert [json.loads(path.read_text())["models"] for path in empty_folder.iterdir()] == [finished] * len(finished)


# A variant that tells the log what it does, and in its answers itself, its session and its flags.
VARIANT = """
import json, os, sys
log = lambda what: print(what, sys.argv[1], file=open('log', 'a'))
log('start')
for line in sys.stdin: log('turn'); print(json.dumps([os.getpid(), os.getsid(0), sys.argv[2:]]), flush=True)
"""


def test_the_variants_take_turns_and_end_with_the_benchmark(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summarize = Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr(command, "PROGRAM", [sys.executable, "-c", VARIANT])
    monkeypatch.setattr(command, "summarize", summarize)
    with pytest.raises(KeyboardInterrupt):
        compare(["--model=MLP"], 3)
    turns = [f"turn {name}" for name in MEANINGS]
    # Each is ready before the next starts.
    starts = [event for name in MEANINGS for event in (f"start {name}", f"turn {name}")]
    assert Path("log").read_text().splitlines() == [*starts, *turns * 3]
    setting, epochs, busy = summarize.call_args.args
    assert busy == 0
    assert epochs == {name: [epochs[name][0]] * 3 for name in MEANINGS}
    assert setting == epochs["bare loop"][0]
    for pid, session, (model, _, *others) in (sent[0] for sent in epochs.values()):
        # One epoch more than rounds: its start is the end of the last.
        assert [model, *others] == ["--model=MLP", "--name=run", "--trainer.max_epochs=4"]
        assert session == pid  # a session of its own: a terminal signals one
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_each_round_is_quiet_and_then_busy(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def busy_programs(number: int) -> Iterator[None]:
        with Path("log").open("a") as log:
            print("beside", number, file=log)
        yield

    monkeypatch.setattr(command, "PROGRAM", [sys.executable, "-c", VARIANT])
    monkeypatch.setattr(command, "summarize", lambda setting, epochs, busy: (busy, epochs["fit"][0][2][-1]))
    monkeypatch.setattr(command, "busy_programs", busy_programs)
    found: list[Any] = compare(["--model=MLP"], 2, busy=3)
    assert found == [(load, "--trainer.max_epochs=5") for load in (0, 3)]
    turns = [f"turn {name}" for name in MEANINGS]
    assert Path("log").read_text().splitlines()[2 * len(MEANINGS) :] == ["beside 0", *turns, "beside 3", *turns] * 2


CHILDREN = Path(f"/proc/self/task/{threading.get_native_id()}/children")


@pytest.mark.skipif(not CHILDREN.is_file(), reason="the system keeps no such list")
def test_busy_programs_compute_until_the_end() -> None:
    before = {*CHILDREN.read_text().split()}
    with busy_programs(2):
        busy = {*CHILDREN.read_text().split()} - before
        started = {pid: ticks(pid) for pid in busy}
        while not all(ticks(pid) > started[pid] + 5 for pid in busy):
            time.sleep(0.05)
    assert len(busy) == 2
    assert {*CHILDREN.read_text().split()} == before


def ticks(pid: str) -> int:
    """Processor time of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
@pytest.mark.parametrize(
    ("code", "error", "cause"),
    [
        ("os.kill(os.getpid(), 9)", RunError, "baseline: ended by signal 9, .*--data.batch_size"),
        ("pass", InputError, "trainer: .*leave out fast_dev_run"),
        ("sys.exit(3)", SystemExit, "3"),
    ],
)
def test_a_variant_that_ends_too_early_tells_why(
    code: str, error: type[BaseException], cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "PROGRAM", [sys.executable, "-c", f"import os, sys; {code}"])
    with pytest.raises(error, match=cause):
        compare([], 1)
