"""metrics.csv has the row of an epoch before the event file does, whatever the loggers."""

from pathlib import Path

import pytest

from cifar_lightning.runs import metrics_csv
from cifar_lightning.runs.tensorboard_logger import RunLogger
from tests.conftest import TINY, Fit


def test_metrics_csv_comes_before_the_event_file(fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []

    def spy(self: RunLogger, *_: object) -> None:
        rows.append(len(metrics_csv.read(Path(self.log_dir) / "metrics.csv")))

    monkeypatch.setattr(RunLogger, "log_epoch", spy)
    fit(tmp_path, TINY)
    assert rows == [1, 2]


def test_another_logger_is_added(fit: Fit, tmp_path: Path) -> None:
    flags = ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path / 'csv'}"]
    flags += ["--trainer.check_val_every_n_epoch=2", "--trainer.log_every_n_steps=8"]
    run = fit(tmp_path / "logs", [*TINY, *flags])
    rows = metrics_csv.read(run / "metrics.csv")
    assert [("val/acc" in row, "train/loss_step" in row) for row in rows] == [(False, False), (True, False)]
    theirs = metrics_csv.read(tmp_path / "csv/lightning_logs/version_0/metrics.csv")
    # 20 steps an epoch; x are steps from 0, as Lightning counts them.
    assert [row["step"] for row in theirs if "train/loss_step" in row] == [7, 15, 23, 31, 39]
    assert [row for row in theirs if "epoch" in row] == [row | {"step": 20 * row["epoch"] - 1} for row in rows]
