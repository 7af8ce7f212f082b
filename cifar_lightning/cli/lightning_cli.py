"""The LightningCLI of this project: its defaults, and checkpoints that need nothing beside them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint as CheckpointCallback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from cifar_lightning import callbacks
from cifar_lightning.cli import blame, starting_point, validation
from cifar_lightning.cli.config_files import check_yaml
from cifar_lightning.data.datamodule import CIFAR10DataModule, Source, data_root, resolve_source
from cifar_lightning.errors import InputError, check
from cifar_lightning.models import ImageClassifier
from cifar_lightning.models.base import check_batch_norm
from cifar_lightning.runs.checkpoint import Checkpoint
from cifar_lightning.runs.checkpoint_io import DurableCheckpoints
from cifar_lightning.runs.layout import RunFolder, tagged
from cifar_lightning.runs.logger import RunLogger
from cifar_lightning.runs.recovery import purge_step, repair
from cifar_lightning.utils import files, performance


class SaveConfig(SaveConfigCallback):
    """Leaves config.yaml in the folder of a run that trains, and in no other."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write it when training starts, whole or not at all."""
        if stage == "fit" and trainer.loggers and trainer.log_dir:
            text: str = self.parser.dump(self.config, skip_unset=False)
            files.replace(RunFolder(Path(trainer.log_dir)).config, text.encode())


