"""What is done to the words of a command before they are parsed."""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from cifar_lightning.errors import InputError


def values_of(flags: Sequence[str], args: Sequence[str]) -> Iterator[str]:
    """What follows each use of a flag, or stands behind its equals sign."""
    for arg, following in pairwise([*args, ""]):
        if arg in flags and following and not following.startswith("-"):
            yield following
        elif "=" in arg and arg.partition("=")[0] in flags:
            yield arg.partition("=")[2]


def last_value(flag: str, args: Sequence[str]) -> str | None:
    """What the last use of a flag gives; nothing where there is none."""
    *_, value = [None, *values_of((flag,), args)]
    return value


def without(flag: str, args: Sequence[str]) -> list[str]:
    """The words less each use of a flag and its value."""
    after = [None, *args]
    return [arg for before, arg in zip(after, args, strict=False) if before != flag and arg.partition("=")[0] != flag]


def check_values(args: Sequence[str]) -> None:
    """Raises an `InputError` unless a value follows each flag."""
    for arg, following in pairwise([*args, "--"]):
        if re.fullmatch(r"--[\w.]+", arg) and following.startswith("--") and arg not in ("--help", "--print_config"):
            raise InputError(arg.lstrip("-"), "nothing follows it", "give a value")


def join_images(args: Sequence[str]) -> list[str]:
    """Makes one list of the pictures behind --data.images, as a shell expands `*.png`."""
    flag = "--data.images"
    if flag not in args:
        return list(args)
    start = args.index(flag) + 1
    stop = next((i for i in range(start, len(args)) if args[i].startswith("-")), len(args))
    return [*args[: start - 1], f"{flag}={json.dumps(args[start:stop])}", *args[stop:]]
