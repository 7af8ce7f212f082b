"""One line for a person out of an exception: which setting, which value, what is allowed, the nearest name."""

import contextlib
import errno
import re
import traceback
from argparse import ArgumentError
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any

import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer

from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.errors import InputError, ReportedError, RunError, causes, is_out_of_memory
from cifar_lightning.models import ImageClassifier
from cifar_lightning.runs.checkpoint import REMEDY

TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "NoneType": "null"}
TYPES["collections.abc.Sequence"] = "a list such as [a,b]"

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REMEDIES = {
    **dict.fromkeys(FULL, "free some space, then start again (a run: fit --resume RUN)"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "fix the permissions, or name another place"),
    errno.EROFS: "name a place that can be written to",
}


def explain(error: BaseException) -> tuple[str, int]:
    """Return what to print after `error: `, and the exit status, for whatever ends a command."""
    for each in causes(error):
        if isinstance(each, ReportedError):
            full = next((name for name in _settings() if name.rpartition(".")[2] == each.field), each.field)
            return f"{full}: {each.cause}; {each.remedy}", each.status
    if isinstance(error, ArgumentError):  # jsonargparse has no types to tell its errors apart, so the text decides
        found = next(filter(None, (re.search(pattern, str(error), re.DOTALL) for pattern in RULES)), None)
        if found is None:
            return f"command line: {' '.join(str(error).split())}; `fit --help` lists what there is", 2
        reword = RULES[found.re.pattern]
        return found.expand(reword) if isinstance(reword, str) else reword(found), 2
    if isinstance(error, OSError) and (error.filename or error.errno in FULL):
        remedy = REMEDIES.get(error.errno or 0, "fix that, and start again")
        return f"{error.filename or 'disk'}: {error.strerror}; {remedy}", 1
    if any(map(is_out_of_memory, causes(error))):
        return "model: it does not fit in memory; make it narrower or shallower", 1
    return f"{type(error).__name__}: {' '.join(str(error).split())}; --debug shows where", 1


@contextlib.contextmanager
def naming_settings_of(checkpoint: Path | None) -> Iterator[None]:
    """Name a checkpoint, if there is one, where its settings are wrong."""
    try:
        yield
    except Exception as error:
        text, status = explain(error)
        if checkpoint is None or status != InputError.status:
            raise
        raise InputError(str(checkpoint), f"its settings: {text}", REMEDY) from None


