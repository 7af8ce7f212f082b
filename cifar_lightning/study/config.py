"""What a study is asked to do: the experiments of configs/study.yaml."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from cifar_lightning.cli.config_files import check_yaml, flat, load_yaml
from cifar_lightning.errors import InputError, check
from cifar_lightning.study.identity import canonical

DOTTED = "settings of model, data and trainer, dotted: {model.dropout: 0.2}"


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Runs that differ in what varies, and in their seeds.

    Attributes:
        base: A configuration for `fit`, beside the study's own.
        epochs: Of each run.
        seeds: Of weights, order and masks; the same for every variant, so that differences are paired.
        set: Settings that all its runs share, dotted.
        vary: Settings that vary, dotted, each with a list of values; lists of several go together, value by value.
        test: Whether the test set is asked, once a run has ended.
    """

    base: str
    epochs: int
    seeds: Sequence[int] = (0,)
    set: Mapping[str, Any] = field(default_factory=dict)
    vary: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    test: bool = False

    def variants(self) -> Iterator[dict[str, Any]]:
        """What varies, dotted, variant by variant; nothing in the only one where nothing does."""
        for values in zip(*self.vary.values(), strict=True) if self.vary else [()]:
            yield dict(zip(self.vary, values, strict=True))


def read(path: Path) -> dict[str, Experiment]:
    """Reads a study's configuration: `experiments` by name, and beside them what holds for all that do not differ.

    Raises:
        InputError: It can't be understood; the file and the place are named.
    """
    check_yaml(path)
    content = load_yaml(path)
    experiments = content.pop("experiments", None)
    if not isinstance(experiments, dict) or not experiments:
        raise InputError(f"{path}, experiments", "there are none", "name some, as configs/study.yaml does")
    return {str(name): _experiment(path, str(name), content, own) for name, own in experiments.items()}


def _experiment(path: Path, name: str, common: dict[str, Any], own: Any) -> Experiment:
    where = f"{path}, experiments.{name}"
    check(name.replace("_", "").replace("-", "").isalnum(), where, name, "letters, digits, - and _ as its name")
    if not isinstance(own, dict):
        raise InputError(where, "holds no settings", "give it a base and epochs")
    for key in (*common, *own):
        known = ", ".join(each.name for each in fields(Experiment))
        check(key in known.split(", "), where, key, known)
    merged = common | own
    for each in fields(Experiment):
        if each.default is MISSING and each.default_factory is MISSING:
            check(each.name in merged, f"{where}.{each.name}", None, "a value: it must be given")
    for given in (common.get("set", {}), own.get("set", {})):
        check(isinstance(given, dict), f"{where}.set", given, DOTTED)
    merged["set"] = {**common.get("set", {}), **own.get("set", {})}
    merged["base"] = str(path.parent / str(merged["base"]))
    check_yaml(Path(merged["base"]))
    for key, value in flat(load_yaml(Path(merged["base"]))).items():
        _check_plain(f"{merged['base']}, {key}", value)
    _check(where, merged)
    return Experiment(**merged)


def _check(where: str, merged: dict[str, Any]) -> None:
    epochs, seeds, vary = merged["epochs"], merged.get("seeds", [0]), merged.get("vary", {})
    check(type(epochs) is int and epochs >= 1, f"{where}.epochs", epochs, "1 or more")
    check(type(merged.get("test", False)) is bool, f"{where}.test", merged.get("test"), "true or false")
    whole = isinstance(seeds, list) and bool(seeds) and all(type(seed) is int and seed >= 0 for seed in seeds)
    check(whole and len(set(seeds)) == len(seeds), f"{where}.seeds", seeds, "a list of different whole numbers")
    lists = isinstance(vary, dict) and all(isinstance(values, list) and values for values in vary.values())
    check(lists and len({len(values) for values in vary.values()}) <= 1, f"{where}.vary", vary, "lists of equal length")
    for key, value in (*merged["set"].items(), *vary.items()):
        check(re.fullmatch(r"(model|data|trainer)\.\w+", str(key)) is not None, f"{where}, {key}", key, DOTTED)
        check(not isinstance(value, dict), f"{where}, {key}", value, DOTTED)
        _check_plain(f"{where}, {key}", value)
        check(key != "trainer.max_epochs", f"{where}, {key}", value, "`epochs` of the experiment")
    variants = [canonical(dict(zip(vary, values, strict=True))) for values in zip(*vary.values(), strict=True)]
    check(len(set(variants)) == len(variants), f"{where}.vary", vary, "each value once")


def _check_plain(where: str, value: Any) -> None:
    """Refuses what YAML knows and a command line does not: dates, bytes, lists within themselves."""
    try:
        holds = "\\u0000" not in json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        holds = False
    check(holds, where, value, "numbers, text, true, false, null, or lists of these")
