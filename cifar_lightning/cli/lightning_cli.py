"""The LightningCLI of this project: its defaults, and checkpoints that need nothing beside them."""

import pydoc
from argparse import Namespace
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partialmethod
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import yaml
from jsonargparse import set_parsing_settings
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint as CheckpointCallback
from lightning.pytorch.callbacks import OnExceptionCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.plugins.precision import Precision

from cifar_lightning import callbacks
from cifar_lightning.cli import lr_search, starting_point
from cifar_lightning.cli.config_files import flat, left_out, listed, load_yaml, warn_of_replaced
from cifar_lightning.cli.error_messages import check_nulls, naming_settings_of, naming_what_failed
from cifar_lightning.cli.launch import Processes, by_torchrun, end_at_sigterm
from cifar_lightning.cli.run_folder import check_logs, hold_folder
from cifar_lightning.cli.run_name import departures, stems
from cifar_lightning.cli.trainer_settings import check_processes, check_trainer
from cifar_lightning.data.datamodule import CIFAR10DataModule, Source, data_root, resolve_source
from cifar_lightning.errors import InputError, Interrupted, causes, check
from cifar_lightning.models import ImageClassifier
from cifar_lightning.models.base import check_batch_norm, check_resolutions
from cifar_lightning.runs import slurm
from cifar_lightning.runs.checkpoint import REMEDY, Checkpoint, DurableCheckpoints, architecture
from cifar_lightning.runs.layout import RunFolder, tagged
from cifar_lightning.runs.tensorboard_logger import RunLogger
from cifar_lightning.utils import files, performance
from cifar_lightning.utils.precision import SHORT, best_precision


