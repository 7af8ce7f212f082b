"""One line for a person out of an exception: which setting, which value, what is allowed, the nearest name."""

import contextlib
import errno
import pydoc
import re
import traceback
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from inspect import Parameter, signature
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer, loggers, plugins, profilers
from lightning.pytorch import callbacks as lightning_callbacks

from cifar_lightning.cli.launch import lost_connection
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.errors import InputError, ReportedError, RunError, causes, check
from cifar_lightning.models import ImageClassifier
from cifar_lightning.runs.checkpoint import OURS, REMEDY

TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "NoneType": "null"}
TYPES |= {"collections.abc.Sequence": "a list such as [a,b]", "dict": "a mapping such as {NAME: VALUE}"}

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
    if lost_connection(error):
        return "trainer.devices: another process of this run has ended; start again (a run: fit --resume RUN)", 1
    if any(map(_out_of_memory, causes(error))):
        return "model: it does not fit in memory; make it narrower or shallower", 1
    text = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, ArgumentError):  # jsonargparse has no types to tell its errors apart, so the text decides
        tried = re.sub(r"\n\s*- Expected a path but .*|\n(?=\n)", "", str(error))  # it tries all as a file first
        for pattern, reword in RULES.items():
            if found := re.search(pattern, tried):
                return found.expand(reword) if isinstance(reword, str) else reword(found), 2
        return f"command line: {text}; `fit --help` lists what there is", 2
    if found := re.search(REFUSED, str(error)):
        return _refused(found), 2
    frames = traceback.extract_tb(error.__traceback__)
    by_lightning = any(Path(lightning.__file__).parent in Path(frame.filename).parents for frame in frames[-1:])
    wrong: tuple[type[Exception], ...] = (ValueError, ImportError, MisconfigurationException)
    if any(frame.name == "instantiate_trainer" for frame in frames):
        wrong = (*wrong, TypeError)  # once it runs, a TypeError is a fault of the program
    if by_lightning and isinstance(error, wrong):
        mentioned = [f".{word}" for word in re.findall(r"\w+", text) if word in signature(Trainer).parameters]
        cause, remedy = _package(text, "it") or (text, "`fit --help` lists what it takes")
        return f"trainer{mentioned[0] if mentioned else ''}: {cause}; {remedy}", 2
    if isinstance(error, OSError) and (error.filename or error.errno in FULL):
        remedy = REMEDIES.get(error.errno or 0, "fix that, and start again")
        return f"{error.filename or 'disk'}: {error.strerror}; {remedy}", 1
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
        if checkpoint is None or status != InputError.status or text.startswith("SLURM_"):  # which are the job's
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
        if name := _failing_callback(error):
            text = " ".join(str(error).split()).rstrip(".")
            starts = any(frame.name == "on_train_start" for frame in frames)  # a resumed run has its steps by then
            kind = RunError if trainer.global_step and not starts else InputError
            cause, remedy = _package(text, "it") or (text, "give it other settings, or leave it out")
            raise kind("trainer.callbacks", f"{name}: {cause}", remedy) from error
        raise


def _failing_callback(error: BaseException) -> str:
    """Return the class of the callback in whose code of Lightning's an exception was raised; empty if it was not so."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    own = [frame for frame in frames if Path(torch.__file__).parent not in Path(frame.f_code.co_filename).parents]
    callback = own[-1].f_locals.get("self")
    lightnings = Path(lightning.__file__).parent in Path(own[-1].f_code.co_filename).parents
    return type(callback).__name__ if lightnings and isinstance(callback, Callback) else ""


def _architectures() -> list[type[ImageClassifier]]:
    kinds = [kind for kind in ImageClassifier.__subclasses__() if kind.__module__.startswith(OURS)]
    return sorted(kinds, key=lambda kind: kind.__name__)


def _settings() -> list[str]:
    kinds = [("data", CIFAR10DataModule), ("trainer", Trainer), ("model", ImageClassifier)]
    kinds += [("model", kind) for kind in _architectures()]
    named = [f"{group}.{name}" for group, kind in kinds for name in arguments(kind)]
    return ["model", "model.class_path", "config", "ckpt_path", "seed_everything", "logs", "name", *named]


def arguments(kind: type) -> dict[str, Parameter]:
    """Return a constructor's arguments by name, with those that it hands on to its base class."""
    found: dict[str, Parameter] = {}
    for base in kind.__mro__:
        if "__init__" in vars(base):
            own = signature(base).parameters.values()
            found |= {each.name: each for each in own if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)}
            if not any(each.kind == each.VAR_KEYWORD for each in own):
                break
    return found


def check_nulls(group: str, kind: type, values: Mapping[str, Any]) -> None:
    """Refuse nothing as a value (`batch_size:` in a file) for an argument that must have one: the parser does not."""
    for name, argument in arguments(kind).items():
        may_be_null = argument.default is None or re.search("None|Optional", str(argument.annotation))
        holds = bool(may_be_null) or values.get(name, 0) is not None
        check(holds, f"{group}.{name}", None, "a value, or leave it out")


