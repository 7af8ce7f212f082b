"""The name of a run: that of its configuration files, and the flags that depart from them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cifar_lightning.cli.config_files import flat, load_yaml
from cifar_lightning.cli.starting_point import INDIFFERENT

# Settings whose flags are part of a run's name.
NAMING, UNNAMED = ("seed_everything", "model.", "data."), {*INDIFFERENT, "data.source", "model.class_path"}


def stems(class_path: str, files: Sequence[Path]) -> list[str]:
    """Return the files' names for a run's, but the model's in the place of the file whose model it replaced."""
    model, found = class_path.rpartition(".")[2], {file: file.stem for file in files}
    chosen = {file: str(flat(load_yaml(file)).get("model.class_path", "")).rpartition(".")[2] for file in files}
    for last in [file for file in files if chosen[file]][-1:]:
        if chosen[last] != model:
            found[last] = model.lower()
    return list(found.values()) or [model.lower()]


def departures(arguments: Sequence[str], now: Mapping[str, Any], files: Sequence[Path]) -> list[str]:
    """Return `dropout=0.2` for each flag on seed, model or data that departs from the configuration files."""
    there, found = dict[str, Any](), dict[str, str]()
    for file in files:
        there |= flat(load_yaml(file))
    for name, value in flat(now).items():
        typed = any(re.match(rf"--{name}(=|$)", argument.replace(".init_args.", ".")) for argument in arguments)
        if typed and name.startswith(NAMING) and name not in UNNAMED and there.get(name) != value:
            short = name.rpartition(".")[2].removesuffix("_everything")
            found[short] = re.sub(r"[^\w.+-]+", "_", str(value)).strip("_")
    return [f"{name}={text}" for name, text in found.items()]
