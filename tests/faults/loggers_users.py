"""Requests that are not silenced, ignored or overruled, and records of what ran; titles name the issues."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch.loggers import Logger

from cifar_lightning.runs import metrics_csv
from cifar_lightning.runs.checkpoint import load
from tests.faults.steps import trained
from tests.faults.table import FIT, LAST, NEW, NEW_RUN, OLD_RUN, RESUME, RUN, Damage, Fault, Table

CSV = "--trainer.logger=CSVLogger --trainer.logger.save_dir=csv"
FIND = "--trainer.callbacks+=LearningRateFinder --trainer.callbacks.max_lr=0.1"
REMOTE = "--trainer.logger=tests.faults.loggers_users.Remote"
# In a process of its own, whose log messages go to the screen: here they go to pytest.
ITSELF = int
# 20 steps an epoch.
FIT_20 = f"{FIT} --data.train_size=1000"


class Remote(Logger):
    """Like those of W&B or MLflow: without a folder per run, of one name for all."""

    name, version, save_dir = "remote", "0", "remote"

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        print("remote", step, *metrics)

    def log_hyperparams(self, params: Any, *_: object) -> None:
        print("remote", *sorted(params))


def used(path: str) -> dict[str, object]:
    settings: dict[str, object] = yaml.safe_load(Path(path, "config.yaml").read_text())
    return settings


def has_rows_of(*folders: str, epochs: int = 2) -> None:
    """Assert that each metrics.csv has the rows of the run's own, whatever else."""
    for folder in folders:
        rows = metrics_csv.read(Path(folder, "metrics.csv"))
        assert [row["epoch"] for row in rows if "epoch" in row] == list(range(1, epochs + 1)), folder


def has_curves_alone() -> None:
    has_rows_of(NEW)
    assert not [*Path(NEW).rglob("*.ckpt")]


def found_is_recorded(schedule: str = "constant") -> None:
    """Assert that config.yaml, the checkpoint and the curves have the same learning rate, and not the default."""
    content, settings = load(Path(NEW, "checkpoints/last.ckpt")), used(NEW)
    model, trainer = settings["model"], settings["trainer"]
    assert isinstance(model, dict)
    assert isinstance(trainer, dict)
    rate = model["init_args"]["lr"]
    assert rate != 1e-3
    assert content["hyper_parameters"]["lr"] == rate
    assert trainer["callbacks"] is None
    assert not [*Path().glob(".lr_find*")]
    group = content["optimizer_states"][0]["param_groups"][0]
    assert group["max_lr" if schedule == "one-cycle" else "lr"] == rate


def repeats_itself() -> None:
    """Assert that a run's config.yaml alone makes the same run: nothing of the search is in it."""
    from cifar_lightning.__main__ import main

    assert main(["fit", f"--config={NEW}/config.yaml", "--name=again"]) == 0
    rows = [metrics_csv.read(Path(run, "metrics.csv")) for run in (NEW, "logs/again-synthetic/version_0")]
    for row in (*rows[0], *rows[1]):
        del row["epoch_seconds"]
    assert rows[0] == rows[1]


def validated_on_ten() -> None:
    tenths = [10 * row["val/acc"] for row in metrics_csv.read(Path(NEW, "metrics.csv"))]
    assert tenths == pytest.approx([round(x) for x in tenths])


def callbacks(*names: str, key: str = "callbacks") -> Damage:
    return yaml.safe_dump({"trainer": {key: [{"class_path": name} for name in names]}})


LOGGERS = "trainer:\n  logger:\n" + "".join(
    f"  - class_path: {name}\n    init_args: {{save_dir: {folder}}}\n"
    for name, folder in (("CSVLogger", "csv"), ("TensorBoardLogger", "tb"))
)