@contextlib.contextmanager
def naming_what_failed(trainer: Trainer, checkpoint: Path | None) -> Iterator[None]:
    """Name the batch size, the checkpoint or the Trainer's settings where these end a command."""
    try:
        yield
    except (ReportedError, OSError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            # By now the Trainer has forgotten its stage; the model is still in training mode, or not.
            name = "batch_size" if trainer.lightning_module.training else "eval_batch_size"
            size = getattr(CIFAR10DataModule.of(trainer), name)
            remedy = f"try --data.{name} {max(1, size // 2)}"
            raise RunError(f"data.{name}", f"{size} images do not fit in memory", remedy) from error
        frames, text = traceback.extract_tb(error.__traceback__), " ".join(str(error).split())
        # Lightning takes a checkpoint apart in methods of such names, and lets any exception through.
        if checkpoint and any("restore" in frame.name for frame in frames):
            cause = f"can't be restored ({type(error).__name__}: {text})"
            raise InputError(str(checkpoint), cause, REMEDY) from error
        by_lightning = Path(lightning.__file__).parent in Path(frames[-1].filename).parents
        if by_lightning and isinstance(error, ValueError | MisconfigurationException):
            raise InputError("trainer", text.rstrip("."), "`fit --help` lists what it takes") from error
        raise


def _settings() -> list[str]:
    architectures = [ImageClassifier, *ImageClassifier.__subclasses__()]
    groups: dict[str, list[Any]] = {"model": architectures, "data": [CIFAR10DataModule], "trainer": [Trainer]}
    named = [f"{g}.{name}" for g, kinds in groups.items() for kind in kinds for name in signature(kind).parameters]
    return ["model", "model.class_path", "config", "ckpt_path", "seed_everything", "logs", "name", *named]


def _key(text: str, *more: str) -> str:
    """Return the setting that a message is about: its nested parser keys, joined."""
    return ".".join([*re.findall(r'Parser key "([^"]+)"', text), *more]) or "command line"


def _unknown(found: re.Match[str]) -> str:
    text, name = found.string, found[1].lstrip("-").partition("=")[0]
    if not found[1].startswith("-") and "unrecognized" in text:
        return f"{name}: an argument that belongs to no flag; flags start with --"
    name = _key(text, name).replace(".init_args.", ".")
    if name in _settings():
        return f"{name}: no architecture comes before it; give --config configs/cnn.yaml or --model CNN first"
    near = get_close_matches(name, _settings(), n=1, cutoff=0.7)
    return f"{name}: there is no such setting; " + (f"did you mean {near[0]}?" if near else "`fit --help` lists them")


def _wrong_value(found: re.Match[str]) -> str:
    text = found.string
    value = re.search(r"Got value: (.*)", text) or re.search(r"Given value: (.*)", text)
    expected = dict.fromkeys(re.findall(r"Expected an? ([^\n]+?)(?:\. Got value: [^\n]*)?(?:\n|$)", text))
    if text.count("Parser key") > 1:  # 'model' itself may be left out; that is no help to a wrong value inside it
        expected.pop("<class 'NoneType'>", None)
    # A type comes as <class 'int'>, choices as typing.Literal['adam', 'sgd'].
    choices = ((name, re.fullmatch(r"typing\.Literal\[(.*)\]", name)) for name in expected)
    allowed = [f"one of {m[1]}".replace("'", "") if m else TYPES.get(name[8:-2], name) for name, m in choices]
    return f"{_key(text)}: {value[1] if value else 'this'} is not possible; use {' or '.join(allowed)}"


def _no_class(found: re.Match[str]) -> str:
    text, key = found.string, _key(found.string)
    given = re.search(r"class_path'?[ :=]+'([^']+)'", text) or re.search(r"Given value: (\S+)", text)
    name = given[1] if given else "this"
    reason = re.search(r"Problem with given class_path '[^']+':\s+([^\n]+)", text)
    cause = f"can't be imported ({reason[1]})" if reason else "is not a class for this"
    if "is not allowed" in text:
        cause = "runs code by itself and is not imported"
    if key == "model":
        known = " or ".join(sorted(kind.__name__ for kind in ImageClassifier.__subclasses__()))
        return f"model: {name} {cause}; use {known}, or the import path of your own ImageClassifier"
    return f"{key}: {name} {cause}; name one of lightning.pytorch, or the import path of your own"


# A pattern in the words of jsonargparse or argparse, and ours for it: a template of its groups, or a function.
RULES: dict[str, str | Callable[[re.Match[str]], str]] = {
    # A wrong value for a class that takes the setting; the other classes that were tried do not accept it at all.
    r"Problem with given class_path '[^']+':\s+Parser key \"[^\"]+\":\s+Expected": _wrong_value,
    r"Option '([^']+)' is not accepted": _unknown,
    r"does not accept option '([^']+)'": _unknown,
    r"[Uu]nrecognized arguments: (\S+)": _unknown,
    r"does not correspond to a subclass of|Expected a dot import path string: ": _no_class,
    r"Importing '[^']+' is not allowed": _no_class,
    r"class_path '[^']+'.*(?:No module named|Not a valid|has no attribute)": _no_class,
    r"arguments are required: \w+\.model": "model: missing; give --config configs/cnn.yaml, or --model CNN",
    r"argument --(\S+): invalid int value: '(.*)'": r"\1: \2 is not possible; use a whole number",
    r"Linked \"(\S+)\" must be given via \"(\S+)\"": r"\1: follows \2; give --\2",
    r"argument (?:-\w/)?--(\S+): expected": r"\1: nothing follows it; give a value",
    r"Expected an? ": _wrong_value,
}
