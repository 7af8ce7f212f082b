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
from cifar_lightning.errors import InputError, ReportedError, RunError, causes
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


# The words of PyTorch on CPU, CUDA and MPS, which have no exception in common.
NO_MEMORY = "(?i)out of memory|can't allocate memory|not enough memory"


def explain(error: BaseException) -> tuple[str, int]:
    """Return what to print after `error: `, and the exit status, for whatever ends a command."""
    for each in causes(error):
        if isinstance(each, ReportedError):
            full = next((name for name in _settings() if name.rpartition(".")[2] == each.field), each.field)
            return f"{full}: {each.cause}; {each.remedy}", each.status
    text = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, ArgumentError):  # jsonargparse has no types to tell its errors apart, so the text decides
        for pattern, reword in RULES.items():
            if found := re.search(pattern, str(error)):
                return found.expand(reword) if isinstance(reword, str) else reword(found), 2
        return f"command line: {text}; `fit --help` lists what there is", 2
    raised_in = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)[-1:]]
    by_lightning = any(Path(lightning.__file__).parent in file.parents for file in raised_in)
    if by_lightning and isinstance(error, ValueError | ImportError | MisconfigurationException):
        mentioned = [f".{word}" for word in re.findall(r"\w+", text) if word in signature(Trainer).parameters]
        return f"trainer{mentioned[0] if mentioned else ''}: {text}; `fit --help` lists what it takes", 2
    if isinstance(error, OSError) and (error.filename or error.errno in FULL):
        remedy = REMEDIES.get(error.errno or 0, "fix that, and start again")
        return f"{error.filename or 'disk'}: {error.strerror}; {remedy}", 1
    if any(map(_out_of_memory, causes(error))):
        return "model: it does not fit in memory; make it narrower or shallower", 1
    return f"{type(error).__name__}: {text}; --debug shows where", 1


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or bool(re.search(NO_MEMORY, str(error)))


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
    """Name the batch size or the checkpoint where one of these ends a command."""
    try:
        yield
    except (ReportedError, OSError):
        raise
    except Exception as error:
        if _out_of_memory(error):
            # By now the Trainer has forgotten its stage; the model is still in training mode, or not.
            name = "batch_size" if trainer.lightning_module.training else "eval_batch_size"
            size = getattr(CIFAR10DataModule.of(trainer), name)
            remedy = f"try --data.{name} {max(1, size // 2)}"
            raise RunError(f"data.{name}", f"{size} images do not fit in memory", remedy) from error
        frames = traceback.extract_tb(error.__traceback__)
        # Lightning takes a checkpoint apart in methods of such names, and lets any exception through.
        if checkpoint and any("restore" in frame.name for frame in frames):
            cause = f"can't be restored ({type(error).__name__}: {' '.join(str(error).split())})"
            raise InputError(str(checkpoint), cause, REMEDY) from error
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
    if not found[1].startswith("-") and "unrecognized" in found.string:
        return f"{found[1]}: an argument that belongs to no flag; flags start with --"
    name = _key(found.string, found[1].lstrip("-").partition("=")[0]).replace(".init_args.", ".")
    if name in _settings():
        return f"{name}: no architecture comes before it; give --config configs/cnn.yaml or --model CNN first"
    near = get_close_matches(name, _settings(), n=1, cutoff=0.7)
    return f"{name}: there is no such setting; " + (f"did you mean {near[0]}?" if near else "`fit --help` lists them")


def _wrong_value(found: re.Match[str]) -> str:
    value = re.search(r"(?:Got|Given) value: (.*)", found.string)
    # A type comes as <class 'int'>, choices as typing.Literal['adam', 'sgd'].
    expected = re.findall(r"Expected an? (?:<class '|typing\.)?(.+?)(?:'>)?(?:\. Got.*)?$", found.string, re.MULTILINE)
    allowed = dict.fromkeys(TYPES.get(x, re.sub(r"Literal\[(.*)]", r"one of \1", x)).replace("'", "") for x in expected)
    if found.string.count("Parser key") > 1:  # 'model' itself may be left out; that is no help to a value inside it
        allowed.pop("null", None)
    return f"{_key(found.string)}: {value[1] if value else 'this'} is not possible; use {' or '.join(allowed)}"


def _no_class(found: re.Match[str]) -> str:
    key, given = _key(found.string), re.search(r"(?:class_path'?[ :=]+'|Given value: )([^'\s]+)", found.string)
    reason = f" ({found[1]})" if found.lastindex else ""
    use = "name one of lightning.pytorch"
    if key == "model":
        use = f"use {' or '.join(sorted(kind.__name__ for kind in ImageClassifier.__subclasses__()))}"
    return f"{key}: {given[1] if given else 'this'} can't be used{reason}; {use}, or the import path of your own"


# A pattern in the words of jsonargparse, and ours for it: a template of its groups, or a function.
RULES: dict[str, str | Callable[[re.Match[str]], str]] = {
    r"(Importing '[^']+' is not allowed)": _no_class,
    # A wrong value for a class that takes the setting; the other classes that were tried do not accept it at all.
    r"Problem with given class_path '[^']+':\s+Parser key \"[^\"]+\":\s+(?:Expected|Does not)": _wrong_value,
    r"(?:Option|does not accept option) '([^']+)'": _unknown,
    r"[Uu]nrecognized arguments: (\S+)": _unknown,
    r"Problem with given class_path '[^']+':\s+(.+)": _no_class,
    r"does not correspond to a subclass of|Expected a dot import path string: |Not a valid subclass of": _no_class,
    r"arguments are required: \w+\.model": "model: missing; give --config configs/cnn.yaml, or --model CNN "
    "(to resume, fit --resume RUN needs neither)",
    r"Linked \"(\S+)\" must be given via \"(\S+)\"": r"\1: follows \2; give --\2",
    r"Expected an? ": _wrong_value,
}
