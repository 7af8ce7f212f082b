"""The LightningCLI of this project: its defaults, and checkpoints that need nothing beside them."""

import contextlib
import pydoc
import shutil
from collections.abc import Sequence
from functools import partialmethod
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import set_parsing_settings
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.callbacks import Checkpoint as CheckpointCallback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from cifar_lightning import callbacks
from cifar_lightning.cli import starting_point
from cifar_lightning.cli.config_files import flat, load_yaml
from cifar_lightning.cli.error_messages import check_nulls, explain, naming_settings_of, naming_what_failed
from cifar_lightning.data.datamodule import CIFAR10DataModule, Source, data_root, resolve_source
from cifar_lightning.data.loader import steps_per_epoch
from cifar_lightning.errors import InputError, check
from cifar_lightning.models import ImageClassifier
from cifar_lightning.models.base import check_batch_norm
from cifar_lightning.runs.checkpoint import REMEDY, Checkpoint, DurableCheckpoints, architecture
from cifar_lightning.runs.layout import RunFolder, tagged
from cifar_lightning.runs.logger import RunLogger
from cifar_lightning.runs.recovery import purge_step, repair
from cifar_lightning.utils import files, performance


def accelerators() -> list[str]:
    """Return what `trainer.accelerator` can be on this machine."""
    known = AcceleratorRegistry.available_accelerators()
    here = sorted(name for name in known if AcceleratorRegistry[name]["accelerator"].is_available())
    return ["auto", *here, *(["gpu"] if {"cuda", "mps"} & set(here) else [])]