def _key(found: re.Match[str]) -> str:
    """Return the setting that a message is about: its nested parser keys, joined, or what takes such a class."""
    keys = re.findall(r'Parser key "([^"]+)"', found.string[: found.end()])
    if base := re.search(r"Subtypes: \[(?:list\[|<class ')([\w.]+)", "" if keys else found.string):
        # Once it is parsed, a message tells only of which class an object was to be.
        takes = (name for name, each in signature(Trainer).parameters.items() if base[1] in str(each.annotation))
        return f"trainer.{next(takes)}" if base[1].startswith("lightning.") else "model"
    inner = [key for key, after in pairwise([*keys, ""]) if not after.startswith(f"{key}.")]
    return ".".join(inner) or "command line"


def _nearest(name: str) -> str:
    group, _, last = name.rpartition(".")
    known = {each.rpartition(".")[2]: each for each in _settings() if group in ("", each.rpartition(".")[0])}
    near = [known[each] for each in get_close_matches(last, known, n=1, cutoff=0.7)]
    if not known:  # there is no such group
        near = get_close_matches(name, _settings(), n=1, cutoff=0.7)
    near = [FORMER[last]] if last in FORMER else near
    return f"did you mean {near[0]}?" if near else "`fit --help` lists them"


def _unknown(found: re.Match[str]) -> str:
    if not found[1].startswith("--") and "unrecognized" in found.string:
        return f"{found[1]}: an argument that belongs to no flag; flags start with --"
    name = found[1].lstrip("-").partition("=")[0]
    short = name.replace(".init_args.", ".")
    if short in _settings() and short.startswith("model."):
        return f"{short}: {NO_ARCHITECTURE}"
    return f"{name}: there is no such setting; {_nearest(short)}"


def _problem(found: re.Match[str]) -> str:
    """Say what is wrong with the arguments of a class, or with its name."""
    key, path, cause, kind = _key(found), found[1], found[2], pydoc.locate(found[1])
    name = path.rpartition(".")[2]
    if option := re.match(r"Option '(?:init_args\.)?([^']+)'", cause):
        return _no_argument(key, kind, option[1], found.string)
    if missing := re.match(r"the following arguments are required: ([\w.]+)", cause):
        setting = f"{key}.{missing[1]}"
        return f"{setting}: missing, {name} needs it; give --{setting} VALUE, or it as one of init_args"
    if cause.startswith("Parser key"):
        following = found.string[found.end() :].split("\n")[1].strip(" -")
        if following.startswith(("Does not", "Expected")):
            return _wrong_value(found)
        return f"{key}: {following}; `fit --{key.rpartition('.')[0]}.help {name}` lists what it takes"
    if package := _package(cause, name):
        return f"{key}: {package[0]}; {package[1]}"
    if not isinstance(kind, type):
        return _no_class(found)
    if "object has no attribute 'keys'" in cause:
        return f"{key}.init_args: not the arguments of {name}; write them as `name: value` lines"
    return f"{key}: {name}: {cause.rstrip('.')}; `fit --{key}.help {name}` lists what it takes"


def _no_argument(key: str, kind: object, option: str, message: str) -> str:
    if kind is ImageClassifier:
        return f"{key}.{option}: {NO_ARCHITECTURE}"
    typed = "NestedArg(" in message
    if kind is Callback and typed:
        return f"{key}.{option}: no class comes before it; give --{key}+=NAME first"
    if not isinstance(kind, type) or kind is Callback or (option == "class_path" and not typed):
        value = re.findall("Given value: (.*)", message)[-1]
        return f"{key}: {value} {NOT_A_CLASS}"
    own, others = list(arguments(kind)), [each.__name__ for each in _architectures() if option in arguments(each)]
    near = get_close_matches(option, own, n=1)
    belongs = f", which belongs to {', '.join(others)}" if others and key == "model" else ""
    remedy = f"did you mean {key}.{near[0]}?" if near else f"its settings are {', '.join(own)}"
    return f"{key}.{option}: {kind.__name__} has no {option}{belongs}; {remedy}"


def _refused(found: re.Match[str]) -> str:
    """Say why a class of Lightning's or of a person's own was not made of what was parsed well."""
    if problem := re.search(PROBLEM, found.string):
        return _problem(problem)
    names = dict.fromkeys(path.rpartition(".")[2] for path in re.findall(r"class_path='([^']+)'", found.string))
    key, cause = _key(found), " ".join(found[1].split()).rstrip(".")
    return f"{key}: {' or '.join(names)}: {cause}; `fit --{key}.help NAME` lists what it takes"


def _package(text: str, name: str) -> tuple[str, str] | None:
    """Return what is wrong with a class of that name and the remedy, if a package is missing."""
    if found := re.search(r"pip install (?:-U )?['\"]?([^'\"`\s]+)", text):
        cause = re.split(r"\.?\s*(?:Requirement|HINT|Install)\b", text)[0]
        return cause or f"{name} needs {found[1]}, which is not installed", f"pip install '{found[1]}'"
    return None


