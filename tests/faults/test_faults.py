"""The table of faults: whatever goes wrong is one line and a status, and nothing that was there is touched."""

import os
import pickle
import re
import shlex
import shutil
import signal
from collections.abc import Iterator
from contextlib import chdir
from fnmatch import fnmatch
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from cifar_lightning.__main__ import main
from cifar_lightning.runs.checkpoint import read_checkpoint
from tests.faults import (
    checkpoint_faults,
    data_faults,
    export_users,
    loggers_users,
    machine_faults,
    python_users,
    resume_users,
    settings_faults,
    stops_users,
    words_users,
)
from tests.faults.processes import start
from tests.faults.steps import Payload
from tests.faults.table import BEST, CANARY, FIT, RUN, WHOLE, Fault, damage

TABLE = [*settings_faults.TABLE, *checkpoint_faults.TABLE, *data_faults.TABLE, *machine_faults.TABLE]
for users in (export_users, loggers_users, python_users, resume_users, stops_users, words_users):
    TABLE += users.TABLE
# The first row of each kind runs by default.
ROWS = [
    pytest.param(row, id=row.title, marks=() if isinstance(before, str) else pytest.mark.slow)
    for before, row in pairwise(TABLE)
    if isinstance(row, Fault)
]
# Field, cause and remedy; the name of an exception is neither a file nor a setting.
LINE = re.compile(r"error: (?!\w*(Error|Exception|Warning|Interrupt): ).+?: .+; .+")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    with chdir(folder):
        assert main(FIT.split()) == 0
        # So that the last checkpoint alone is of its epoch.
        assert read_checkpoint(Path(BEST)).epochs == 1
    return folder


@pytest.fixture
def _place(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The working folder, with the finished run."""
    monkeypatch.delenv("CIFAR10_ROOT", raising=False)
    shutil.copytree(finished, tmp_path / "work")
    with chdir(tmp_path / "work"):
        WHOLE.symlink_to(finished / RUN)
        yield


def snapshot() -> set[tuple[Path, object]]:
    """Return everything below the working folder with its content."""
    return {
        (path, path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else path.stat().st_mode)
        for path in Path().rglob("*")
    }


@pytest.mark.usefixtures("_place")
@pytest.mark.parametrize("fault", ROWS)
def test_a_fault_is_one_line_and_changes_nothing(fault: Fault, capfd: pytest.CaptureFixture[str]) -> None:
    damage(fault.files)
    with fault.make():
        before = snapshot()
        args = shlex.split(os.path.expandvars(fault.command.replace("CANARY", str(CANARY))))
        capfd.readouterr()
        if fault.child:
            status, output = start(Path.cwd(), args, fault.child).run()
        else:
            # No Exception, which the command would take for one of its own; the other rows are still tried.
            signal.signal(signal.SIGALRM, lambda *_: pytest.fail("still at work after 20 seconds"))
            signal.alarm(20)
            try:
                status = main(args)
            finally:
                signal.alarm(0)
            output = "\n".join(capfd.readouterr())
        assert "Traceback" not in output
        assert status == fault.status, output
        lines = [line for line in output.splitlines() if line.startswith("error: ")]
        assert len(lines) == ((0 < fault.status < 128) if fault.errors is None else fault.errors), output
        assert [line for line in lines if len(line) > 2000 or not LINE.fullmatch(line)] == []
        assert status != 2 or "--debug shows where" not in output  # for faults of the program, not of what it was given
        told = "\n".join(lines) if lines else output
        assert [text for text in fault.says if text not in told] == [], output
        touched = sorted({str(path) for path, _ in before ^ snapshot()})
        allowed = ("*.lock", *fault.changes)
        wrong = [x for x in touched if x.endswith(".tmp") or not any(fnmatch(x, pattern) for pattern in allowed)]
        assert wrong == [], output
    if fault.then:
        fault.then()
    assert not CANARY.exists(), output


@pytest.mark.usefixtures("_place")
def test_the_payloads_work() -> None:
    """The negative control: what must never be loaded does create the canary when it is."""
    foreign = checkpoint_faults.FOREIGN
    damage({"zip.ckpt": foreign["payload in a zip"], "old.ckpt": foreign["payload in the old format"]})
    with settings_faults.modules():
        for load in (
            partial(pickle.loads, pickle.dumps(Payload())),
            partial(torch.load, "zip.ckpt", weights_only=False),
            partial(torch.load, "old.ckpt", weights_only=False),
            partial(__import__, "evil_callbacks"),
            partial(__import__, "lightning.pytorch_evil"),
        ):
            load()
            CANARY.unlink()
