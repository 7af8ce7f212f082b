"""The table of faults: whatever goes wrong is one line and a status, and nothing that was there is touched."""

import json
import re
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from cifar_lightning.__main__ import main
from cifar_lightning.runs.checkpoint import read_checkpoint
from tests.faults import (
    checkpoint_faults,
    config_faults,
    data_faults,
    disk_faults,
    import_faults,
    memory_faults,
    picture_faults,
    resume_faults,
    signal_faults,
)
from tests.faults.table import BEST, FIT, RUN, Fault, Place, snapshot

MODULES = (
    config_faults, import_faults, checkpoint_faults, resume_faults, disk_faults, memory_faults, signal_faults,
    data_faults, picture_faults,
)  # fmt: skip
FAULTS: list[Fault] = [fault for module in MODULES for fault in module.FAULTS]

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
def place(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Place]:
    folder, canary = tmp_path / "work", tmp_path / "canary"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("CIFAR10_ROOT", raising=False)
    with ExitStack() as stack:
        words = {"CANARY": str(canary)}
        whole = finished / RUN
        yield Place(folder, whole, canary, monkeypatch, stack, words, lambda: request.getfixturevalue("nursery"))


# Every fourth by default, the others with `-m slow`: alike rows stand side by side.
ROWS = [
    pytest.param(fault, id=fault.name, marks=[pytest.mark.slow] if fault.slow or place % 4 else [])
    for place, fault in enumerate(FAULTS)
]


@pytest.mark.parametrize("fault", ROWS)
def test_a_fault_is_one_line_and_changes_nothing(
    fault: Fault, place: Place, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault.make(place)
    before = snapshot(place.folder)
    args = [arg for arg in _words(fault.command, place.words) if arg]
    capfd.readouterr()
    if fault.child:
        before_it = f"tests.faults.children:{fault.child}"
        status, output = place.nursery().start(place.folder, args, before=before_it, given=fault.given).run()
    else:
        with _no_longer_than(20):
            status = main(args)
        captured = capfd.readouterr()
        output = captured.err + captured.out
    assert "Traceback" not in output
    assert status == fault.status, output
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
    after = snapshot(place.folder)
    touched = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert sorted(name for name in touched if not fault.allows(name)) == [], output
    monkeypatch.undo()
    monkeypatch.chdir(place.folder)
    fault.then(place)
    assert not place.canary.exists(), output


@contextmanager
def _no_longer_than(seconds: int) -> Iterator[None]:
    """Ends a command that hangs, so that the other rows are still tried."""

    def end(signum: int, frame: object) -> None:
        raise HangsError(f"still at work after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class HangsError(BaseException):
    """No Exception: the command would take it for one of its own."""


def _words(command: str, words: dict[str, str]) -> list[str]:
    """The words of a command; one that holds a blank is written as JSON text behind `json:`."""
    found = [json.loads(word) if word.startswith('"') else word for word in re.findall(r'"(?:\\.|[^"])*"|\S+', command)]
    for name, value in words.items():
        found = [word.replace(name, value) for word in found]
    return found


def test_the_table_is_large_and_each_row_has_its_name() -> None:
    assert len(FAULTS) >= 75
    assert [name for name, count in Counter(fault.name for fault in FAULTS).items() if count > 1] == []


def test_the_payloads_work(place: Place) -> None:
    """The negative control: what must never be loaded does create the canary when it is."""
    import pickle

    import torch

    pickle.loads(pickle.dumps(place.payload))
    assert place.canary.exists()
    place.canary.unlink()
    checkpoint_faults.payload_in_zip(place, Path("evil.ckpt"))
    torch.load("evil.ckpt", weights_only=False)
    assert place.canary.exists()
    place.canary.unlink()
    import_faults.evil_modules(place)
    __import__("evil_callbacks")
    assert place.canary.exists()
    place.canary.unlink()
    __import__("lightning.pytorch_evil")
    assert place.canary.exists()
