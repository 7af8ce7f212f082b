"""Runs that end before their last epoch, and what is known to be wrong before their first step."""

import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from cifar_lightning.runs import metrics_csv
from tests.faults.processes import MODEL, at_call, start
from tests.faults.steps import is_whole
from tests.faults.table import FIT, NEW, NEW_RUN, WHOLE, Fault, Table

STEP, AGAIN = f"{MODEL}.training_step", f"fit --resume={NEW}"
ADD: Final = "--trainer.callbacks+="
EARLY: Final = f"{ADD}EarlyStopping --trainer.callbacks.monitor=val/loss"
NEVER_BETTER: Final = f"{EARLY} --trainer.callbacks.min_delta=9 --trainer.callbacks.patience"
MONITOR: Final = "--trainer.callbacks.monitor"
LIMIT: Final = "--trainer.max_time=00:01:00:00"
TIMER: Final = f"{ADD}Timer --trainer.callbacks.duration=00:01:00:00"

OWN: Mapping[str, Any] = {
    "own_stops.py": """\
import torch
from lightning.pytorch import Callback
from cifar_lightning.models import MLP
class At(Callback):
    def __init__(self, step: int, start: bool = False): self.step, self.start = step, start
    def ask(self, trainer, starts): trainer.should_stop |= trainer.global_step == self.step and self.start == starts
    def on_train_batch_end(self, trainer, *_): self.ask(trainer, False)
    def on_train_epoch_start(self, trainer, *_): self.ask(trainer, True)
class Tuned(MLP):
    @property
    def backbone(self): return self.network.fc1
    def new_optimizer(self): return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], lr=1e-3)
class Skips(MLP):
    def on_train_batch_start(self, batch, batch_idx): return -1 if self.current_epoch and batch_idx == 2 else None
class Fails(Callback):
    def on_train_start(self, trainer, *_): raise FileNotFoundError(2, "no such thing", "mine.txt")
class Plateau(MLP):
    def configure_optimizers(self):
        optimizer = self.new_optimizer()
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        schedule = {"scheduler": scheduler, "monitor": "val_loss", "strict": False}
        return {"optimizer": optimizer, "lr_scheduler": schedule}
"""
}


def here() -> None:
    """Let modules in the working folder be imported."""
    sys.path.insert(0, str(Path.cwd()))


def later(step: int) -> None:
    """Let two hours pass at a training step."""
    monotonic = time.monotonic
    at_call(STEP, lambda: setattr(time, "monotonic", lambda: monotonic() + 7200), step)


def then(*steps: Callable[[], object]) -> Callable[[], object]:
    return lambda: [step() for step in steps]


def says(args: str, *texts: str) -> None:
    """Assert that a command succeeds and says something."""
    status, output = start(Path.cwd(), args.split(), here).run()
    assert status == 0, output
    assert [text for text in texts if text not in output] == [], output


def has_rows(count: int) -> None:
    """Assert that a run has so many rows, of which those that the whole run has too are the same."""
    ours, whole = (metrics_csv.read(run / "metrics.csv") for run in (Path(NEW), WHOLE))
    assert [row["epoch"] for row in ours] == list(range(1, count + 1))
    for row, expected in zip(ours, whole, strict=False):
        assert {**row, "epoch_seconds": 0} == {**expected, "epoch_seconds": 0}


def validated_in(*epochs: int) -> None:
    """Assert that of a run's two rows these alone speak of a validation, with the same values as the whole run's."""
    ours, whole = (metrics_csv.read(run / "metrics.csv") for run in (Path(NEW), WHOLE))
    there = {row["epoch"]: row["val/loss"] for row in whole if row["epoch"] in epochs}
    assert {row["epoch"]: row["val/loss"] for row in ours if "val/loss" in row} == there


def same_as_unbroken(command: str) -> None:
    """Assert that the same command under another name, not stopped, comes to the same rows."""
    says(f"{command} --name=again")
    rows = (metrics_csv.read(run / "metrics.csv") for run in (Path(NEW), Path("logs/again-synthetic/version_0")))
    ours, unbroken = ([{**row, "epoch_seconds": 0} for row in each] for each in rows)
    assert ours == unbroken


