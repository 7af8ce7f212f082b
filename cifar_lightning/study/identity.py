"""The identity of a run: its parsed configuration, its seed, the source of its images, and the recipe."""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from cifar_lightning.cli.config_files import flat
from cifar_lightning.errors import InputError

if TYPE_CHECKING:  # the study's own process imports no Lightning, see processes.py
    from cifar_lightning.cli.dry_run import DryRun

# Bump it with any change after which the same configuration and seed give other losses: of initialization, order of the
# batches, augmentation, optimizer, a metric. No old run serves a new study then. tests/study/test_identity.py holds the
# bits of the loss, and fails with such a change.
RECIPE = 1
# A parameter that a model or the data get later orphans no run if it stands here, with the value that leaves all as is.
ADDED: dict[str, Any] = {}
# Identified by something else, for `predict` alone, or of the machine: a run that is resumed elsewhere stays the same
# run, though its last bits differ and the precision may; each record tells what it ran on.
NOT_CONTENT = {
    *("data.root", "data.source", "data.seed", "data.num_workers", "data.mirrors", "data.images"),
    "trainer.accelerator",
}
LIMIT, EPOCHS, MODELS = "trainer.limit_train_batches", "trainer.max_epochs", "cifar_lightning.models."

Settings = Mapping[str, Any]


@cache
def _reader() -> "tuple[DryRun, Settings]":
    from cifar_lightning.cli.dry_run import DryRun

    # LightningCLI parses only what it then builds: one dry run of a small network, for its parser, takes 0.3 s. With it
    # a configuration is parsed in 0.05 s.
    small = ["--model=MLP", "--data.source=synthetic", "--trainer.accelerator=cpu", f"--logs={tempfile.gettempdir()}"]
    reader = DryRun(["fit", *small])
    return reader, _parse(reader, ["--model=MLP"])


def _parse(reader: "DryRun", flags: Sequence[str]) -> Settings:
    reader.parse_arguments(reader.parser, ["fit", *flags])
    return flat(reader.config["fit"].as_dict())


def parse(flags: Sequence[str]) -> Settings:
    """Return all settings, dotted, that `fit` would have with these flags.

    Raises:
        Exception: What the parser raises where `fit` would refuse them.
    """
    return _parse(_reader()[0], flags)


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


def contents(asked: Sequence[tuple[str, Sequence[str]]]) -> Iterator[tuple[Settings, Settings]]:
    """Yield the content of each configuration, and all of its settings; in a process that may import Lightning.

    Args:
        asked: What to name where `fit` would refuse it, and its flags.
    """
    for where, flags in asked:
        with naming(where):
            settings = parse(flags)
        yield content(settings), settings


def content(settings: Settings) -> dict[str, Any]:
    """Return those of all settings that decide a run's metrics.

    Of the Trainer only those that differ from the parser's defaults, so that another version of Lightning, with more
    of them, orphans no run.
    """
    found, defaults = {EPOCHS: settings[EPOCHS]}, _reader()[1]
    for key, value in settings.items():
        if key.startswith("trainer.") and value == defaults.get(key):
            continue
        if key.startswith(("model.", "data.", "trainer.")) and key not in NOT_CONTENT:
            found[key] = value
    found.pop(LIMIT, None)
    if (limit := _limit(settings)) is not None:
        found[LIMIT] = limit
    if found["model.class_path"].startswith(MODELS):  # one name, in whatever file the class is
        found["model.class_path"] = MODELS + found["model.class_path"].rpartition(".")[2]
    plain: dict[str, Any] = json.loads(json.dumps(found, default=str))
    return plain


def address(settings: Settings, seed: int, source: str, *, beginning: bool = False) -> str:
    """Return the identity of a run.

    Args:
        settings: Its `content`.
        seed: Of weights, order and masks.
        source: Of the images. What they are is then certain: the official files are verified by their published
            checksums, the stand-in is made by the code.
        beginning: Identify what it has in common with longer runs, of which it is the beginning, bit for bit: where the
            learning rate is constant, all but the number of epochs.
    """
    missing = object()
    same = {LIMIT: None, "recipe": RECIPE, "seed": seed, "source": source}
    same |= {key: value for key, value in settings.items() if ADDED.get(key, missing) != value}
    if beginning and settings.get("model.schedule", "constant") == "constant":
        del same[EPOCHS]
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:16]


def _limit(settings: Settings) -> int | None:
    """The number of steps that an epoch is limited to; None where that is no limit."""
    from cifar_lightning.data.loader import steps_per_epoch

    limit, batch = settings[LIMIT], settings["data.batch_size"]
    if limit is None or batch < 1:  # what can't be is for `fit` to refuse
        return None
    images = settings["data.train_size"] or 50_000 - settings["data.val_size"]
    steps = steps_per_epoch(images, batch, limit)
    return steps if steps < steps_per_epoch(images, batch) else None
