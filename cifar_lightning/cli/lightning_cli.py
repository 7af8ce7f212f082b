"""The command line: LightningCLI with this project's defaults, and checkpoints that need nothing beside them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint as CheckpointCallback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from cifar_lightning.cli import guards, run_parts
from cifar_lightning.cli import starting_point as resume
from cifar_lightning.cli.argv import check_values, join_images, last_value, values_of, without
from cifar_lightning.cli.config_files import check_yaml
from cifar_lightning.cli.starting_point import Origin
from cifar_lightning.cli.validation import check_continues, check_evaluates, check_fits, check_goes_on, differences
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.data.source import Source, data_root, settle
from cifar_lightning.errors import InputError, check
from cifar_lightning.models import ImageClassifier
from cifar_lightning.models.base import check_batch_norm
from cifar_lightning.runs.checkpoint import Checkpoint
from cifar_lightning.runs.checkpoint_io import DurableCheckpoints
from cifar_lightning.runs.logger import RunLogger
from cifar_lightning.runs.recovery import repair
from cifar_lightning.utils import performance as speed


class CLI(LightningCLI):
    """`fit`, `validate`, `test` and `predict`; the last three take everything from the checkpoint."""

    origin: Origin | None = None
    blamed: Path | None = None  # for wrong settings: the checkpoint, where no others were given
    source: Source | None = None
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
            save_config_callback=run_parts.SaveConfig,
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
        help_resume = "Folder of a run that `fit` goes on with, from its newest whole checkpoint; needs no config."
        parser.add_argument("--resume", type=str | None, default=None, help=help_resume)

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
        allowed = f"one of {', '.join(self.subcommands())}, before its flags"
        check(not command.startswith("-"), "command", command, allowed)
        check_values(given)
        for file in values_of(("-c", "--config"), given):
            check_yaml(Path(file))
        self.origin = resume.find(command, given, lambda words: self._last_run(parser, words))
        settings = any(word.startswith(("--model", "--data", "--trainer", "--config", "-c")) for word in given)
        self.blamed = self.restored.path if self.restored and not settings else None
        if self.origin:
            given = [*self.origin.settings, *without("--ckpt_path", given)]
        with guards.blaming_the_checkpoint(self.blamed):
            self.config = parser.parse_args([command, *given])
        config = self.config[command]
        for name in ("ckpt_path", "resume"):
            if config[name] != last_value(f"--{name}", given):
                raise InputError(name, f"{config[name]} stands in a file", f"give it as the flag --{name}")
        config.ckpt_path = str(self.restored.path) if self.restored else None
        check(0 <= config.seed_everything < 2**32, "seed_everything", config.seed_everything, "0 to 4294967295")

    def instantiate_classes(self) -> None:
        """Makes Trainer, model and data."""
        with guards.blaming_the_checkpoint(self.blamed):
            super().instantiate_classes()

    @property
    def restored(self) -> Checkpoint | None:
        """What the command starts from."""
        return self.origin.checkpoint if self.origin else None

    def _last_run(self, parser: LightningArgumentParser, given: Sequence[str]) -> Path | None:
        """The newest run of the name that was given."""
        config = parser.parse_args(["fit", *given])["fit"]
        self._settle(config)
        return resume.last_run(Path(config.logs) / run_parts.tagged_name(config))

    def _parse_ckpt_path(self) -> None:
        """Nothing: Lightning would put the checkpoint's settings over explicit flags, here that is done already."""

    def before_instantiate_classes(self) -> None:
        """Settles what the run's folder and config.yaml must tell truly: its name and where its images are from."""
        config = self.config[self.subcommand]
        steps = config.trainer.accumulate_grad_batches
        check(steps >= 1, "trainer.accumulate_grad_batches", steps, "1 or more")
        self._settle(config)
        if self.origin and self.subcommand == "fit":
            check_goes_on(config)
        if self.origin is None:
            guards.check_logs(Path(config.logs) / run_parts.tagged_name(config))
        if config.trainer.precision is None and config.trainer.plugins is None:
            config.trainer.precision, self.why_precision = speed.best_precision(config.trainer.accelerator)

    def _settle(self, config: Any) -> None:
        """Puts the real thing where `auto` and null stood: the source of images, the name of the run."""
        if self.source is None:
            self.source = settle(config.data.source, data_root(config.data.root), config.data.mirrors)
        config.data.source = self.source
        if self.origin and config.name is None:
            config.name = self.origin.run.resolve().parent.name.removesuffix("-synthetic")
        elif config.name == "":
            raise InputError("name", "it is empty", "name the run, or leave --name out")
        elif config.name is None:
            stems = [Path(str(file)).stem for file in config.config or []]
            config.name = "-".join(stems) or config.model.class_path.rsplit(".", 1)[-1].lower()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Gives the Trainer its run folder, its callbacks and its way to write checkpoints."""
        config, folder = self.config_init[self.subcommand], self.origin.run if self.origin else None
        if config.trainer.logger in (None, True):
            kwargs["logger"] = run_parts.logger(config, str(self.subcommand), folder)
        ours = (
            run_parts.evaluators(config, folder)
            if self.subcommand != "fit"
            else run_parts.watchers(config, self.why_precision)
        )
        kwargs["callbacks"] = [*(config.trainer.callbacks or []), *ours]
        # Otherwise Lightning would save to a folder of its own.
        kwargs["enable_checkpointing"] = any(isinstance(each, CheckpointCallback) for each in kwargs["callbacks"])
        plugins = config.trainer.plugins or []
        kwargs["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), DurableCheckpoints()]
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (ValueError, TypeError, ImportError, MisconfigurationException) as error:
            raise InputError("trainer", str(error).rstrip("."), "`fit --help` lists what it takes") from error
        check(trainer.world_size == 1, "trainer.devices", trainer.world_size, "1: batches are cut for one device")
        return trainer

    def after_instantiate_classes(self) -> None:
        """Checks that things fit together, and says what came from where."""
        if self.subcommand == "fit":
            check_batch_norm(self.model, self.datamodule.batch_size)
        if self.origin is None or self.restored is None:
            return
        config = self.config[str(self.subcommand)].as_dict()
        check_fits(self.restored, self.model)
        given = [f"{name} {now} (there: {was})" for name, (was, now) in differences(self.restored, config).items()]
        if self.subcommand == "fit":
            check_continues(self.restored, config, again=self.origin.again)
            dumped = self._parser("fit").dump(self.config["fit"], skip_unset=False)
            given += resume.changed_trainer(self.origin.run, dumped)
        else:
            check_evaluates(self.restored, str(self.subcommand), config)
        where = "model and data as there" + (f", but for {', '.join(given)}" if given else "")
        print(f"{self.restored.path}: {type(self.model).__name__} {self.restored.progress}; {where}")

    def _run_subcommand(self, subcommand: str) -> None:
        """Trains in a folder that no other process trains in, put right first if a run goes on there."""
        if subcommand != "fit" or not isinstance(self.trainer.logger, RunLogger):
            return self._run_it(subcommand)
        self.datamodule.prepare_data()  # before there is a folder: without data there is no run
        with guards.own(self.trainer, new=self.origin is None) as folder:
            if self.origin:
                self.config_init["fit"].ckpt_path = repair(self.origin.run, self.restored)
            if self.restored and self.restored.is_done(self.trainer.max_epochs):
                return print(f"{folder}: all epochs are done; for more give a larger --trainer.max_epochs")
            return self._run_it(subcommand)

    def _run_it(self, subcommand: str) -> None:
        path = self.restored.path if self.restored else None
        with speed.still_heap(), guards.naming_the_batch_size(self.trainer), guards.blaming_the_input(path):
            super()._run_subcommand(subcommand)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Leaves printing and keeping of results to the callbacks."""
        own: dict[str, dict[str, Any]] = {"predict": {"return_predictions": False}, "fit": {}}
        return super()._prepare_subcommand_kwargs(subcommand) | own.get(subcommand, {"verbose": False})
