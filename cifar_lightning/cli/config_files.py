"""Configuration files, checked before anything is made of them."""

import re
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from cifar_lightning.errors import InputError


class _Loader(yaml.SafeLoader):
    """Reads 1e-4 as a number, as YAML 1.2 and jsonargparse do (PyYAML wants 1.0e-4), and refuses repeated keys."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        assert isinstance(node, yaml.MappingNode)
        keys = [key.value for key, _ in node.value]
        for i, (key, _) in enumerate(node.value):
            if key.value in keys[:i]:  # PyYAML would drop the first without a word
                raise yaml.MarkedYAMLError(problem=f"'{key.value}' stands there twice", problem_mark=key.start_mark)
        return node


FLOAT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789"))
# jsonargparse writes with it; Timer's default interval is a text that is an enum's member, too.
yaml.SafeDumper.add_multi_representer(str, yaml.SafeDumper.represent_str)


def load_yaml(path: Path) -> dict[str, Any]:
    """Return the settings in a file; raise an `InputError` with the line unless it holds YAML settings."""
    try:
        if not path.is_file():
            raise InputError(str(path), "there is no such file", _similar(path))
        content = yaml.load(path.read_text(), _Loader)  # a SafeLoader: plain values alone
    except OSError as error:
        raise InputError(str(path), f"can't be read ({error.strerror})", "see the folder configs/") from None
    except (RecursionError, UnicodeDecodeError) as error:
        cause = "nested too deeply" if isinstance(error, RecursionError) else "not a text file"
        raise InputError(str(path), cause, "give a YAML file such as configs/cnn.yaml") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{where}", "not valid YAML", f"fix it: {getattr(error, 'problem', error)}") from None
    if not isinstance(content, dict):
        raise InputError(str(path), "holds no settings", "write them as `name: value` lines")
    model, data = content.get("model"), content.get("data")
    named = {**content, "model.init_args": model.get("init_args", {}) if isinstance(model, dict) else {}}
    for name, value in named.items():
        if value is None and name not in ("name", "ckpt_path", "resume", "init_from"):
            raise InputError(f"{path}, {name}", "nothing stands below it", "write settings there or leave it out")
        if name in ("trainer", "data") and not isinstance(value, dict):
            cause = f"{value!r} is no group of settings"
            raise InputError(f"{path}, {name}", cause, "write them below it, as `name: value` lines")
    if isinstance(data, dict) and "seed" in data:  # the parser would overrule it without a word
        raise InputError(f"{path}, data.seed", "follows seed_everything", "give that instead")
    return content


def listed(given: Any) -> list[Any]:
    """Return what was given for a setting that takes one or several; nothing for a bare yes or no."""
    return list(given) if isinstance(given, list) else [] if given is None or isinstance(given, bool) else [given]


def warn_of_replaced(files: Sequence[str], used: Sequence[Any]) -> None:
    """Print which callbacks of the files are not among those used: a later list replaces an earlier one."""
    names = {each.class_path.rpartition(".")[2] for each in used}
    for file in files:
        trainer = load_yaml(Path(file)).get("trainer") or {}
        there = [*listed(trainer.get("callbacks")), *listed(trainer.get("callbacks+"))]
        paths = (str(each["class_path"] if isinstance(each, dict) else each) for each in there)
        if gone := [name for name in (path.rpartition(".")[2] for path in paths) if name not in names]:
            print(f"{file}: {', '.join(gone)}: replaced by later callbacks; `callbacks+:` adds", file=sys.stderr)


def left_out(now: Mapping[str, Any], files: Sequence[Path]) -> list[str]:
    """Return the settings of a model in the files that the model which was chosen instead does not have."""
    there = dict.fromkeys(name for file in files for name in flat(load_yaml(file)) if name.startswith("model."))
    return [name for name in there if name not in flat(now)]


def _similar(path: Path) -> str:
    shipped = [str(each) for each in Path("configs").glob("*.yaml")]
    near = get_close_matches(str(Path("configs", path.name)), shipped, n=1, cutoff=0.8)
    return f"did you mean {near[0]}?" if near else "see the folder configs/"


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the settings of a configuration file with dotted names, as on the command line."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = prefix if key == "init_args" else f"{prefix}{key}."
        found |= flat(value, name) if isinstance(value, dict) else {name[:-1]: value}
    return found
