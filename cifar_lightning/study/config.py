"""The configuration of a study: the experiments of configs/study.yaml."""

import json
import re
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from cifar_lightning.cli.config_files import load_yaml
from cifar_lightning.errors import InputError, check
from cifar_lightning.results.store import fault

Some = Meta(min_length=1)


class Experiment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Runs that differ in what varies, and in their seeds."""

    base: str  # a configuration for `fit`, beside the study's own
    epochs: Annotated[int, Meta(ge=1)]
    # Of weights, order and masks; the same for every variant, so that differences are paired.
    seeds: Annotated[list[Annotated[int, Meta(ge=0)]], Some] = msgspec.field(default_factory=lambda: [0])
    set: dict[str, Any] = {}  # settings that all its runs share, dotted
    # Settings that vary, dotted, each with a list of values; several lists go together, value by value.
    vary: dict[str, Annotated[list[Any], Some]] = {}
    # Settings that vary, dotted, each with a list of values; every value goes with every other one.
    grid: dict[str, Annotated[list[Any], Some]] = {}
    test: bool = False  # whether the test set is asked once a run has ended

    @property
    def variants(self) -> list[dict[str, Any]]:
        """The settings that vary, dotted, variant by variant; none in the only one where nothing varies.

        Each variant of `vary` with each of `grid`, of which the last setting changes fastest.
        """
        rows = list(zip(*self.vary.values(), strict=True)) if self.vary else [()]
        names = [*self.vary, *self.grid]
        return [dict(zip(names, (*row, *more), strict=True)) for row in rows for more in product(*self.grid.values())]


def read(path: Path) -> dict[str, Experiment]:
    """Read `experiments` by name; what stands beside them holds for all that do not differ.

    Raises:
        InputError: It can't be understood; the file and the place are named.
    """
    common = load_yaml(path)
    experiments = common.pop("experiments", None)
    if not isinstance(experiments, dict) or not experiments:
        raise InputError(f"{path}, experiments", "there are none", "name some, as configs/study.yaml does")
    return {str(name): _experiment(path, str(name), common, own) for name, own in experiments.items()}


def _experiment(path: Path, name: str, common: dict[str, Any], own: Any) -> Experiment:
    where = f"{path}, experiments.{name}"
    check(re.fullmatch(r"[\w-]+", name) is not None, where, name, "letters, digits, - and _ as its name")
    if not isinstance(own, dict):
        raise InputError(where, "holds no settings", "give it a base and epochs")
    try:
        plain = "\\u0000" not in json.dumps([common, own])
    except (TypeError, ValueError, RecursionError):  # YAML knows dates, bytes, lists within themselves
        plain = False
    check(plain, where, own, "numbers, text, true, false, null, or lists of these")
    try:  # with either set, so that the types in both are checked before they are merged
        experiment, shared = (
            msgspec.convert({**common, **own, "set": each.get("set", {})}, Experiment) for each in (own, common)
        )
    except msgspec.ValidationError as error:
        raise InputError(where, fault(error), "see configs/study.yaml") from None
    settings = shared.set | experiment.set
    for key, value in (*settings.items(), *experiment.vary.items(), *experiment.grid.items()):
        dotted = re.fullmatch(r"(model|data|trainer)\.\w+", key) is not None and not isinstance(value, dict)
        check(dotted, f"{where}, {key}", value, "settings of model, data and trainer, dotted: {model.dropout: 0.2}")
        check(key != "trainer.max_epochs", f"{where}, {key}", value, "`epochs` of the experiment")
    seeds, lengths = experiment.seeds, {len(values) for values in experiment.vary.values()}
    check(len(set(seeds)) == len(seeds), f"{where}.seeds", seeds, "each once")
    check(len(lengths) <= 1, f"{where}.vary", experiment.vary, "lists of equal length, or `grid` for all combinations")
    both = sorted(experiment.vary.keys() & experiment.grid.keys())
    check(not both, f"{where}.grid", both, "settings that do not vary already")
    base = path.parent / experiment.base
    if not base.is_file():
        raise InputError(f"{where}.base", f"{base}: there is no such file", "name it relative to the study's own file")
    return msgspec.structs.replace(experiment, base=str(base), set=settings)