def goes_on(flags: str, *texts: str) -> Callable[[], object]:
    return partial(says, f"{AGAIN} {flags}", *texts)


def rows(count: int) -> Callable[[], object]:
    return partial(has_rows, count)


TUNED: Final = (
    f"{FIT.replace('MLP', 'own_stops.Tuned')} --trainer.max_epochs=4 {ADD}BackboneFinetuning "
    "--trainer.callbacks.unfreeze_backbone_at_epoch=1"
)
# Step 6 is the second of four in the second epoch.
MIDWAY: Final = "stopped and saved after step 2 of 4 in epoch 2: "
WHY: Final = "stopped after epoch 4 of 9: val/loss did not improve for 3 epochs; to go on,"
same = partial(is_whole, NEW)

TABLE: Table = [
    "stopped inside an epoch: saved there",
    Fault("max_time inside an epoch (pytorch-lightning#10226)", f"{FIT} {LIMIT}", 0,
          (f"{MIDWAY}its time is over", f"resume with: python -m cifar_lightning {AGAIN.replace('=', ' ')}"),
          changes=NEW_RUN, child=partial(later, 6), then=then(rows(1), goes_on("--trainer.max_time=null"), same)),
    Fault("max_time counts from each start (pytorch-lightning#10226)", f"{FIT} {LIMIT}", 0, (MIDWAY,),
          changes=NEW_RUN, child=partial(later, 6), then=then(goes_on(""), rows(2))),
    Fault("max_time at the end of an epoch", f"{FIT} {LIMIT}", 0, ("stopped after epoch 1 of 2: its time is over",),
          changes=NEW_RUN, child=partial(later, 4), then=then(rows(1), goes_on("--trainer.max_time=null"), same)),
    Fault("max_time while gradients accumulate", f"{FIT} {LIMIT} --trainer.accumulate_grad_batches=2", 0,
          ("after step 2 of 4 in epoch 2: ",), changes=NEW_RUN, child=partial(later, 5)),
    Fault("a Timer inside an epoch", f"{FIT} {TIMER}", 0,
          (f"{MIDWAY}a Timer's time is over; to go on, resume with a longer --trainer.callbacks.duration",),
          changes=NEW_RUN, child=partial(later, 6),
          then=then(rows(1), goes_on("", "stopped after step 2 in epoch 2 of 2: a Timer's time is over"), rows(1),
                    goes_on("--trainer.callbacks.duration=09:00:00:00"), rows(2))),
    Fault("a Timer inside an epoch, then none", f"{FIT} {TIMER}", 0, (MIDWAY,), changes=NEW_RUN,
          child=partial(later, 6), then=then(goes_on("--trainer.callbacks=null"), rows(2))),
    Fault("a Timer at the end of an epoch", f"{FIT} {TIMER} --trainer.callbacks.interval=epoch", 0,
          ("stopped after epoch 1 of 2: a Timer's time is over",), changes=NEW_RUN, child=partial(later, 3),
          then=then(rows(1), goes_on("--trainer.callbacks=null"), rows(2))),
    Fault("max_steps inside an epoch (pytorch-lightning#6823)", f"{FIT} --trainer.max_steps=6", 0,
          (f"{MIDWAY}max_steps 6 is reached", "a larger --trainer.max_steps"), changes=NEW_RUN,
          then=then(rows(1), goes_on("", "max_steps 6 is reached"), goes_on("--trainer.max_steps=-1"), same)),
    Fault("max_steps inside an epoch, where a schedule ends", f"{FIT} --model.schedule=cosine --trainer.max_steps=6", 0,
          (f"{MIDWAY}max_steps 6 is reached; its schedule ends there\n",), changes=NEW_RUN,
          then=goes_on("", "max_steps 6 is reached; its schedule ends there\n")),
    Fault("resume of a precision in its short form", f"{FIT} --trainer.precision=32", 0, changes=NEW_RUN,
          then=goes_on("--trainer.max_epochs=3", "after epoch 2, with its model and data settings\n")),
    Fault("a backbone that was unfrozen before", f"{TUNED} --trainer.max_steps=10", 0, ("step 2 of 4 in epoch 3",), OWN,
          NEW_RUN, child=here, then=then(goes_on("--trainer.max_steps=-1"), partial(same_as_unbroken, TUNED))),
    Fault("max_steps at the end of an epoch", f"{FIT} --trainer.max_steps=4", 0,
          ("stopped after epoch 1 of 2: max_steps 4 is reached",), changes=NEW_RUN,
          then=then(rows(1), goes_on("--trainer.max_steps=6", MIDWAY), goes_on("--trainer.max_steps=-1"), same)),
    Fault("should_stop inside an epoch (pytorch-lightning#6823)", f"{FIT} {ADD}own_stops.At --trainer.callbacks.step=6",
          0, (f"{MIDWAY}At asked for it; resume with",), OWN, NEW_RUN, child=here,
          then=then(rows(1), goes_on("--trainer.callbacks=null"), same)),
    Fault("should_stop inside an epoch, asked again", f"{FIT} {ADD}own_stops.At --trainer.callbacks.step=6", 0,
          (MIDWAY,), OWN, NEW_RUN, child=here, then=then(goes_on(""), rows(2))),
    Fault("should_stop before an epoch's first step",
          f"{FIT} {ADD}own_stops.At --trainer.callbacks.step=4 --trainer.callbacks.start=true", 0,
          ("after step 1 of 4 in epoch 2: At",), OWN, NEW_RUN, child=here,
          then=then(rows(1), goes_on("--trainer.callbacks=null"), same)),
    Fault("should_stop at the end of an epoch", f"{FIT} {ADD}own_stops.At --trainer.callbacks.step=4", 0,
          ("stopped after epoch 1 of 2: At asked for it; to go on,",), OWN, NEW_RUN, child=here,
          then=then(goes_on("", "stopped after epoch 1 of 2: At"), rows(1),
                    goes_on("--trainer.callbacks=null"), rows(2))),
    Fault("early stopping between validations (pytorch-lightning#10226)",
          f"{FIT} --trainer.val_check_interval=0.5 {NEVER_BETTER}=2", 0,
          (f"{MIDWAY}val/loss did not improve for 2 checks; to go on,",), changes=NEW_RUN,
          then=then(rows(1), goes_on("", "val/loss did not improve for 2 checks"), rows(1),
                    goes_on("--trainer.callbacks.patience=9"), rows(2))),
    "a stop without its reason: told and kept",
    Fault("EarlyStopping says why (pytorch-lightning#19966)", f"{FIT} --trainer.max_epochs=9 {NEVER_BETTER}=3", 0,
          (WHY, "--trainer.callbacks null"), changes=NEW_RUN, then=then(goes_on("", WHY), rows(4))),
    Fault("EarlyStopping, then more epochs", f"{FIT} --trainer.max_epochs=9 {NEVER_BETTER}=3", 0, (WHY,),
          changes=NEW_RUN, then=then(goes_on("--trainer.max_epochs=12", "did not improve"), rows(4))),
    Fault("EarlyStopping, then more patience (pytorch-lightning#21857)",
          f"{FIT} --trainer.max_epochs=9 {NEVER_BETTER}=3", 0, (WHY,), changes=NEW_RUN,
          then=then(goes_on("--trainer.callbacks.patience=5", "stopped after epoch 6 of 9"), rows(6))),
    Fault("EarlyStopping, then none (ultralytics#8991)", f"{FIT} --trainer.max_epochs=6 {NEVER_BETTER}=3", 0,
          changes=NEW_RUN, then=then(goes_on("--trainer.callbacks=null", "epoch   6/6"), rows(6))),
    Fault("EarlyStopping, then min_epochs", f"{FIT} --trainer.max_epochs=9 {NEVER_BETTER}=3", 0, (WHY,),
          changes=NEW_RUN, then=then(goes_on("--trainer.min_epochs=6", "stopped after epoch 6 of 9"), rows(6))),
    Fault("not before min_epochs", f"{FIT} --trainer.max_epochs=9 --trainer.min_epochs=6 {NEVER_BETTER}=3", 0,
          ("stopped after epoch 6 of 9: val/loss did not improve",), changes=NEW_RUN, then=rows(6)),
    Fault("a threshold is reached", f"{FIT} {EARLY} --trainer.callbacks.stopping_threshold=99", 0,
          ("stopped after epoch 1 of 2: val/loss reached 99",), changes=NEW_RUN, then=goes_on("", "reached 99")),
    "a row and its checkpoint: of the same step",
    Fault("validated every third step of four", f"{FIT} --trainer.val_check_interval=3", 0, changes=NEW_RUN,
          then=rows(2)),
    Fault("validated every third step, over epochs",
          f"{FIT} --trainer.check_val_every_n_epoch=null --trainer.val_check_interval=3", 0, changes=NEW_RUN,
          then=rows(2)),
    Fault("validated every sixth step, over epochs",
          f"{FIT} --trainer.check_val_every_n_epoch=null --trainer.val_check_interval=6", 0, changes=NEW_RUN,
          then=partial(validated_in, 2)),
    Fault("a model that skips the rest of an epoch", FIT.replace("MLP", "own_stops.Skips"), 1,
          ("model: on_train_batch_start skips the rest of epoch 2 after step 2", "--trainer.limit_train_batches"), OWN,
          NEW_RUN, child=here, then=rows(1)),
    "known before the first step: refused there",
    Fault("a monitor that does not exist (brainstorm#91)", f"{FIT} {ADD}EarlyStopping {MONITOR}=val_loss", 2,
          ("trainer.callbacks", "EarlyStopping", "val_loss", "use val/loss")),
    Fault("a better metric taken for a worse one (brainstorm#91)", f"{FIT} {ADD}EarlyStopping {MONITOR}=val/acc", 2,
          ("trainer.callbacks", "val/acc", "mode min", "max")),
    Fault("a worse metric taken for a better one", f"{FIT} {EARLY} --trainer.callbacks.mode=max", 2,
          ("trainer.callbacks", "val/loss", "mode max", "min")),
    Fault("the worst as the best checkpoint", f"{FIT} {ADD}ModelCheckpoint {MONITOR}=val/acc", 2, ("mode min", "max")),
    Fault("a checkpoint's monitor", f"{FIT} {ADD}ModelCheckpoint {MONITOR}=val_acc", 2, ("use val/acc",)),
    Fault("a monitor without validation", f"{FIT} {EARLY} --data.val_size=0", 2, ("val/loss", "nothing publishes")),
    Fault("a schedule's monitor", FIT.replace("MLP", "own_stops.Plateau"), 0,
          ("ReduceLROnPlateau monitors val_loss", "did you mean val/loss?"), OWN, NEW_RUN, child=here),
    Fault("an own metric that is never logged", f"{FIT.replace('MLP', 'own_stops.Skips')} {ADD}EarlyStopping "
          f"{MONITOR}=val/f1", 1, ("trainer.callbacks: EarlyStopping: ", "metric `val/f1` which is not available",
                                   "leave it out"), OWN, NEW_RUN, child=here),
    Fault("a callback for another model", f"{FIT} {ADD}BackboneFinetuning", 2,
          ("trainer.callbacks: BackboneFinetuning: 'MLP' object has no attribute 'backbone'", "leave it out")),
    Fault("a callback whose package is missing", f"{FIT} {ADD}DeviceStatsMonitor --trainer.callbacks.cpu_stats=true", 2,
          ("trainer.callbacks: DeviceStatsMonitor needs psutil", "pip install psutil"),
          make=partial(patch, "cifar_lightning.callbacks.unusable.find_spec", return_value=None)),
    Fault("a callback that fails at the start", f"{FIT} {ADD}own_stops.Fails", 1, ("mine.txt: no such thing",), OWN,
          child=here),
]  # fmt: skip
