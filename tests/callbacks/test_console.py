"""The console while a run trains."""

import io
import re
import sys
import time
from pathlib import Path

import pytest

from cifar_lightning.callbacks.console import ProgressLine
from tests.conftest import TINY, Fit

LINE = r"epoch \d/2 +\d+%  loss \d\.\d{4} acc 0\.\d{4}  \d+ (s|min) left"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_one_line_that_is_gone_in_the_end(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProgressLine, "seconds_between", property(lambda _: 0, lambda *_: None), raising=False)
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    fit(tmp_path / "logs", TINY)
    drawn = terminal.getvalue().partition("run folder:")[2].partition("best val/acc")[0]
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", drawn) if "left" in line]
    assert [line for line in lines if not re.fullmatch(LINE, line)] == []
    assert (len(lines), lines[-1][:14], max(map(len, lines)) <= 80) == (40, "epoch 2/2 100%", True)
    assert drawn.rpartition("\r")[0].endswith("  ")  # overwritten


def test_a_log_file_gets_a_line_a_minute(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.perf_counter()
    ticks = iter(range(10**6))  # seconds: each look at the clock is three later
    monkeypatch.setattr("cifar_lightning.callbacks.console.time.perf_counter", lambda: started + 3 * next(ticks))
    fit(tmp_path, TINY)
    lines = [line for line in capsys.readouterr().out.splitlines() if re.fullmatch(LINE, line)]
    assert lines[0].startswith("epoch 1/2")
    assert 1 <= len(lines) <= 2


def test_a_progress_bar_of_ones_own_takes_the_place_of_ours(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProgressLine, "__init__", lambda _: pytest.fail("two progress bars"))
    fit(tmp_path, [*TINY, "--trainer.callbacks+=TQDMProgressBar", "--trainer.callbacks.refresh_rate=0"])