def _wrong_value(found: re.Match[str]) -> str:
    key, text = _key(found), found.string
    inner = text[max(0, text.rfind("Parser key", 0, found.end())) :]
    value = re.search(r"(?:Got|Given) value: (.*)", inner)
    if value and "'class_path': " in value[1]:
        return f"{key}: {value[1]} {NOT_A_CLASS}"
    inner = re.sub("a dot (import path) string.*", r"an \1", inner[: value.start()] if value else inner)
    # A type comes as <class 'int'>, choices as typing.Literal['adam', 'sgd'].
    expected = re.findall(r"(?:Expected|expects) an? (?:<class '|typing\.)?(.+?)(?:'>)?\.?\s*$", inner, re.MULTILINE)
    allowed = dict.fromkeys(TYPES.get(x, re.sub(r"Literal\[(.*)]", r"one of \1", x)).replace("'", "") for x in expected)
    if key.startswith("model"):  # 'model' itself may be left out; that is no help to a value inside it
        allowed.pop("null", None)
    use = f"use {' or '.join(allowed)}" if allowed else "`fit --help` lists what it takes"
    return f"{key}: {value[1] if value else 'this'} is not possible; {use}"


def _no_class(found: re.Match[str]) -> str:
    key, text = _key(found), found.string
    patterns = r"class_path '([^']+)'|class_path': '([^']+)'|Import path (\S+) does|path string: (\S+)|value: (.+)"
    named = re.search(patterns, text)
    given = next(filter(None, named.groups()), "") if named else ""
    if given.startswith(("{", "[{")):
        return f"{key}: {given} {NOT_A_CLASS}"
    reason = f" ({found[found.lastindex]})" if found.lastindex else ""
    if key == "model":
        known = [kind.__name__ for kind in _architectures()]
    else:
        known = [*loggers.__all__, *lightning_callbacks.__all__, *profilers.__all__, *plugins.__all__]
    word = given.rpartition(".")[2]
    near = [name for name in known if len(word) > 2 and name.lower().startswith(word.lower())]
    near = near or get_close_matches(word, known, n=1, cutoff=0.75)
    use = f"use {', '.join(known[:-1])} or {known[-1]}" if key == "model" else "name one of lightning.pytorch"
    own = "your own subclass of cifar_lightning.models.ImageClassifier" if key == "model" else "your own"
    remedy = f"did you mean {near[0]}?" if near else f"{use}, or the import path of {own}"
    return f"{key}: {given or 'this'} can't be used{reason}; {remedy}"


# What people of other versions, or of other programs, type.
FORMER = {
    **{"gpus": "trainer.accelerator", "epochs": "trainer.max_epochs", "seed": "seed_everything"},
    **{"lr_scheduler": "model.schedule", "resume_from_checkpoint": "resume"},
}
NO_ARCHITECTURE = "no architecture comes before it; give --config configs/cnn.yaml or --model CNN first"
NOT_A_CLASS = "is not how a class is written; write {class_path: NAME, init_args: {ARGUMENT: VALUE}}"
PROBLEM = r"Problem with given class_path '([^']+)':\s+(.+)"
REFUSED = r"^Does not validate against any of the Union subtypes\s(?:.*\s)*?Errors:\s+- (.+)"
# A pattern in the words of jsonargparse, and ours for it: a template of its groups, or a function.
RULES: dict[str, str | Callable[[re.Match[str]], str]] = {
    r"(Importing '[^']+' is not allowed)": _no_class,
    PROBLEM: _problem,
    r"does not accept option '([^']+)'": _unknown,
    r"[Uu]nrecognized arguments: (\S+)": _unknown,
    r"argument (?:--)?([\w.]+)\S*: expected one argument": r"\1: nothing follows it; give a value",
    r"(?m)Key must be a string, got: (.+?)\.?$": r"\1: no name of a setting; write names as in configs/cnn.yaml",
    r"Parser key \"([\w.]+)\":\s+unsupported operand": r"\1: a number in the place of a name; write {NAME: VALUE}",
    r"Parser key \"config\": (.+)": r"config: \1; give each file as --config FILE",
    r"Parser key \"(\w+)\":\s+Unable to load config '(.*)'\s+- .*Unable": r"\1: \2 is no file of its settings; "
    r"give each as --\1.NAME VALUE",
    r"does not correspond to a subclass of|Expected a dot import path string: |Not a valid subclass of": _no_class,
    r"arguments are required: \w+\.model": "model: missing; give --config configs/cnn.yaml, or --model CNN "
    "(to resume, fit --resume RUN needs neither)",
    r"Linked \"(\S+)\" must be given via \"(\S+)\"": r"\1: follows \2; give --\2",
    r"Expected an? ": _wrong_value,
}
