"""Arguments that are read before jsonargparse parses the rest."""

import argparse
import json
from collections.abc import Sequence

from cifar_lightning.errors import check


def read(args: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Take `--ckpt_path` and `--resume` out: Lightning would put the checkpoint's settings over explicit flags.

    Returns:
        What these give, and `logs`, `name`, `model` and all `config` files, which stay; and the other arguments.

    Raises:
        argparse.ArgumentError: No value follows a flag.
        InputError: A path is empty.
    """
    given, rest = _parser("--ckpt_path", "--resume").parse_known_args(args)
    for name, value in vars(given).items():
        check(value != "", name, value, "a path")
    others = _parser("--logs", "--name", "--model")
    others.add_argument("--config", "-c", action="append", default=[])
    others.parse_known_args(rest, given)
    return given, _join_images(rest)


def _parser(*flags: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for flag in flags:
        parser.add_argument(flag)
    return parser


def _join_images(args: list[str]) -> list[str]:
    """Make one list of the files behind --data.images, as a shell expands `*.png`."""
    parser = _parser()
    parser.add_argument("--data.images", nargs="+", dest="images", default=[])
    found, rest = parser.parse_known_args(args)
    return [*rest, f"--data.images={json.dumps(found.images)}"] if len(found.images) > 1 else args