class CLI(LightningCLI):
    """`fit`, `validate`, `test` and `predict`; the last three take everything from the checkpoint."""

    start: starting_point.StartingPoint | None = None
    blamed: Path | None = None  # for wrong settings: the checkpoint, where the person gave none
    source: Source | None = None
    why_precision = ""

    def __init__(self, args: Sequence[str]) -> None:
        # A person may name any class of their own; jsonargparse's list of what runs code by itself is enforced.
        set_parsing_settings(import_path_denylist=[])
        keep_raising = {"exit_on_error": False}
        super().__init__(
            ImageClassifier,
            CIFAR10DataModule,
            subclass_mode_model=True,
            save_config_callback=SaveConfig,
            save_config_kwargs={"save_to_log_dir": False},  # which would refuse to overwrite: a run that resumes
            args=list(args),
            # Flags for an optimizer would silently replace the model's own.
            auto_configure_optimizers=False,
            # Its way of saving constructor arguments names code to run on loading; ours are plain values.
            load_from_checkpoint_support=False,
            trainer_defaults={"max_epochs": 50, "devices": 1, "num_sanity_val_steps": 0, "enable_model_summary": False},
            parser_kwargs={
                "prog": "python -m cifar_lightning",
                **keep_raising,
                **{name: dict(keep_raising) for name in self.subcommands()},
            },
        )

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the seed and the run's folder."""
        parser.add_argument("--seed_everything", type=int, default=0, help="Seed of weights, order, masks; 0 or more.")
        parser.add_argument("--logs", type=str, default="logs", help="Folder of all runs.")
        help_name = "The run goes to LOGS/NAME/version_N; null is the name of the configuration file."
        parser.add_argument("--name", type=str | None, default=None, help=help_name)
        help_resume = "Folder of a run that `fit` resumes, from its newest whole checkpoint; needs no config."
        parser.add_argument("--resume", type=str | None, default=None, help=help_resume)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link one seed to everything."""
        parser.link_arguments("seed_everything", "data.seed")

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return Lightning's, minus the arguments that this program decides."""
        decided = {"weights_only", "verbose", "return_predictions"}
        return {name: skipped | decided for name, skipped in LightningCLI.subcommands().items()}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Put the checkpoint's configuration before what was given, so that what was given wins."""
        command = args[0]
        commands = ", ".join(self.subcommands())
        check(not command.startswith("-"), "command", command, f"one of {commands}, before its flags")
        if command not in self.subcommands():
            raise InputError(command, "no such command", f"use one of {commands}, benchmark, study, report")
        given, rest = starting_point.read_arguments(args[1:])
        for file in given.config:
            check_yaml(Path(file))
        if not {"-h", "--help"} & set(rest):
            self.start = starting_point.find(command, given, lambda: self._last_run(parser, rest))
        self.blamed = self.restored.path if self.restored and not rest else None
        with blame.settings_of(self.blamed):
            self.config = parser.parse_args([command, *(self.start.settings if self.start else []), *rest])
        config = self.config[command]
        for name in ("ckpt_path", "resume"):  # their flags were taken out above
            if config[name] is not None:
                raise InputError(name, f"{config[name]} stands in a file", f"give it as the flag --{name}")
        check(0 <= config.seed_everything < 2**32, "seed_everything", config.seed_everything, "0 to 4294967295")

    @property
    def restored(self) -> Checkpoint | None:
        """The checkpoint that the command starts from."""
        return self.start.checkpoint if self.start else None

    def _last_run(self, parser: LightningArgumentParser, args: Sequence[str]) -> RunFolder | None:
        config = parser.parse_args(["fit", *args])["fit"]
        return starting_point.last_run(self._runs(config))

    def _runs(self, config: Any) -> Path:
        """Resolve what names a run, and return the folder of all runs of that name."""
        if self.source is None:
            self.source = resolve_source(config.data.source, data_root(config.data.root), config.data.mirrors)
        config.data.source = self.source
        check(config.name != "", "name", config.name, "a name, or leave --name out")
        if config.name is None and self.start:
            config.name = self.start.run.path.resolve().parent.name.removesuffix("-synthetic")
        elif config.name is None:
            stems = [Path(str(file)).stem for file in config.config or []]
            config.name = "-".join(stems) or config.model.class_path.rsplit(".", 1)[-1].lower()
        return Path(config.logs) / tagged(config.name, self.source)

    def before_instantiate_classes(self) -> None:
        """Resolve what config.yaml must tell truly: the run's name, where its images are from, its precision."""
        config = self.config[self.subcommand]
        runs = self._runs(config)
        if self.start is None:
            validation.check_logs(runs)
        validation.check_trainer(config.trainer, resumes=bool(self.start and self.subcommand == "fit"))
        if config.trainer.precision is None and config.trainer.plugins is None:
            config.trainer.precision, self.why_precision = performance.best_precision(config.trainer.accelerator)

    def instantiate_classes(self) -> None:
        """Make Trainer, model and data."""
        with blame.settings_of(self.blamed):
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Give the Trainer its run folder, its callbacks and its way to write checkpoints."""
        config = self.config_init[self.subcommand]
        if config.trainer.logger in (None, True):
            kwargs["logger"] = self.subcommand in ("fit", "test") and self._logger(config)
        if self.subcommand == "fit":
            ours = callbacks.training(config.trainer, self.why_precision)
        else:
            assert self.start is not None, "what evaluates has a checkpoint"
            ours = callbacks.evaluation(config.trainer, self.start.run.path)
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

    def _logger(self, config: Any) -> RunLogger:
        if self.start is None:
            # TensorBoard purges at the second session start that it reads in a run, so the first must be there, too.
            return RunLogger(config.logs, tagged(config.name, config.data.source), purge_step=0)
        run = self.start.run
        purge = purge_step(run, self.restored) if self.subcommand == "fit" else None
        # ModelCheckpoint puts its files into SAVE_DIR/NAME/VERSION.
        return RunLogger(str(run.path.parent), "", run=run.path, purge_step=purge)

    def after_instantiate_classes(self) -> None:
        """Check that things fit together, and print what comes from the checkpoint."""
        if self.subcommand == "fit":
            check_batch_norm(self.model, self.datamodule.batch_size)
        if self.start is None or self.restored is None:
            return
        config = self.config[str(self.subcommand)].as_dict()
        validation.check_fits(self.restored, self.model)
        changed = validation.changes(self.restored, config)
        if self.subcommand == "fit":
            validation.check_resumes(self.restored, config, may_be_done=self.start.may_be_done)
            dumped = yaml.safe_load(self.parser.dump(self.config, skip_unset=False))["fit"]
            changed |= validation.trainer_changes(self.start.run, dumped["trainer"])
        else:
            validation.check_evaluates(self.restored, str(self.subcommand), config)
        given = ", ".join(f"{name} {now} (there: {was})" for name, (was, now) in changed.items())
        where = "model and data as there" + (f", but for {given}" if given else "")
        print(f"{self.restored.path}: {type(self.model).__name__} {self.restored.progress}; {where}")

    def fit(self, **_: Any) -> None:
        """Train, in a folder that no other process trains in, repaired first if the run resumes."""
        logger = self.trainer.logger
        if not isinstance(logger, RunLogger):
            return self._run(self.trainer.fit)
        self.datamodule.prepare_data()  # before there is a folder: without data there is no run
        with blame.locked_run(Path(logger.log_dir), self.trainer, new=self.start is None):
            if self.start is None:
                return self._run(self.trainer.fit)
            if self.restored and self.restored.is_done(self.trainer.max_epochs):
                repair(self.start.run, self.restored)
                return print(f"{logger.log_dir}: all epochs are done; for more give a larger --trainer.max_epochs")
            # To disk: that points of the event files are stale must be known after the repair, too.
            logger.save()
            return self._run(self.trainer.fit, repair(self.start.run, self.restored))

    def validate(self, **_: Any) -> None:
        """Measure loss and accuracy on the validation set."""
        self._run(self.trainer.validate, verbose=False)

    def test(self, **_: Any) -> None:
        """Measure loss and accuracy on the test set."""
        self._run(self.trainer.test, verbose=False)

    def predict(self, **_: Any) -> None:
        """Classify images."""
        self._run(self.trainer.predict, return_predictions=False)

    def _run(self, command: Callable[..., object], checkpoint: Path | None = None, **more: Any) -> None:
        path = checkpoint or (self.restored.path if self.restored else None)
        with performance.still_heap(), blame.running(self.trainer, path):
            command(self.model, datamodule=self.datamodule, ckpt_path=path, **more)