TABLE: Table = [
    "another logger: added",
    Fault("CSVLogger beside ours", f"{FIT} {CSV}", 0, (NEW,), changes=(*NEW_RUN, "csv*"),
          then=partial(has_rows_of, NEW, "csv/lightning_logs/version_0")),
    Fault("two more loggers from a file", f"{FIT} --config=a.yaml", 0, files={"a.yaml": LOGGERS},
          changes=(*NEW_RUN, "csv*", "tb*"), then=partial(has_rows_of, NEW, "csv/lightning_logs/version_0")),
    Fault("checkpoints of a logger without folders (pytorch-lightning#17298)", f"{FIT} {REMOTE} "
          "--trainer.callbacks+=ModelCheckpoint --trainer.log_every_n_steps=4", 0,
          ("remote 3 train/loss_step", "remote 7 epoch train/loss", "batch_size"), changes=NEW_RUN,
          then=Path(NEW, "checkpoints/epoch=1-step=8.ckpt").stat),
    Fault("a run resumes with another logger", f"{RESUME} --trainer.max_epochs=3 {CSV}", 0,
          changes=(*OLD_RUN, "csv*"), then=partial(has_rows_of, RUN, epochs=3)),
    Fault("a logger for `test`", f"test --ckpt_path={LAST} {CSV}", 0,
          changes=(f"{RUN}/test.json", f"{RUN}/events*", "csv*")),
    Fault("a logger for `validate`", f"validate --ckpt_path={LAST} {REMOTE}", 0, ("remote 2 gap/acc",)),
    Fault("no logger, no run folder", f"{FIT} --trainer.logger=false", 0),
    Fault("curves without checkpoints", f"{FIT} --trainer.enable_checkpointing=false", 0, changes=NEW_RUN,
          then=has_curves_alone),
    "reports: they reach the screen",
    Fault("a profiler", f"{FIT} --trainer.profiler=simple", 0,
          ("Profiler Report", "run_training_epoch"), child=ITSELF, changes=NEW_RUN),
    Fault("a summary of the model", f"{FIT} --trainer.enable_model_summary=true", 0, ("24.7 K",), child=ITSELF,
          changes=NEW_RUN),
    Fault("a verbose ModelCheckpoint", f"{FIT} --trainer.callbacks+=ModelCheckpoint --trainer.callbacks.verbose=true "
          "--trainer.callbacks.monitor=val/loss --trainer.callbacks.dirpath=own", 0, ("reached", "saving model to"),
          child=ITSELF, changes=(*NEW_RUN, "own*")),
    Fault("a verbose EarlyStopping", f"{FIT} --trainer.callbacks+=EarlyStopping --trainer.callbacks.verbose=true "
          "--trainer.callbacks.monitor=val/loss", 0, ("Metric val/loss improved",), child=ITSELF, changes=NEW_RUN),
    Fault("fast_dev_run says what it leaves out", f"{FIT} --trainer.fast_dev_run=true", 0, ("is suppressed",),
          child=ITSELF),
    "a progress bar of a person's own: used",
    Fault("a RichProgressBar", f"{FIT} --trainer.callbacks+=RichProgressBar", 0, ("Epoch 1/1",), changes=NEW_RUN),
    Fault("a TQDMProgressBar", f"{FIT} --trainer.callbacks+=TQDMProgressBar", 0, ("Epoch 1:",), changes=NEW_RUN),
    "a number of batches: 1 is one, 1.0 all",
    Fault("limit_train_batches=1", f"{FIT} --trainer.limit_train_batches=1", 0,
          changes=NEW_RUN, then=partial(trained, 2)),
    Fault("limit_train_batches=1.0", f"{FIT} --trainer.limit_train_batches=1.0", 0, changes=NEW_RUN,
          then=partial(trained, 8)),
    Fault("limit_train_batches: 1 over a file's 1.0", f"{FIT} --config=a.yaml --trainer.limit_train_batches=1", 0,
          files={"a.yaml": "trainer: {limit_train_batches: 1.0}\n"}, changes=NEW_RUN, then=partial(trained, 2)),
    Fault("limit_val_batches=1", f"{FIT} --data.eval_batch_size=10 --trainer.limit_val_batches=1", 0, changes=NEW_RUN,
          then=validated_on_ten),
    "callbacks of a second file: said how to add",
    Fault("a second file's callbacks", f"{FIT} --config=a.yaml --config=b.yaml", 0,
          ("a.yaml: LearningRateMonitor", "`callbacks+:` adds"), changes=NEW_RUN,
          files={"a.yaml": callbacks("LearningRateMonitor"), "b.yaml": callbacks("ModelSummary")}),
    Fault("callbacks+ in a second file", f"{FIT} --config=a.yaml --config=b.yaml", 0, ("24.7 K",), child=ITSELF,
          changes=NEW_RUN,
          files={"a.yaml": callbacks("LearningRateMonitor"), "b.yaml": callbacks("ModelSummary", key="callbacks+")}),
    Fault("one callback needs no list", f"{FIT} --config=a.yaml", 0, ("24.7 K",), child=ITSELF,
          changes=NEW_RUN,
          files={"a.yaml": "trainer: {callbacks: ModelSummary}\n"}),
    "a finder: the record holds what it found",
    Fault("LearningRateFinder (pytorch-lightning#16787)", f"{FIT_20} {FIND}", 0,
          ("LearningRateFinder: ", "trains with"), changes=NEW_RUN, then=found_is_recorded),
    Fault("nothing of a search enters the run (pytorch-lightning#6675)", f"{FIT_20} {FIND}", 0,
          changes=(*NEW_RUN, "logs/again*"), then=repeats_itself),
    Fault("a one-cycle schedule up to the found rate",
          f"{FIT_20} {FIND} --model.schedule=one-cycle", 0, changes=NEW_RUN,
          then=partial(found_is_recorded, "one-cycle")),
    Fault("a finder in a fast_dev_run", f"{FIT_20} {FIND} --trainer.fast_dev_run=true", 0, child=ITSELF),
    Fault("a finder that only tells", f"{FIT_20} {FIND} --trainer.callbacks.update_attr=false", 0,
          ("has the steepest descent",), changes=NEW_RUN),
    Fault("EarlyStopping beside a finder (pytorch-lightning#19575)",
          f"{FIT_20} {FIND} --trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor=val/loss", 0,
          changes=NEW_RUN, then=partial(trained, 40)),
    Fault("a finder for a run that resumes", f"{RESUME} --trainer.max_epochs=3 {FIND}", 0,
          ("this run has its learning rate, 0.001",), changes=OLD_RUN),
    Fault("a finder with too few steps", f"{FIT_20} {FIND} --trainer.callbacks.num_training_steps=5", 2,
          ("trainer.callbacks", "5 steps", "num_training_steps")),
    Fault("a finder of another setting", f"{FIT_20} {FIND} --trainer.callbacks.attr_name=rate", 2,
          ("trainer.callbacks", "rate")),
    Fault("BatchSizeFinder", f"{FIT} --trainer.callbacks+=BatchSizeFinder", 2,
          ("trainer.callbacks", "BatchSizeFinder", "--data.batch_size")),
]  # fmt: skip
