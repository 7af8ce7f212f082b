"""The table of faults: whatever goes wrong is one line and a status, and nothing that was there is touched."""

import json
import pickle
import re
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch

from cifar_lightning.__main__ import main
from cifar_lightning.runs.checkpoint import read_checkpoint
from tests.faults import checkpoint_faults, data_faults, machine_faults, processes, settings_faults
from tests.faults.table import BEST, FIT, RUN, Fault, Place, Table, snapshot

TABLE: Table = settings_faults.TABLE | checkpoint_faults.TABLE | data_faults.TABLE | machine_faults.TABLE
FAULTS = [fault for faults in TABLE.values() for fault in faults]

LINE = re.compile(r"error: (?P<field>.+?): (?P<cause>.+); (?P<remedy>.+)")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run. To copy from."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("CIFAR10_ROOT", raising=False)
        assert main(FIT.split()) == 0
        # So that the last checkpoint alone is of its epoch.
        assert read_checkpoint(Path(BEST)).epochs == 1
    return folder


@pytest.fixture
def place(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    folder, canary = tmp_path / "work", tmp_path / "canary"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("CIFAR10_ROOT", raising=False)
    with ExitStack() as stack:
        yield Place(folder, finished / RUN, canary, monkeypatch, stack, {"CANARY": str(canary)})


ROWS = [pytest.param(fault, id=fault.name, marks=[] if fault.typical else [pytest.mark.slow]) for fault in FAULTS]


@pytest.mark.parametrize("fault", ROWS)
def test_a_fault_is_one_line_and_changes_nothing(
    fault: Fault, place: Place, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault.make(place)
    before = snapshot(place.folder)
    args = _split(fault.command, place.words)
    capfd.readouterr()
    if fault.child:
        status, output = processes.start(place.folder, args, fault.child).run()
    else:
        with _no_longer_than(20):
            status = main(args)
        captured = capfd.readouterr()
        output = captured.err + captured.out
    assert "Traceback" not in output
    assert status == fault.status, output
    check_output(fault, output)
    after = snapshot(place.folder)
    touched = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert sorted(name for name in touched if not fault.allows(name)) == [], output
    monkeypatch.undo()
    monkeypatch.chdir(place.folder)
    fault.then(place)
    assert not place.canary.exists(), output


def check_output(fault: Fault, output: str) -> None:
    """Assert that there are as many error lines as there must be, in their form, and that they tell what they must."""
    lines = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(lines) == fault.error_lines, output
    for line in lines:
        assert len(line) < 2000, line[:200]
        parts = LINE.fullmatch(line)
        assert parts, line
        # The name of an exception is neither a file nor a setting.
        assert not re.fullmatch(r"\w*(Error|Exception|Warning|Interrupt)", parts["field"]), line
    told = "\n".join(lines) if lines else output
    assert [word for word in fault.says if word not in told] == [], output


class HangsError(BaseException):
    """No Exception: the command would take it for one of its own."""


@contextmanager
def _no_longer_than(seconds: int) -> Iterator[None]:
    """End a command that hangs, so that the other rows are still tried."""

    def end(signum: int, frame: object) -> None:
        raise HangsError(f"still at work after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _split(command: str, words: dict[str, str]) -> list[str]:
    """Split a command at its blanks; an argument that holds one is written as a JSON text."""
    found = [json.loads(arg) if arg.startswith('"') else arg for arg in re.findall(r'"(?:\\.|[^"])*"|\S+', command)]
    for name, value in words.items():
        found = [arg.replace(name, value) for arg in found]
    return found


def test_the_table_is_large_and_each_row_has_its_name() -> None:
    assert len(FAULTS) >= 350
    assert [name for name, count in Counter(fault.name for fault in FAULTS).items() if count > 1] == []


def test_one_or_two_rows_of_each_kind_run_by_default() -> None:
    marked = {kind: sum(fault.typical for fault in faults) for kind, faults in TABLE.items()}
    assert {kind: count for kind, count in marked.items() if count not in (1, 2)} == {}


def test_the_payloads_work(place: Place) -> None:
    """The negative control: what must never be loaded does create the canary when it is."""

    def created() -> bool:
        there = place.canary.exists()
        place.canary.unlink(missing_ok=True)
        return there

    pickle.loads(pickle.dumps(place.payload))
    assert created()
    for write in (checkpoint_faults.payload_in_zip, checkpoint_faults.payload_in_old_format):
        write(place, Path("evil.ckpt"))
        torch.load("evil.ckpt", weights_only=False)
        assert created()
    settings_faults.modules(place)
    for module in ("evil_callbacks", "lightning.pytorch_evil"):
        __import__(module)
        assert created()
