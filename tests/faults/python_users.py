"""Loaders, compilers, weight averages, and a Trainer of a person's own; titles name the issues."""

import re
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from unittest.mock import patch

from lightning.pytorch.callbacks import ModelCheckpoint

from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.models import MLP
from cifar_lightning.runs import metrics_csv
from cifar_lightning.runs.checkpoint import load
from tests.faults.compare import differences
from tests.faults.steps import trained
from tests.faults.table import BEST, FIT, NEW, NEW_RUN, RUN, SMALL, WHOLE, Fault, Table
from tests.models.conftest import trainer

AVERAGED = "--trainer.callbacks+=EMAWeightAveraging --trainer.callbacks.decay=0.5"
COMPILED = "fit --name=mlp --model=CNN --model.channels=[4,8] --model.compile=true"
PLAIN = "plain/checkpoints/mine.ckpt"


def same_but_for_settings() -> None:
    """Assert that the new run has the bits of the finished one; of settings it has its own."""
    found = [each for each in differences(Path(NEW), WHOLE) if not re.search("config.yaml|num_workers", each)]
    assert found == [], found


def averages_are_what_was_validated() -> None:
    """Assert that a checkpoint's weights are the means, and that they are what the row of the curves speaks of."""
    content = load(Path(f"{NEW}/checkpoints/last.ckpt"))
    name = "network.fc1.weight"
    assert not content["state_dict"][name].equal(content["current_model_state"][name])
    mine, others = (metrics_csv.read(Path(f"{run}/metrics.csv")) for run in (NEW, RUN))
    assert [row["train/loss"] for row in mine] == [row["train/loss"] for row in others]
    assert [row["val/loss"] for row in mine] != [row["val/loss"] for row in others]


def plain(path: Path, *, data: bool = True) -> None:
    """Train with nothing but Lightning's Trainer and write its checkpoint."""
    path.parent.mkdir(parents=True)
    module = CIFAR10DataModule(source="synthetic", train_size=200, val_size=100, train_clean_size=50)
    save = ModelCheckpoint(path.parent, path.stem)
    if data:
        trainer(1, save).fit(MLP(width=8), module)
    else:
        module.setup("fit")
        trainer(1, save).fit(MLP(width=8), module.train_dataloader(), module.val_dataloader())


def without_compiler() -> AbstractContextManager[object]:
    return patch("torch.compile", side_effect=RuntimeError("no g++"))


def in_its_own_process() -> None:
    """Do nothing; a process group or compiled code would stay in this one."""


def fits(title: str, flags: str, then: partial[None] | None = None, *, alone: bool = False) -> Fault:
    child = in_its_own_process if alone else None
    return Fault(title, f"{FIT} {flags}", 0, changes=NEW_RUN, then=then or partial(same_but_for_settings), child=child)


DDP = "--trainer.strategy=ddp"
TABLE: Table = [
    "Lightning would rebuild the loader to overfit: it can't",
    fits("overfit_batches (pytorch-lightning#21282)", "--trainer.overfit_batches=2", partial(trained, 4)),
    fits("overfit a fraction (pytorch-lightning#15899)", "--trainer.overfit_batches=0.5 --data.eval_batch_size=10",
         partial(trained, 4)),
    fits("overfit with workers", "--trainer.overfit_batches=3 --data.num_workers=1", partial(trained, 6), alone=True),
    fits("overfit more than there is", "--data.train_size=101 --trainer.overfit_batches=9", partial(trained, 4)),
    "Lightning would rebuild the loader for several processes: it can't",
    fits("strategy ddp (rslearn#182)", DDP, alone=True),
    fits("ddp with workers", f"{DDP} --data.num_workers=1", alone=True),
    fits("ddp overfits", f"{DDP} --trainer.overfit_batches=2", partial(trained, 4), alone=True),
    fits("its sampler asked for (pytorch-lightning#19657)", "--trainer.use_distributed_sampler=true"),
    fits("a new loader each epoch", "--trainer.reload_dataloaders_every_n_epochs=1"),
    "a strategy that trains in a child process: refused",
    *(Fault(name, f"{FIT} --trainer.strategy={name}", 2, ("trainer.strategy", name, "use ddp or auto"))
      for name in ("ddp_spawn", "ddp_notebook", "ddp_fork_find_unused_parameters_true")),
    "weights averaged after the last checkpoint: refused",
    Fault("StochasticWeightAveraging", f"{FIT} --trainer.callbacks+=StochasticWeightAveraging "
          "--trainer.callbacks.swa_lrs=0.1", 2, ("StochasticWeightAveraging", "none would hold them", "EMAWeight")),
    "what no checkpoint keeps: refused",
    Fault("ModelPruning", f"{FIT} --trainer.callbacks+=ModelPruning --trainer.callbacks.pruning_fn=l1_unstructured", 2,
          ("ModelPruning keeps its masks in no checkpoint", "torch.nn.utils.prune")),
    Fault("SpikeDetection", f"{FIT} --trainer.callbacks+=SpikeDetection", 2, ("SpikeDetection can't restore",)),
    "weights averaged in every checkpoint: trained and validated",
    fits("EMAWeightAveraging", AVERAGED, partial(averages_are_what_was_validated)),
    fits("WeightAveraging", "--trainer.callbacks+=WeightAveraging", partial(averages_are_what_was_validated)),
    "a checkpoint of a plain Trainer: evaluated",
    Fault("test (pytorch-lightning#10336)", f"test --ckpt_path={PLAIN}", 0, ("10,000 images",), {PLAIN: plain},
          ("plain/checkpoints/test.json",)),
    Fault("validate a plain one", f"validate --ckpt_path={PLAIN}", 0, ("val/acc",), {PLAIN: plain}),
    Fault("predict with a plain one", f"predict --ckpt_path={PLAIN}", 0, ("9,990 more",), {PLAIN: plain}, ("plain/*",)),
    Fault("a plain one without our data", f"test --ckpt_path={PLAIN} --data.source=synthetic", 0, ("10,000 images",),
          {PLAIN: partial(plain, data=False)}, ("plain/checkpoints/test.json",)),
    Fault("resume from a plain one", f"fit --ckpt_path={PLAIN}", 2, (PLAIN,), {PLAIN: plain}),
    "compiled: no compiler is known before there is a run",
    Fault("compile without a compiler", f"{COMPILED} {SMALL}", 2, ("model.compile", "C++ compiler"),
          make=without_compiler),
    "compiled: as any run",
    Fault("compile", f"{COMPILED} {SMALL}", 0, changes=("logs/*",), child=in_its_own_process),
    Fault("a run that was not compiled", f"test --ckpt_path={BEST} --model.compile=false", 0, changes=(f"{RUN}/*",)),
]  # fmt: skip
