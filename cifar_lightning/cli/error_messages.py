"""One line for a person out of an exception: which setting, which value, what is allowed, the nearest name."""

import errno
import re
from argparse import ArgumentError
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from inspect import signature
from typing import Any, NamedTuple

from lightning.pytorch import Trainer

from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.errors import ReportedError, is_out_of_memory
from cifar_lightning.models import ImageClassifier

TYPES = {
    "<class 'int'>": "a whole number",
    "<class 'float'>": "a number",
    "<class 'bool'>": "true or false",
    "<class 'str'>": "text",
    "<class 'NoneType'>": "null",
    "<class 'collections.abc.Sequence'>": "a list such as [a,b]",
}

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REMEDIES = {
    **dict.fromkeys(FULL, "free some space, then start again (a run: fit --resume RUN)"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "fix the permissions, or name another place"),
    errno.EROFS: "name a place that can be written to",
}


class Message(NamedTuple):
    """What to print after `error: `, and the exit status for it."""

    text: str
    status: int


def explain(error: BaseException) -> Message:
    """Say in one line what went wrong while arguments were parsed, classes made from them, or a command run."""
    ours = next((e for e in _chain(error) if isinstance(e, ReportedError)), None)
    if ours:
        full = next((name for name in settings() if name.rpartition(".")[2] == ours.field), ours.field)
        return Message(f"{full}: {ours.cause}; {ours.remedy}", ours.status)
    if isinstance(error, ArgumentError):  # what goes wrong later is not about arguments
        return Message(_of_parser(str(error)), 2)
    if isinstance(error, OSError) and (error.filename or error.errno in FULL):
        remedy = REMEDIES.get(error.errno or 0, "fix that, and start again")
        return Message(f"{error.filename or 'disk'}: {error.strerror}; {remedy}", 1)
    if any(is_out_of_memory(e) for e in _chain(error)):
        return Message("model: it does not fit in memory; make it narrower or shallower", 1)
    return Message(f"{type(error).__name__}: {' '.join(str(error).split())}; --debug shows where", 1)


def settings() -> list[str]:
    """Return every setting, dotted as on the command line."""
    groups: dict[str, list[Any]] = {"model": architectures(), "data": [CIFAR10DataModule], "trainer": [Trainer]}
    named = [f"{g}.{name}" for g, kinds in groups.items() for kind in kinds for name in signature(kind).parameters]
    return ["model", "model.class_path", "config", "ckpt_path", "seed_everything", "logs", "name", *named]


def architectures() -> list[type[ImageClassifier]]:
    """Return the base class and every architecture that has been imported, by name."""
    return [ImageClassifier, *sorted(ImageClassifier.__subclasses__(), key=lambda kind: kind.__name__)]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _of_parser(text: str) -> str:
    """Reword what jsonargparse says: it has no types to tell its errors apart, so the text decides."""
    for pattern, reword in RULES:
        if found := re.search(pattern, text, re.DOTALL):
            return reword if isinstance(reword, str) else reword(found, text)
    return f"command line: {' '.join(text.split())}; `fit --help` lists what there is"


def _key(text: str, *more: str) -> str:
    """Return the setting that a message is about: its nested parser keys, joined."""
    return ".".join([*re.findall(r'Parser key "([^"]+)"', text), *more]) or "command line"


def _unknown(found: re.Match[str], text: str) -> str:
    name = found[1].lstrip("-").partition("=")[0]
    if not found[1].startswith("-") and "unrecognized" in text:
        return f"{name}: an argument that belongs to no flag; flags start with --"
    name = _key(text, name) if "Parser key" in text else name
    name = name.replace(".init_args.", ".")
    if name in settings():
        return f"{name}: no architecture comes before it; give --config configs/cnn.yaml or --model CNN first"
    near = get_close_matches(name, settings(), n=1, cutoff=0.7)
    return f"{name}: there is no such setting; " + (f"did you mean {near[0]}?" if near else "`fit --help` lists them")


def _wrong_value(found: re.Match[str], text: str) -> str:
    value = re.search(r"Got value: (.*)", text) or re.search(r"Given value: (.*)", text)
    expected = dict.fromkeys(re.findall(r"Expected an? ([^\n]+?)(?:\. Got value: [^\n]*)?(?:\n|$)", text))
    if text.count("Parser key") > 1:  # 'model' itself may be left out; that is no help to a wrong value inside it
        expected.pop("<class 'NoneType'>", None)
    given = value[1] if value else "this"
    return f"{_key(text)}: {given} is not possible; use {' or '.join(map(_type, expected))}"


def _type(name: str) -> str:
    choices = re.fullmatch(r"typing\.Literal\[(.*)\]", name)
    return f"one of {choices[1]}".replace("'", "") if choices else TYPES.get(name, name)


def _no_class(found: re.Match[str], text: str) -> str:
    given = re.search(r"class_path'?[ :=]+'([^']+)'", text) or re.search(r"Given value: (\S+)", text)
    name, key = given[1] if given else "this", _key(text)
    reason = re.search(r"Problem with given class_path '[^']+':\s+([^\n]+)", text)
    cause = f"{name} can't be imported ({reason[1]})" if reason else f"{name} is not a class for this"
    if "is not allowed" in text:
        cause = f"{name} runs code by itself and is not imported"
    if key == "model":
        known = " or ".join(kind.__name__ for kind in architectures()[1:])
        return f"model: {cause}; use {known}, or the import path of your own ImageClassifier"
    return f"{key}: {cause}; name one of lightning.pytorch, or the import path of your own"


RULES: tuple[tuple[str, str | Callable[[re.Match[str], str], str]], ...] = (
    # A wrong value for a class that takes the setting; the other classes that were tried do not accept it at all.
    (r"Problem with given class_path '[^']+':\s+Parser key \"[^\"]+\":\s+Expected", _wrong_value),
    (r"Option '([^']+)' is not accepted", _unknown),
    (r"does not accept option '([^']+)'", _unknown),
    (r"[Uu]nrecognized arguments: (\S+)", _unknown),
    (
        r"does not correspond to a subclass of|Expected a dot import path string: |Importing '[^']+' is not allowed",
        _no_class,
    ),
    (r"class_path '[^']+'.*(?:No module named|Not a valid|has no attribute)", _no_class),
    (r"arguments are required: \w+\.model", "model: missing; give --config configs/cnn.yaml, or --model CNN"),
    (
        r"argument --(\S+): invalid int value: '(.*)'",
        lambda m, _: f"{m[1]}: {m[2]} is not possible; use a whole number",
    ),
    (r"Linked \"(\S+)\" must be given via \"(\S+)\"", lambda m, _: f"{m[1]}: follows {m[2]}; give --{m[2]}"),
    (r"argument (?:-\w/)?--(\S+): expected", lambda m, _: f"{m[1]}: nothing follows it; give a value"),
    (r"Expected an? ", _wrong_value),
)
