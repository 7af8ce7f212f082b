"""Arguments that are looked at before jsonargparse parses the rest."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from cifar_lightning.errors import check


@dataclass(frozen=True)
class Arguments:
    """The arguments of a command.

    Attributes:
        ckpt_path: What `--ckpt_path` gives, taken out: Lightning would put its settings over explicit flags.
        resume: What `--resume` gives, taken out.
        logs: What `--logs` gives.
        name: What `--name` gives.
        model: What `--model` gives.
        configs: All configuration files, in order.
        rest: All arguments but those taken out, in order.
    """

    ckpt_path: str | None
    resume: str | None
    logs: str | None
    name: str | None
    model: str | None
    configs: list[str]
    rest: list[str]

    @classmethod
    def read(cls, args: Sequence[str]) -> Self:
        """Look at arguments.

        Raises:
            argparse.ArgumentError: No value follows a flag.
            InputError: A path is empty.
        """
        taken, rest = _parser("--ckpt_path", "--resume").parse_known_args(args)
        for name in ("ckpt_path", "resume"):
            check(getattr(taken, name) != "", name, "", "a path")
        own = _parser("--logs", "--name", "--model")
        own.add_argument("--config", "-c", action="append", default=[], dest="configs")
        seen, _ = own.parse_known_args(rest)
        return cls(**vars(taken), **vars(seen), rest=_join_images(rest))

    @property
    def has_settings(self) -> bool:
        """Whether settings are among them, which may be what is wrong."""
        return any(arg.startswith(("--model", "--data", "--trainer", "--config", "-c")) for arg in self.rest)


def _parser(*flags: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for flag in flags:
        parser.add_argument(flag)
    return parser


def _join_images(args: list[str]) -> list[str]:
    """Make one list of the files behind --data.images, as a shell expands `*.png`."""
    parser = _parser()
    parser.add_argument("--data.images", nargs="+", dest="images")
    found, rest = parser.parse_known_args(args)
    if not found.images or len(found.images) == 1:
        return args
    return [*rest, f"--data.images={json.dumps(found.images)}"]