class SaveConfig(SaveConfigCallback):
    """Leaves config.yaml, whole or not at all, in the folder of a run that trains, and in no other."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        logger = trainer.logger  # not `trainer.log_dir`, for which rank zero would wait here for the others
        if stage == "fit" and isinstance(logger, RunLogger):
            text: str = self.parser.dump(self.config, skip_unset=False)
            files.replace(RunFolder(Path(logger.log_dir)).config, text.encode())


class CLI(LightningCLI):
    """`fit`, `validate`, `test` and `predict`; the last three take everything from the checkpoint."""

    start: starting_point.StartingPoint | None = None
    restored: Checkpoint | None = None  # the checkpoint of that
    settings_from: Path | None = None  # the checkpoint, where the person gave no settings that could be wrong
    source: Source | None = None
    finder: lr_search.Options | None = None  # of a search for the learning rate
    why_precision = ""
    given: Sequence[str] = ()  # what was typed
    resumes_job = True  # whether the same command in a requeued SLURM job goes on with its run
    datamodule_kind = CIFAR10DataModule
    requeues = False  # whether that job is to be requeued when it is told that its time is over

    def __init__(self, args: Sequence[str], processes: Processes | None = None) -> None:
        self.processes = processes
        # A person may name any class of their own; jsonargparse's list of what runs code by itself is enforced.
        set_parsing_settings(import_path_denylist=[])
        strict: dict[str, Any] = {"exit_on_error": False, "allow_abbrev": False}
        self.checkpoint_io = DurableCheckpoints()
        super().__init__(
            ImageClassifier,
            self.datamodule_kind,
            subclass_mode_model=True,
            save_config_callback=SaveConfig,
            save_config_kwargs={"save_to_log_dir": False},  # which would refuse to overwrite: a run that resumes
            args=list(args),
            auto_configure_optimizers=False,  # flags for an optimizer would silently replace the model's own
            load_from_checkpoint_support=False,  # its way of saving arguments names code to run on loading
            trainer_defaults={
                **{"max_epochs": 50, "devices": 1, "num_sanity_val_steps": 0, "enable_model_summary": False},
                "use_distributed_sampler": False,  # it would give some images twice
                **by_torchrun(),
            },
            parser_kwargs={
                **{"prog": "python -m cifar_lightning", **strict},
                **{name: {**strict, "predicts": name == "predict"} for name in self.subcommands()},
            },
        )

    def init_parser(self, *, predicts: bool = False, **kwargs: Any) -> LightningArgumentParser:
        """Make a command's parser; `predict` has flags of its own."""
        parser = super().init_parser(**kwargs)
        if predicts:
            parser.add_argument("--probabilities", action="store_true", help="Write those of all classes.")
            help_output = "CSV file to write; null: predictions.csv in the run's folder."
            parser.add_argument("--output", type=str | None, default=None, help=help_output)
            parser.add_argument("--force", action="store_true", help="Replace the file of --output if it is there.")
        return parser

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--seed_everything", type=int, default=0, help="Seed of weights, order, masks; 0 or more.")
        parser.add_argument("--logs", type=str, default="logs", help="Folder of all runs.")
        help_name = "The run goes to LOGS/NAME/version_N; null: the configuration files' names, and flags that depart."
        parser.add_argument("--name", type=str | None, default=None, help=help_name)
        help_resume = "Folder of a run that `fit` resumes, from its newest whole checkpoint; needs no config."
        parser.add_argument("--resume", type=str | None, default=None, help=help_resume)
        help_init = "Checkpoint or run folder whose weights a new run of `fit` starts from."
        parser.add_argument("--init_from", type=str | None, default=None, help=help_init)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("seed_everything", "data.seed")

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return Lightning's, minus the arguments that this program decides."""
        decided = {"weights_only", "verbose", "return_predictions"}
        return {name: skipped | decided for name, skipped in LightningCLI.subcommands().items()}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Put the checkpoint's configuration before what was given, so that what was given wins."""
        command, commands = args[0], [*self.subcommands(), "export", "benchmark", "study", "report"]
        check(command in self.subcommands(), "command", command, f"one of {', '.join(commands)}, before its flags")
        given, rest = starting_point.read_arguments(args[1:])
        self.given = rest
        for file in given.config:
            if "experiments" in load_yaml(Path(file)):  # which raises what is wrong with it, by line
                raise InputError(file, "is the configuration of a study", f"use it for that: study --config {file}")
        if not {"-h", "--help"} & set(rest):
            self.start = self.find_start(command, given, rest)
        self.restored = self.start.checkpoint if self.start else None
        self.settings_from = self.restored.path if self.restored and not rest else None
        with naming_settings_of(self.settings_from):
            self.config = parser.parse_args([command, *(self.start.arguments if self.start else []), *rest])
        config = self.config[command]
        config.trainer.callbacks = listed(config.trainer.callbacks) or None
        warn_of_replaced(given.config, config.trainer.callbacks or [])
        for name in ("ckpt_path", "resume"):  # their flags were taken out above
            if config[name] is not None:
                raise InputError(name, f"{config[name]} stands in a file", f"give it as the flag --{name}")
        check(0 <= config.seed_everything < 2**32, "seed_everything", config.seed_everything, "0 to 4294967295")
        model = pydoc.locate(config.model.class_path)
        assert isinstance(model, type)  # the parser has seen to that
        allowed = "CNN, MLP or WhitenedCNN, or the import path of your own"
        check(model is not ImageClassifier, "model", model.__name__, allowed)
        check_nulls("model", model, config.model.get("init_args", {}))
        check_nulls("data", CIFAR10DataModule, config.data)
        check_nulls("trainer", Trainer, config.trainer)

    def find_start(self, command: str, given: Namespace, rest: Sequence[str]) -> starting_point.StartingPoint | None:
        """Find what a command starts from, given the arguments that tell, and the others."""
        runs = None
        if self._looked_up(command, given):
            runs = self._runs(self.parser.parse_args([command, *rest])[command])
        return starting_point.find(command, given, runs, rest)

    def _looked_up(self, command: str, given: Any) -> bool:
        """Return whether the run must be looked up among all of its name."""
        if command != "fit" and given.ckpt_path in ("best", "last") and not (given.config or given.model):
            remedy = "give --ckpt_path RUN, or the --config that the run was trained with"
            raise InputError("ckpt_path", f"{given.ckpt_path} of which run?", remedy)
        requeued = self.resumes_job and not (given.resume or given.ckpt_path) and slurm.job_id()
        return given.ckpt_path == "last" or (bool(requeued) if command == "fit" else given.ckpt_path == "best")

    def _runs(self, config: Any) -> Path:
        """Resolve what names a run, and return the folder of all runs of that name."""
        data = config.data
        data.source = self.source = self.source or resolve_source(data.source, data_root(data.root), data.mirrors)
        check(config.name != "", "name", config.name, "a name, or leave --name out")
        there = self.start.run.path.resolve().parent.name.removesuffix("-synthetic") if self.start else ""
        if not (config.name or there):
            given = _files(config)
            there = "-".join([*stems(config.model.class_path, given), *departures(self.given, config.as_dict(), given)])
        config.name = config.name or there
        return Path(config.logs) / tagged(config.name, self.source)

    def before_instantiate_classes(self) -> None:
        """Resolve what config.yaml must tell truly: the run's name, where its images are from, its precision."""
        config = self.config[self.subcommand]
        self.runs = self._runs(config)
        if self.start is None:
            check_logs(self.runs)
            for name in left_out(config.as_dict(), _files(config)):
                print(f"{name} is left out: {config.model.class_path.rpartition('.')[2]} has no such setting")
        trainer, fits = config.trainer, self.subcommand == "fit"
        if fits and config.init_from is not None:
            config.init_from = str(starting_point.checkpoint_of(config.init_from))
        self.finder = lr_search.take_finder(trainer)
        there = flat(self.restored.config).get(f"model.{self._rate}") if self.restored else None
        if self.finder and there is not None:
            config.model.init_args[self._rate] = there
            print(f"LearningRateFinder: this run has its learning rate, {there:g}")
        check_trainer(trainer, new=fits and self.restored is None, resumes=fits and self.start is not None)
        if trainer.precision is None and not any(
            issubclass(resolve_name(plugin.class_path), Precision) for plugin in listed(trainer.plugins)
        ):
            trainer.precision, self.why_precision = best_precision(trainer.accelerator)
        trainer.precision = SHORT.get(str(trainer.precision), trainer.precision)  # as a checkpoint has it

    def instantiate_classes(self) -> None:
        with naming_settings_of(self.settings_from):
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Give the Trainer its run folder, its callbacks and its way to write checkpoints."""
        config, run = self.config_init[self.subcommand], self.start.run if self.start else None
        kwargs["plugins"] = [*listed(config.trainer.plugins), self.checkpoint_io]
        self.requeues, self.requeue_signal = slurm.take_over(kwargs["plugins"])
        kwargs["logger"], runs = listed(config.trainer.logger), run.path.parent if run else self.runs
        # Where Lightning looks for its own hpc_ckpt_N.ckpt, to load it unasked: not among other programs' files.
        kwargs["default_root_dir"] = runs
        logs = self.subcommand == "fit" or bool(self.subcommand == "test" and self.restored and run and run.exists())
        if config.trainer.logger is not False and logs:
            done = None if self.subcommand == "test" else self.restored.behind() if self.restored else (0, 0)
            # The Trainer's folder, and ModelCheckpoint's, is that of the first.
            kwargs["logger"].insert(0, RunLogger(runs, run.path if run else None, done))
        theirs = config.trainer.callbacks or []
        for callback, settings in zip(theirs, self.config[self.subcommand].trainer.callbacks or [], strict=True):
            callbacks.check_usable(callback, settings.get("init_args"))
        if self.subcommand == "fit":
            callbacks.keep_apart(theirs)
            ours = callbacks.training(config.trainer, self.why_precision, self.requeue_signal)
            kwargs["max_time"] = None  # our own callback
        else:
            assert run, "what evaluates has a file to start from"
            output = config.get("output")
            if output is not None:
                files.check_new(Path(output), force=config.force)
            results = {"output": output, "probabilities": config.get("probabilities", False)}
            epoch = self.restored.epochs if self.restored else 0
            ours = callbacks.evaluation(config.trainer, run.path, epoch, **results)
        kwargs["callbacks"] = [*theirs, *ours]
        # Otherwise Lightning would save to a folder of its own.
        kwargs["enable_checkpointing"] = any(isinstance(each, CheckpointCallback) for each in kwargs["callbacks"])
        first = {**kwargs, "callbacks": [*kwargs["callbacks"]]}  # LightningCLI adds to the list
        trainer = super().instantiate_trainer(**first)
        check_processes(trainer, config.trainer, searches=self.finder is not None)
        if self.processes and trainer.num_devices > self.processes.number:
            strategy: Any = trainer.strategy
            if not strategy.cluster_environment.creates_processes_externally:
                self.processes.start(trainer.num_devices, trainer.num_nodes)
                trainer = super().instantiate_trainer(**kwargs)  # which finds them
        return trainer

    def after_instantiate_classes(self) -> None:
        """Check that things fit together, and print what comes from the checkpoint."""
        if self.subcommand == "fit":
            check_batch_norm(self.model, self.datamodule.batch_size)
            check_resolutions(self.model, self.datamodule.resolutions)
            self._check_that_config_can_be_read()
            if self.config_init.fit.init_from and self.restored is None:
                starting_point.initialize(self.model, Path(self.config_init.fit.init_from))
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
        where = "with its model and data settings" + (f", but for {others}" if others else "")
        midway = f" and {self.restored.midway} steps" if self.restored.midway else ""
        print(f"{self.restored.path}: {type(self.model).__name__} after epoch {self.restored.epochs}{midway}, {where}")

    def _check_that_config_can_be_read(self) -> None:
        """Check that config.yaml, as it would be written, says what was given."""
        written = self.parser.dump(self.config, skip_unset=False)
        again = self.parser.dump(self.parser.parse_string(written), skip_unset=False)
        for line, other in zip(written.splitlines(), again.splitlines(), strict=False):
            if line != other:
                cause = f"config.yaml can't hold it ({line.partition(': ')[2]})"
                raise InputError(line.strip(" -").partition(":")[0], cause, "give it in another form, or leave it out")

    @property
    def _rate(self) -> str:
        """The argument of the model that LearningRateFinder sets."""
        return (self.finder or {}).get("attr_name") or "lr"

    def before_fit(self) -> None:
        """Search the learning rate where that is asked for, and make all classes anew with it."""
        if self.finder is None or self.start:
            return
        config = self.config[self.subcommand]
        arguments = config.model.init_args
        check(self._rate in arguments, "trainer.callbacks", self._rate, "an attr_name that is an argument of the model")
        with naming_what_failed(self.trainer, None):
            rate = lr_search.search(super().instantiate_trainer, self.model, self.datamodule, self.finder)
        if rate is None:
            return
        print(f"LearningRateFinder: {rate:g} has the steepest descent")
        if self.finder["update_attr"]:
            arguments[self._rate] = rate
            print(f"trains with model.{self._rate} {rate:g}: it stands in config.yaml in place of the search")
        seed_everything(config.seed_everything, workers=True, verbose=False)  # as if there had been no search
        self.instantiate_classes()

    def fit(self, **given: Any) -> None:
        """Train, in a folder that no other process trains in, repaired first if the run resumes.

        A signal that a SLURM job's time is over requeues the job once all is saved.
        """
        try:
            self._fit(**given)
        except BaseException as error:
            stops = (each for each in causes(error) if isinstance(each, Interrupted))
            if self.requeues and any(stop.signum == self.requeue_signal for stop in stops):
                slurm.requeue()
            raise

    def _fit(self, **given: Any) -> None:
        strategy = self.trainer.strategy
        if self.trainer.world_size > 1:
            strategy.setup_environment()  # now, because rank zero tells the others where to start from
        self.datamodule.prepare_data()  # before there is a folder: without data there is no run
        strategy.barrier()  # all have read what rank zero may change in the folder
        try:
            alone = hold_folder(self.trainer, self.start, self.given)
            with alone if self.trainer.is_global_zero else nullcontext(("", None)) as found:
                done, path = strategy.broadcast(found)
                return print(done) if done else self._run("fit", **given | {"ckpt_path": path})
        except Interrupted as stopped:
            if stopped.status:
                raise
            print(stopped)

    def _run(self, command: str, ckpt_path: Path | None = None, **given: Any) -> None:
        path = ckpt_path or (self.restored.path if self.restored else None)
        self.checkpoint_io.named |= {path.resolve()} if path else set()
        for each in self.config_init[self.subcommand].trainer.callbacks or []:
            if path is None and isinstance(each, OnExceptionCheckpoint) and Path(each.ckpt_path).exists():
                self.checkpoint_io.load_checkpoint(each.ckpt_path)  # as Lightning would
        if self.trainer.strategy.launcher is not None:
            end_at_sigterm(self.trainer.strategy.launcher)
        with performance.steady(self.trainer.strategy.root_device), naming_what_failed(self.trainer, path):
            getattr(self.trainer, command)(ckpt_path=path, **given)

    validate = partialmethod(_run, "validate", verbose=False)
    test = partialmethod(_run, "test", verbose=False)
    predict = partialmethod(_run, "predict", return_predictions=False)


def _files(config: Any) -> list[Path]:
    """Return the configuration files of a command; a checkpoint's settings, which may be among them, are in none."""
    return [Path(str(file)) for file in config.config or [] if file]
