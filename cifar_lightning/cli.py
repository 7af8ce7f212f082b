"""The command line: LightningCLI with this project's defaults, and checkpoints that need nothing beside them."""

import json
import logging
import sys
import traceback
import warnings
from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger

from cifar_lightning import callbacks
from cifar_lightning.checkpoint import Checkpoint, check_fits, read_checkpoint
from cifar_lightning.data.datamodule import CIFAR10DataModule, resolve_source
from cifar_lightning.errors import InputError
from cifar_lightning.messages import explain
from cifar_lightning.models import ImageClassifier

HELP = """\
An MLP and a CNN on CIFAR-10. The commands people need:

  python -m cifar_lightning fit --config configs/cnn.yaml        train (configs/mlp.yaml: the MLP)
  python -m cifar_lightning test --ckpt_path RUN/checkpoints/best.ckpt
  python -m cifar_lightning predict --ckpt_path RUN/checkpoints/best.ckpt --data.images my_pictures/
  tensorboard --logdir logs                                      look at the curves

RUN is the run's folder, logs/cnn/version_0 say. `fit --help` lists every setting; each is a key of the
configuration file and a flag: --model.dropout 0.2 --data.batch_size 200 --trainer.max_epochs 20."""


class CLI(LightningCLI):
    """`fit`, `validate`, `test` and `predict`; the last three take everything from the checkpoint."""

    restored: Checkpoint | None = None

    def __init__(self, args: Sequence[str]) -> None:
        keep_raising = {"exit_on_error": False}
        super().__init__(
            ImageClassifier,
            CIFAR10DataModule,
            subclass_mode_model=True,
            save_config_callback=SaveConfig,
            args=list(args),
            # Flags for an optimiser would silently replace the model's own.
            auto_configure_optimizers=False,
            # Its way of saving constructor arguments names code to run on loading; ours are plain values.
            load_from_checkpoint_support=False,
            trainer_defaults={"num_sanity_val_steps": 0, "enable_model_summary": False, "devices": 1},
            parser_kwargs={**keep_raising, **{name: dict(keep_raising) for name in self.subcommands()}},
        )

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The seed, the run's folder."""
        parser.add_argument("--seed_everything", type=int, default=0, help="Seed of weights, order, masks; 0 or more.")
        parser.add_argument("--logs", type=str, default="logs", help="Folder of all runs.")
        help_name = "The run goes to LOGS/NAME/version_N; null is the name of the configuration file."
        parser.add_argument("--name", type=str | None, default=None, help=help_name)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """One seed for everything."""
        parser.link_arguments("seed_everything", "data.seed")

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """As Lightning's, less the arguments that this program decides."""
        decided = {"weights_only", "verbose", "return_predictions"}
        return {name: skipped | decided for name, skipped in LightningCLI.subcommands().items()}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Puts the checkpoint's configuration before what was given, so that what was given wins."""
        command, given = args[0], args[1:]
        path = _value_of("--ckpt_path", given)
        if command in ("validate", "test", "predict"):
            if path is None:
                raise InputError("ckpt_path", f"{command} needs a checkpoint", "give --ckpt_path RUN/checkpoints/best.ckpt")
            self.restored = read_checkpoint(Path(path))
            given = ["--config", json.dumps(self.restored.config), *given]
        self.config = parser.parse_args([command, *_join_images(given)])

    def _parse_ckpt_path(self) -> None:
        """Nothing: Lightning would put the checkpoint's settings over explicit flags, here that is done already."""

    def before_instantiate_classes(self) -> None:
        """Settles what the run's folder and config.yaml must tell truly: its name and where its images are from."""
        config = self.config[self.subcommand]
        wanted = config.data.source
        config.data.source, reason = resolve_source(wanted, config.data.root, config.data.mirrors)
        if reason:
            print(f"no CIFAR-10 ({reason}): using the synthetic stand-in", file=sys.stderr)
        if config.name is None:
            files = [Path(str(file)).stem for file in config.config or []]
            config.name = "-".join(files) or config.model.class_path.rsplit(".", 1)[-1].lower()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Gives the Trainer its run folder and its callbacks."""
        config = self.config_init[self.subcommand]
        if config.trainer.logger in (None, True):
            kwargs["logger"] = self._logger(config)
        kwargs["callbacks"] = [*(config.trainer.callbacks or []), *self._callbacks(config)]
        return super().instantiate_trainer(**kwargs)

    def _logger(self, config: Any) -> TensorBoardLogger | bool:
        if self.restored is None:
            tag = "-synthetic" if self.datamodule.source == "synthetic" else ""
            return RunLogger(config.logs, f"{config.name}{tag}", default_hp_metric=False)
        if self.subcommand == "test":
            return RunLogger(self.restored.run_folder, "", "", default_hp_metric=False)
        return False

    def _callbacks(self, config: Any) -> list[Callback]:
        watchers: list[Callback] = [callbacks.ProgressBar(), callbacks.Console()]
        if self.restored:
            folder = self.restored.run_folder
            return [*watchers, callbacks.TestReport(folder), callbacks.PredictionsFile(folder)]
        # With nothing to validate on there is no best.
        best = {"monitor": "val/acc", "mode": "max", "filename": "best"} if config.data.val_size else {"save_top_k": 0}
        saver = ModelCheckpoint(**best, save_last=True, auto_insert_metric_name=False)  # type: ignore[arg-type]
        return [*watchers, callbacks.EpochSeed(), callbacks.History(), callbacks.TensorBoardExtras(), saver]

    def after_instantiate_classes(self) -> None:
        """Checks that the checkpoint's weights fit, and says what came from where."""
        if self.restored is None:
            return
        check_fits(self.restored, self.model)
        print(f"{self.restored.path}: {type(self.model).__name__} after epoch {self.restored.epoch}; model, data and split as there")


class RunLogger(TensorBoardLogger):
    """TensorBoard without an empty hparams.yaml beside the config.yaml that holds them all."""

    def save(self) -> None:
        """Flushes the event file."""
        self.experiment.flush()


class SaveConfig(SaveConfigCallback):
    """Leaves config.yaml in the folder of a run that trains, and in no other."""

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Saves once, when training starts."""
        if stage == "fit" and trainer.loggers:
            super().setup(trainer, pl_module, stage)


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        args: What was typed after the program's name; None takes it from the process.

    Returns:
        Exit status: 0 done, 1 went wrong while running, 2 for what a person gave.
    """
    given = list(sys.argv[1:] if args is None else args)
    if not given:
        print(HELP)
        return 0
    debug = "--debug" in given
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    try:
        CLI([arg for arg in given if arg != "--debug"])
    except (InputError, ArgumentError) as error:
        return _fail(explain(error), 2, debug)
    except Exception as error:
        return _fail(f"{type(error).__name__}: {error}; --debug shows where", 1, debug)
    return 0


def _fail(message: str, status: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    return status


def _value_of(flag: str, args: Sequence[str]) -> str | None:
    """What follows a flag, or stands behind its equals sign."""
    for i, arg in enumerate(args):
        if arg == flag and i + 1 < len(args):
            return args[i + 1]
        if arg.startswith(f"{flag}="):
            return arg.partition("=")[2]
    return None


def _join_images(args: Sequence[str]) -> list[str]:
    """Makes one list of the pictures behind --data.images, as a shell expands `*.png`."""
    flag = "--data.images"
    if flag not in args:
        return list(args)
    start = args.index(flag) + 1
    stop = next((i for i in range(start, len(args)) if args[i].startswith("-")), len(args))
    return [*args[: start - 1], f"{flag}={json.dumps(args[start:stop])}", *args[stop:]]
