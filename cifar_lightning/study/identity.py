"""The identity of a run: its parsed configuration, its seed, the source of its images, and the recipe."""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from cifar_lightning.cli.config_files import flat
from cifar_lightning.errors import InputError, check

if TYPE_CHECKING:  # the study's own process imports no Lightning, see executor.py
    from cifar_lightning.cli.dry_run import DryRun

# Bump it with any change after which the same configuration and seed give other losses: of initialization, order of the
# batches, augmentation, optimizer, a metric. No old run serves a new study then. tests/study/test_identity.py holds the
# bits of the loss, and fails with such a change.
RECIPE = 1
# That of runs with augmentation, which depends on an image's place in its batch since 2.
AUGMENTED_RECIPE = 2
# A parameter that a model or the data get later orphans no run if it stands here, with the value that leaves all as is.
ADDED: dict[str, Any] = {
    "model.compile": False,
    "model.dropout_scaling": "train",
    "model.head_lr_factor": 1.0,
    "model.momentum": 0.9,
    "model.label_smoothing": 0.0,
    "model.views": 1,
    "data.max_shift": 4,
    "data.resolutions": [],
}
# Identified by something else, for `predict` alone, or of the machine: a run that is resumed elsewhere stays the same
# run, though its last bits differ and the precision may; each record tells what it ran on.
NOT_CONTENT = {
    *("data.root", "data.source", "data.seed", "data.num_workers", "data.mirrors", "data.images"),
    "trainer.accelerator",
}
# A study leaves these as they are.
FIXED = [
    *("trainer.max_steps", "trainer.max_time", "trainer.fast_dev_run", "trainer.check_val_every_n_epoch"),
    *("trainer.logger", "trainer.enable_checkpointing", "init_from"),
]
LIMIT, EPOCHS, MODELS = "trainer.limit_train_batches", "trainer.max_epochs", "cifar_lightning.models."

Settings = Mapping[str, Any]


@cache
def _reader() -> "DryRun":
    from cifar_lightning.cli.dry_run import DryRun

    # LightningCLI parses only what it then builds: one dry run, for its parser, takes 0.3 s. With it a configuration is
    # parsed in 0.05 s.
    return DryRun(["fit", "--model=MLP", "--data.source=synthetic", f"--logs={tempfile.gettempdir()}"])


def parse(flags: Sequence[str]) -> Settings:
    """Return all settings, dotted, that `fit` would have with these flags; raise what its parser raises."""
    reader = _reader()
    reader.parse_arguments(reader.parser, ["fit", *flags])
    return flat(reader.config["fit"].as_dict())


@cache
def _defaults() -> Settings:
    return parse(["--model=MLP"])


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Name the point of a study whose settings `fit` refuses; raise its `InputError`."""
    try:
        yield
    except Exception as error:
        from cifar_lightning.cli.error_messages import explain

        text, status = explain(error)
        if status != InputError.status:
            raise
        cause, _, remedy = text.partition("; ")
        raise InputError(where, cause, remedy) from error


def contents(asked: Sequence[tuple[str, list[str]]]) -> Iterator[tuple[Settings, str, list[str]]]:
    """Yield content, source and flags of each configuration, asked for by name and flags; this imports Lightning."""
    from cifar_lightning.data.datamodule import data_root, resolve_source

    parsed = []
    for where, flags in asked:  # all, before anything is downloaded
        with naming(where):
            parsed.append(parse(flags))
            _check(parsed[-1])
    resolve = cache(resolve_source)  # once, or a day with a bad network would ask at every point
    for (_, flags), settings in zip(asked, parsed, strict=True):
        wanted, root, mirrors = (settings[f"data.{name}"] for name in ("source", "root", "mirrors"))
        source = resolve(wanted, data_root(root), tuple(mirrors))
        # `auto` is resolved in the command, which does the same then on a day without a network.
        yield content(settings), source, flags if source == wanted else [*flags, "--data.source", source]


def _check(settings: Settings) -> None:
    """Refuse what ends before its epochs are over, or has epochs without a validation: they could not be compared."""
    for name in FIXED:
        value, allowed = settings[name], "the default: a study compares whole epochs, by their curves and checkpoints"
        check(value in (_defaults()[name], None), name, value, allowed)
    for name in ("data.val_size", LIMIT, "trainer.limit_val_batches"):
        check(settings[name] != 0, name, settings[name], "more than 0: a study compares on validation images")


def content(settings: Settings) -> dict[str, Any]:
    """Return those of all settings that decide a run's metrics.

    Of the Trainer only those that differ from the parser's defaults, so that another version of Lightning, with more
    of them, orphans no run.
    """
    from cifar_lightning.data.loader import steps_per_epoch

    found, defaults = {EPOCHS: settings[EPOCHS]}, _defaults()
    for key, value in settings.items():
        ours = key.startswith(("model.", "data.")) or (key.startswith("trainer.") and value != defaults.get(key))
        if ours and key not in NOT_CONTENT:
            found[key] = value
    limit, batch = found.pop(LIMIT, None), settings["data.batch_size"]
    images = settings["data.train_size"] or 50_000 - settings["data.val_size"]
    if limit is not None and batch > 0:  # what can't be is for `fit` to refuse
        steps = steps_per_epoch(images, batch, limit)
        if steps < steps_per_epoch(images, batch):
            found[LIMIT] = steps  # however it was limited
    if found["model.class_path"].startswith(MODELS):  # one name, in whatever file the class is
        found["model.class_path"] = MODELS + found["model.class_path"].rpartition(".")[2]
    return dict(json.loads(json.dumps(found, default=str)))


def address(settings: Settings, seed: int, source: str, *, beginning: bool = False) -> str:
    """Return the identity of a run by its `content`, seed, source and the recipe.

    The source tells what the images are: official files have published checksums, code makes the stand-in. With
    `beginning` it is that of all runs of which the shorter is the beginning of the longer, bit for bit: where the
    learning rate is constant, those that differ in the number of epochs alone.
    """
    recipe = RECIPE if settings.get("data.augment", "none") == "none" else AUGMENTED_RECIPE
    same = {LIMIT: None, "recipe": recipe, "seed": seed, "source": source}
    same |= {key: value for key, value in settings.items() if key not in ADDED or ADDED[key] != value}
    if beginning and settings.get("model.schedule", "constant") == "constant":
        del same[EPOCHS]
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:16]
