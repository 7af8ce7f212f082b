"""The command line: LightningCLI with this project's defaults, and checkpoints that need nothing beside them."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from cifar_lightning import callbacks, speed
from cifar_lightning.arguments import join_images, values_of
from cifar_lightning.checkpoint import Checkpoint, check_continues, check_fits, differences, read_checkpoint, run_folder
from cifar_lightning.data.datamodule import CIFAR10DataModule, data_root, prepare
from cifar_lightning.errors import InputError, check
from cifar_lightning.messages import check_yaml
from cifar_lightning.models import ImageClassifier
from cifar_lightning.run import RunLogger, SaveConfig, savers

EVALUATION = ("validate", "test", "predict")


class CLI(LightningCLI):
    """`fit`, `validate`, `test` and `predict`; the last three take everything from the checkpoint."""

    restored: Checkpoint | None = None
    why_precision = ""

    def __init__(self, args: Sequence[str]) -> None:
        # A configuration or a checkpoint names classes: only ours and Lightning's are ever imported.
        set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=["cifar_lightning", "lightning.pytorch"])
        keep_raising = {"exit_on_error": False}
        commands = {name: dict(keep_raising) for name in self.subcommands()}
        super().__init__(
            ImageClassifier,
            CIFAR10DataModule,
            subclass_mode_model=True,
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True},  # a run that goes on, to more epochs say
            args=list(args),
            # Flags for an optimiser would silently replace the model's own.
            auto_configure_optimizers=False,
            # Its way of saving constructor arguments names code to run on loading; ours are plain values.
            load_from_checkpoint_support=False,
            trainer_defaults={"max_epochs": 50, "devices": 1, "num_sanity_val_steps": 0, "enable_model_summary": False},
            parser_kwargs={"prog": "python -m cifar_lightning"} | keep_raising | commands,
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
        command, given = args[0], join_images(args[1:])
        check(
            not command.startswith("-"), "command", command, f"one of {', '.join(self.subcommands())}, before its flags"
        )
        for file in values_of(("-c", "--config"), given):
            check_yaml(Path(file))
        *_, path = [None, *values_of(("--ckpt_path",), given)]
        if path:
            self.restored = read_checkpoint(Path(path))
            given = ["--config", json.dumps(self.restored.config), *given]
        elif command in EVALUATION:
            remedy = "give --ckpt_path RUN/checkpoints/best.ckpt"
            raise InputError("ckpt_path", f"{command} needs a checkpoint", remedy)
        self.config = parser.parse_args([command, *given])
        config = self.config[command]
        if config.ckpt_path != path:
            raise InputError("ckpt_path", f"{config.ckpt_path} stands in a file", "give it as the flag --ckpt_path")
        check(0 <= config.seed_everything < 2**32, "seed_everything", config.seed_everything, "0 to 4294967295")

    def _parse_ckpt_path(self) -> None:
        """Nothing: Lightning would put the checkpoint's settings over explicit flags, here that is done already."""

    def before_instantiate_classes(self) -> None:
        """Settles what the run's folder and config.yaml must tell truly: its name and where its images are from."""
        config = self.config[self.subcommand]
        if Path(config.logs).exists() and not Path(config.logs).is_dir():
            raise InputError("logs", f"{config.logs} is not a folder", "name another with --logs")
        if config.data.source == "auto":
            config.data.source, reason = prepare("auto", data_root(config.data.root), config.data.mirrors)
            if reason:
                print(f"{reason}: using the synthetic stand-in instead of CIFAR-10", file=sys.stderr)
        if config.trainer.precision is None and config.trainer.plugins is None:
            config.trainer.precision, self.why_precision = speed.best_precision(config.trainer.accelerator)
        if self.restored:
            config.name = run_folder(self.restored.path).parent.name.removesuffix("-synthetic")
        elif config.name is None:
            files = [Path(str(file)).stem for file in config.config or []]
            config.name = "-".join(files) or config.model.class_path.rsplit(".", 1)[-1].lower()

    def _check_restored(self, restored: Checkpoint, config: dict[str, Any]) -> None:
        if self.subcommand == "fit":
            return check_continues(restored, config)
        there, now = restored.config["data"]["source"], config["data"]["source"]
        if there != now:
            raise InputError("data.source", f"{now}, but the checkpoint was trained on {there}", "leave it out")
        if self.subcommand == "validate" and not config["data"]["val_size"]:
            raise InputError("data.val_size", "0 leaves nothing to validate on", "give --data.val_size 10000")
        return None

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Gives the Trainer its run folder and its callbacks."""
        config = self.config_init[self.subcommand]
        if config.trainer.logger in (None, True):
            kwargs["logger"] = self._logger(config)
        if config.trainer.profiler is None:
            kwargs["profiler"] = speed.NoProfiler()
        kwargs["callbacks"] = [*(config.trainer.callbacks or []), *self._callbacks(config)]
        # Otherwise Lightning would save to a folder of its own.
        kwargs["enable_checkpointing"] = any(isinstance(callback, ModelCheckpoint) for callback in kwargs["callbacks"])
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (ValueError, TypeError, ImportError, MisconfigurationException) as error:
            raise InputError("trainer", str(error).rstrip("."), "`fit --help` lists what it takes") from error
        check(trainer.world_size == 1, "trainer.devices", trainer.world_size, "1: batches are cut for one device")
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        with speed.still_heap():
            super()._run_subcommand(subcommand)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Leaves printing and keeping of results to the callbacks."""
        own: dict[str, dict[str, Any]] = {"predict": {"return_predictions": False}, "fit": {}}
        return super()._prepare_subcommand_kwargs(subcommand) | own.get(subcommand, {"verbose": False})

    def _logger(self, config: Any) -> TensorBoardLogger | bool:
        if self.subcommand in ("validate", "predict"):
            return False
        if config.ckpt_path:  # a test, or a fit that goes on: in the run's own folder
            return RunLogger(run_folder(Path(config.ckpt_path)), "", "", default_hp_metric=False)
        tag = "-synthetic" if self.datamodule.source == "synthetic" else ""
        return RunLogger(config.logs, f"{config.name}{tag}", default_hp_metric=False)

    def _callbacks(self, config: Any) -> list[Callback]:
        history = callbacks.History()
        watchers: list[Callback] = [history, callbacks.Console(history, self.why_precision)]
        if config.trainer.enable_progress_bar in (None, True):
            watchers.append(callbacks.ProgressBar())
        if self.subcommand in EVALUATION:
            folder = run_folder(Path(config.ckpt_path))
            return [*watchers, callbacks.TestReport(folder), callbacks.PredictionsFile(folder)]
        return [*watchers, callbacks.EpochSeed(), callbacks.TensorBoardExtras(), *savers(config)]

    def after_instantiate_classes(self) -> None:
        """Checks that things fit together, and says what came from where."""
        ones = self.subcommand == "fit" and self.datamodule.batch_size == 1
        if ones and any(isinstance(module, nn.BatchNorm1d) for module in self.model.modules()):
            cause = "1 leaves batch norm nothing to average over"
            raise InputError("data.batch_size", cause, "use 2 or more, or --model.batch_norm false")
        if self.restored is None:
            return
        config = self.config[str(self.subcommand)].as_dict()
        check_fits(self.restored, self.model)
        self._check_restored(self.restored, config)
        changed = differences(self.restored, config)
        given = [f"{name} {now} (there: {there})" for name, (there, now) in changed.items()]
        origin = "model and data as there" + (f", but for {', '.join(given)}" if given else "")
        print(f"{self.restored.path}: {type(self.model).__name__} after epoch {self.restored.epochs}; {origin}")
