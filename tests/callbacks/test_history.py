"""metrics.csv has the row of an epoch before the event file does, whatever the loggers."""

from pathlib import Path

import pytest

from cifar_lightning.runs import metrics_csv
from cifar_lightning.runs.logger import RunLogger
from tests.conftest import SMALL, Fit

TINY = ["--model=MLP", "--model.width=8", *SMALL, "--trainer.max_epochs=2"]


def test_metrics_csv_comes_before_the_event_file(fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []

    def spy(self: RunLogger, *_: object, step: int) -> None:
        rows.append(len(metrics_csv.read(Path(self.log_dir) / "metrics.csv")))

    monkeypatch.setattr(RunLogger, "log_metrics", spy)
    fit(tmp_path, TINY)
    assert rows == [1, 2]


def test_a_csv_logger_leaves_metrics_csv_to_us(fit: Fit, tmp_path: Path) -> None:
    run = fit(tmp_path, [*TINY, "--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path}"])
    assert [row.get("epoch") for row in metrics_csv.read(run / "metrics.csv")] == [1, 2]
