"""The command line: LightningCLI with this project's defaults, and checkpoints that need nothing beside them."""

import json
import logging
import sys
import traceback
import warnings
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from inspect import signature
from itertools import pairwise
from pathlib import Path
from typing import Any

from jsonargparse import set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger

from cifar_lightning import callbacks
from cifar_lightning.checkpoint import NOT_RESTORED, Checkpoint, check_fits, read_checkpoint
from cifar_lightning.data.datamodule import CIFAR10DataModule, data_root, prepare
from cifar_lightning.errors import InputError, check
from cifar_lightning.messages import check_yaml, explain
from cifar_lightning.models import CNN, MLP, ImageClassifier

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
        # A configuration or a checkpoint names classes: only ours and Lightning's are ever imported.
        set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=["cifar_lightning", "lightning.pytorch"])
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
        path = next(iter(_values_of(("--ckpt_path",), given)), None)
        for file in _values_of(("-c", "--config"), given):
            check_yaml(Path(file))
        if command in ("validate", "test", "predict"):
            if path is None:
                raise InputError(
                    "ckpt_path", f"{command} needs a checkpoint", "give --ckpt_path RUN/checkpoints/best.ckpt"
                )
            self.restored = read_checkpoint(Path(path))
            given = ["--config", json.dumps(self.restored.config), *given]
        self.config = parser.parse_args([command, *_join_images(given)])
        seed = self.config[command].seed_everything
        check(0 <= seed < 2**32, "seed_everything", seed, "0 to 4294967295")

    def _parse_ckpt_path(self) -> None:
        """Nothing: Lightning would put the checkpoint's settings over explicit flags, here that is done already."""

    def before_instantiate_classes(self) -> None:
        """Settles what the run's folder and config.yaml must tell truly: its name and where its images are from."""
        config = self.config[self.subcommand]
        if config.data.source == "auto":
            config.data.source, reason = prepare("auto", data_root(config.data.root), config.data.mirrors)
            if reason:
                print(f"{reason}: using the synthetic stand-in instead of CIFAR-10", file=sys.stderr)
        if config.name is None:
            files = [Path(str(file)).stem for file in config.config or []]
            config.name = "-".join(files) or config.model.class_path.rsplit(".", 1)[-1].lower()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Gives the Trainer its run folder and its callbacks."""
        config = self.config_init[self.subcommand]
        if config.trainer.logger in (None, True):
            kwargs["logger"] = self._logger(config)
        kwargs["callbacks"] = [*(config.trainer.callbacks or []), *self._callbacks(config)]
        try:
            return super().instantiate_trainer(**kwargs)
        except (ValueError, TypeError, ImportError, MisconfigurationException) as error:
            raise InputError("trainer", str(error).rstrip("."), "`fit --help` lists what it takes") from error

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Leaves printing and keeping of results to the callbacks."""
        own: dict[str, dict[str, Any]] = {"predict": {"return_predictions": False}, "fit": {}}
        return super()._prepare_subcommand_kwargs(subcommand) | own.get(subcommand, {"verbose": False})

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
        saver = ModelCheckpoint(**best, save_last=True, auto_insert_metric_name=False)
        return [*watchers, callbacks.EpochSeed(), callbacks.History(), callbacks.TensorBoardExtras(), saver]

    def after_instantiate_classes(self) -> None:
        """Checks that the checkpoint's weights fit, and says what came from where."""
        if self.restored is None:
            return
        check_fits(self.restored, self.model)
        name, epoch = type(self.model).__name__, self.restored.epoch
        print(f"{self.restored.path}: {name} after epoch {epoch}; {self._explicit()}")

    def _explicit(self) -> str:
        """Which settings are the checkpoint's, and which were given over it."""
        assert self.restored
        now = self.config[str(self.subcommand)].as_dict()
        model, data = now["model"]["init_args"], now["data"]
        kept = {"model": self.restored.config["model"]["init_args"], "data": self.restored.config["data"]}
        pairs = [(f"model.{k}", v, kept["model"].get(k)) for k, v in model.items()]
        pairs += [(f"data.{k}", v, kept["data"].get(k)) for k, v in data.items() if k not in NOT_RESTORED]
        given = [f"{name} {new} (there: {old})" for name, new, old in pairs if new != old]
        return "model, data and split as there" + (f", but for {', '.join(given)}" if given else "")


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
    be_quiet()
    try:
        cli = CLI([arg for arg in given if arg != "--debug"])
    except Exception as error:
        if debug:
            traceback.print_exc()
        message = explain(error, _settings())
        print(f"error: {message or f'{type(error).__name__}: {error}; --debug shows where'}", file=sys.stderr)
        return 2 if message or isinstance(error, ArgumentError) else 1
    for refused in cli.datamodule.refused:
        print(f"error: {refused}", file=sys.stderr)
    return 1 if cli.datamodule.refused else 0


def be_quiet() -> None:
    """Turns off what Lightning and others say that is no news here."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning's own use of torch.utils._pytree, as of 2.6.6 with torch 2.15.
    warnings.filterwarnings("ignore", ".*isinstance\\(treespec, LeafSpec\\)")
    # Lightning 2.6.6 calls jsonargparse by names that are deprecated since 4.49 and leave in 5 (see the bound on it).
    warnings.filterwarnings("ignore", r"(?s).*(only one JsonargparseDeprecationWarning|was deprecated in v4\.49)")
    # `test` needs none of the callbacks that wrote the checkpoint.
    warnings.filterwarnings("ignore", ".*callbacks used to create the checkpoint")
    # Curves are logged once an epoch, whatever the interval in steps.
    warnings.filterwarnings("ignore", ".*smaller than the logging interval")
    # val_size 0 asks for just that.
    warnings.filterwarnings("ignore", "Total length of `list` across ranks is zero")
    # A batch is one slice of a tensor in memory: workers would only slow it down.
    warnings.filterwarnings("ignore", ".*does not have many workers")


def _settings() -> list[str]:
    """Every setting, dotted as on the command line."""
    groups = {"model": (ImageClassifier, CNN, MLP), "data": (CIFAR10DataModule,), "trainer": (Trainer,)}
    named = [f"{g}.{name}" for g, kinds in groups.items() for kind in kinds for name in signature(kind).parameters]
    return ["model", "model.class_path", "config", "ckpt_path", "seed_everything", "logs", "name", *named]


def _values_of(flags: Sequence[str], args: Sequence[str]) -> Iterator[str]:
    """What follows each use of a flag, or stands behind its equals sign."""
    for arg, following in pairwise([*args, ""]):
        if arg in flags and following and not following.startswith("-"):
            yield following
        elif "=" in arg and arg.partition("=")[0] in flags:
            yield arg.partition("=")[2]


def _join_images(args: Sequence[str]) -> list[str]:
    """Makes one list of the pictures behind --data.images, as a shell expands `*.png`."""
    flag = "--data.images"
    if flag not in args:
        return list(args)
    start = args.index(flag) + 1
    stop = next((i for i in range(start, len(args)) if args[i].startswith("-")), len(args))
    return [*args[: start - 1], f"{flag}={json.dumps(args[start:stop])}", *args[stop:]]