class SaveConfig(SaveConfigCallback):
    """Leaves config.yaml, whole or not at all, in the folder of a run that trains, and in no other."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.loggers and trainer.log_dir:
            text: str = self.parser.dump(self.config, skip_unset=False)
            files.replace(RunFolder(Path(trainer.log_dir)).config, text.encode())


class CLI(LightningCLI):
    """`fit`, `validate`, `test` and `predict`; the last three take everything from the checkpoint."""

    start: starting_point.StartingPoint | None = None
    restored: Checkpoint | None = None  # the checkpoint of that
    settings_from: Path | None = None  # the checkpoint, where the person gave no settings that could be wrong
    source: Source | None = None
    why_precision = ""
    given: Sequence[str] = ()  # what was typed

    def __init__(self, args: Sequence[str]) -> None:
        # A person may name any class of their own; jsonargparse's list of what runs code by itself is enforced.
        set_parsing_settings(import_path_denylist=[])
        strict: dict[str, Any] = {"exit_on_error": False, "allow_abbrev": False}
        super().__init__(
            ImageClassifier,
            CIFAR10DataModule,
            subclass_mode_model=True,
            save_config_callback=SaveConfig,
            save_config_kwargs={"save_to_log_dir": False},  # which would refuse to overwrite: a run that resumes
            args=list(args),
            auto_configure_optimizers=False,  # flags for an optimizer would silently replace the model's own
            load_from_checkpoint_support=False,  # its way of saving arguments names code to run on loading
            trainer_defaults={"max_epochs": 50, "devices": 1, "num_sanity_val_steps": 0, "enable_model_summary": False},
            parser_kwargs={"prog": "python -m cifar_lightning", **strict, **dict.fromkeys(self.subcommands(), strict)},
        )

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--seed_everything", type=int, default=0, help="Seed of weights, order, masks; 0 or more.")
        parser.add_argument("--logs", type=str, default="logs", help="Folder of all runs.")
        help_name = "The run goes to LOGS/NAME/version_N; null: the configuration files' names, and flags that depart."
        parser.add_argument("--name", type=str | None, default=None, help=help_name)
        help_resume = "Folder of a run that `fit` resumes, from its newest whole checkpoint; needs no config."
        parser.add_argument("--resume", type=str | None, default=None, help=help_resume)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("seed_everything", "data.seed")

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return Lightning's, minus the arguments that this program decides."""
        decided = {"weights_only", "verbose", "return_predictions"}
        return {name: skipped | decided for name, skipped in LightningCLI.subcommands().items()}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Put the checkpoint's configuration before what was given, so that what was given wins."""
        command, commands = args[0], [*self.subcommands(), "benchmark", "study", "report"]
        check(command in self.subcommands(), "command", command, f"one of {', '.join(commands)}, before its flags")
        given, rest = starting_point.read_arguments(args[1:])
        self.given = rest
        for file in given.config:
            if "experiments" in load_yaml(Path(file)):  # which raises what is wrong with it, by line
                raise InputError(file, "is the configuration of a study", f"use it for that: study --config {file}")
        last = given.ckpt_path == "last" and command == "fit"
        runs = self._runs(parser.parse_args([command, *rest])[command]) if last else None
        if not {"-h", "--help"} & set(rest):
            self.start = starting_point.find(command, given, runs)
        self.restored = self.start.checkpoint if self.start else None
        self.settings_from = self.restored.path if self.restored and not rest else None
        with naming_settings_of(self.settings_from):
            self.config = parser.parse_args([command, *(self.start.arguments if self.start else []), *rest])
        config = self.config[command]
        for name in ("ckpt_path", "resume"):  # their flags were taken out above
            if config[name] is not None:
                raise InputError(name, f"{config[name]} stands in a file", f"give it as the flag --{name}")
        check(0 <= config.seed_everything < 2**32, "seed_everything", config.seed_everything, "0 to 4294967295")
        model = pydoc.locate(config.model.class_path)
        assert isinstance(model, type)  # the parser has seen to that
        check(model is not ImageClassifier, "model", model.__name__, "CNN or MLP, or the import path of your own")
        check_nulls("model", model, config.model.get("init_args", {}))
        check_nulls("data", CIFAR10DataModule, config.data)

    def _runs(self, config: Any) -> Path:
        """Resolve what names a run, and return the folder of all runs of that name."""
        data = config.data
        data.source = self.source = self.source or resolve_source(data.source, data_root(data.root), data.mirrors)
        check(config.name != "", "name", config.name, "a name, or leave --name out")
        there = self.start.run.path.resolve().parent.name.removesuffix("-synthetic") if self.start else ""
        files = [Path(str(file)) for file in config.config or []]
        if not (config.name or there):
            stems = starting_point.stems(config.model.class_path, files)
            there = "-".join([*stems, *starting_point.departures(self.given, config.as_dict(), files)])
        config.name = config.name or there
        return Path(config.logs) / tagged(config.name, self.source)

    def before_instantiate_classes(self) -> None:
        """Resolve what config.yaml must tell truly: the run's name, where its images are from, its precision."""
        config = self.config[self.subcommand]
        self.runs = self._runs(config)
        if self.start is None:
            starting_point.check_logs(self.runs)
            for name in starting_point.left_out(config.as_dict(), [Path(str(file)) for file in config.config or []]):
                print(f"{name} is left out: {config.model.class_path.rpartition('.')[2]} has no such setting")
        trainer, fits = config.trainer, self.subcommand == "fit"
        if trainer.callbacks and not isinstance(trainer.callbacks, list):  # a file may hold one alone
            trainer.callbacks = [trainer.callbacks]
        new, resumes = fits and self.restored is None, fits and self.start is not None
        usable = accelerators() if isinstance(trainer.accelerator, str) else [trainer.accelerator]
        for name, holds, allowed in (
            ("accelerator", trainer.accelerator in usable, " or ".join(usable)),
            ("num_nodes", trainer.num_nodes == 1, "1: a run is on one machine"),
            ("check_val_every_n_epoch", trainer.check_val_every_n_epoch != 0, "1 or more"),
            ("val_check_interval", trainer.val_check_interval != 0, "more: 0 is no interval"),
            ("gradient_clip_val", (trainer.gradient_clip_val or 0) >= 0, "0 or more, or null"),
            ("accumulate_grad_batches", trainer.accumulate_grad_batches >= 1, "1 or more"),
            ("max_epochs", not (new and trainer.max_epochs == 0), "1 or more: 0 trains nothing"),
            ("max_steps", not (new and trainer.max_steps == 0), "1 or more: 0 trains nothing"),
            ("limit_train_batches", not (new and trainer.limit_train_batches == 0), "more: 0 trains nothing"),
            ("fast_dev_run", not (resumes and trainer.fast_dev_run), "false: this run resumes"),
            ("logger", not resumes or trainer.logger in (None, True, False), "the default: this run resumes"),
        ):
            check(holds, f"trainer.{name}", trainer[name], allowed)
        if trainer.precision is None and trainer.plugins is None:
            trainer.precision, self.why_precision = performance.best_precision(trainer.accelerator)

    def instantiate_classes(self) -> None:
        with naming_settings_of(self.settings_from):
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Give the Trainer its run folder, its callbacks and its way to write checkpoints."""
        config, run = self.config_init[self.subcommand], self.start.run if self.start else None
        if config.trainer.logger in (None, True):
            # TensorBoard purges at the second session start that it reads in a run, so the first must be there, too.
            purge = 0 if run is None else purge_step(run, self.restored) if self.subcommand == "fit" else None
            logger = RunLogger(run.path.parent if run else self.runs, run.path if run else None, purge)
            kwargs["logger"] = self.subcommand in ("fit", "test") and logger
        if self.subcommand == "fit":
            ours = callbacks.training(config.trainer, self.why_precision)
        else:
            assert run, "what evaluates has a checkpoint"
            assert self.restored
            ours = callbacks.evaluation(config.trainer, run.path, self.restored.epochs)
        kwargs["callbacks"] = [*(config.trainer.callbacks or []), *ours]
        # Otherwise Lightning would save to a folder of its own.
        kwargs["enable_checkpointing"] = any(isinstance(each, CheckpointCallback) for each in kwargs["callbacks"])
        plugins = config.trainer.plugins or []
        kwargs["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), DurableCheckpoints()]
        trainer = super().instantiate_trainer(**kwargs)
        check(trainer.world_size == 1, "trainer.devices", trainer.world_size, "1: batches are cut for one device")
        return trainer

    def after_instantiate_classes(self) -> None:
        """Check that things fit together, and print what comes from the checkpoint."""
        if self.subcommand == "fit":
            check_batch_norm(self.model, self.datamodule.batch_size)
        if self.start is None or self.restored is None:
            return
        now = flat(yaml.safe_load(self.parser.dump(self.config, skip_unset=False))[str(self.subcommand)])
        now["model.class_path"] = architecture(self.model)  # a person may have written CNN
        changed = self.start.check(now, fits=self.subcommand == "fit")
        if {name: tensor.shape for name, tensor in self.model.state_dict().items()} != self.restored.shapes:
            raise InputError(str(self.restored.path), "its weights are not those of its model", REMEDY)
        if self.subcommand == "fit":
            self.start.check_epochs(now)
        if self.subcommand == "validate" and not now["data.val_size"]:
            raise InputError("data.val_size", "0 leaves nothing to validate on", "give --data.val_size 10000")
        others = ", ".join(f"{name} {value} (there: {there})" for name, (there, value) in changed.items())
        where = "model and data as there" + (f", but for {others}" if others else "")
        midway = f" and {self.restored.midway} steps" if self.restored.midway else ""
        print(f"{self.restored.path}: {type(self.model).__name__} after epoch {self.restored.epochs}{midway}; {where}")

    def fit(self, **given: Any) -> None:
        """Train, in a folder that no other process trains in, repaired first if the run resumes."""
        logger = self.trainer.logger
        if not isinstance(logger, RunLogger):
            return self._run("fit", **given)
        self.datamodule.prepare_data()  # before there is a folder: without data there is no run
        folder = Path(logger.log_dir)
        try:
            with files.locked(folder):
                if self.start:
                    done = self.restored is not None and self.restored.is_done(self.trainer.max_epochs)
                    if not done:
                        logger.save()  # to disk: that points of it are stale must be known after the repair, too
                    given["ckpt_path"] = repair(self.start.run, self.restored)
                    if done:
                        return print(f"{folder}: all epochs are done; for more give a larger --trainer.max_epochs")
                return self._run("fit", **given)
        except BlockingIOError:
            raise InputError(str(folder), "another process is training here", "wait for it, or stop it") from None
        except Exception as error:
            refused = explain(error)[1] == InputError.status
            if refused and self.start is None and not self.trainer.global_step:  # before it has trained a step
                shutil.rmtree(folder, ignore_errors=True)
                with contextlib.suppress(OSError):  # there are other runs
                    folder.parent.rmdir()
            raise

    def _run(self, command: str, ckpt_path: Path | None = None, **given: Any) -> None:
        path = ckpt_path or (self.restored.path if self.restored else None)
        with performance.still_heap(), naming_what_failed(self.trainer, path):
            getattr(self.trainer, command)(ckpt_path=path, **given)

    validate = partialmethod(_run, "validate", verbose=False)
    test = partialmethod(_run, "test", verbose=False)
    predict = partialmethod(_run, "predict", return_predictions=False)


class DryRun(CLI):
    """Everything that `fit` would run with, made by the same code, and not run; how much it trains on in an epoch."""

    def fit(self, **_: Any) -> None:
        """Note what there would be to do, and do nothing of it."""
        data, self.device = self.datamodule, self.trainer.strategy.root_device
        images: int = data.train_size or 50_000 - data.val_size
        self.steps_per_epoch = steps_per_epoch(images, data.batch_size, self.trainer.limit_train_batches)
        self.images_per_epoch: int = min(images, self.steps_per_epoch * data.batch_size)

    def load(self) -> None:
        """Read the images, and move the model to its device."""
        self.trainer.training = True
        self.datamodule.trainer = self.trainer  # it augments only what a Trainer trains on
        self.datamodule.prepare_data()
        self.datamodule.setup("fit")
        self.place()

    def place(self) -> None:
        self.trainer.precision_plugin.convert_module(self.model.to(self.device))
        self.model.trainer = self.trainer  # tells `setup` the device
        self.model.setup("fit")
