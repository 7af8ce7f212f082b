"""Lightning's LearningRateFinder: it searches before the run, whose settings then hold what it found.

So config.yaml, checkpoints and a one-cycle schedule have it as if it had been typed, no metric of the search enters the
first epoch, and a run that resumes does not search again.
"""

import tempfile
from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.tuner.tuning import Tuner

from cifar_lightning.errors import InputError

Options = dict[str, Any]


def take_finder(trainer_config: Any) -> Options | None:
    """Take the LearningRateFinder out of a Trainer's settings, and return its own; None if there is none."""
    callbacks = trainer_config.callbacks or []
    finders = [each for each in callbacks if each.class_path.rpartition(".")[2] == LearningRateFinder.__name__]
    if not finders:
        return None
    trainer_config.callbacks = [each for each in callbacks if each not in finders] or None
    options: Options = finders[0].init_args.as_dict()
    return options


def search(
    make_trainer: Callable[..., Trainer], model: LightningModule, data: LightningDataModule, options: Options
) -> float | None:
    """Return the learning rate of the steepest descent; None where `fast_dev_run` skips the search."""
    options = {**options, "num_training": options["num_training_steps"], "update_attr": False}
    del options["num_training_steps"]
    with tempfile.TemporaryDirectory() as folder:  # the search keeps the model as it was in a file
        quiet = {"logger": False, "callbacks": [], "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = make_trainer(**quiet, default_root_dir=folder)
        found = Tuner(trainer).lr_find(model, datamodule=data, **options)
    if found is None:
        return None
    rate: float | None = found.suggestion()
    if rate is None:
        cause = f"LearningRateFinder can't tell from {len(found.results['loss'])} steps"
        raise InputError("trainer.callbacks", cause, "raise its num_training_steps or early_stop_threshold")
    return rate
