"""argparse whose errors are one line."""

import argparse
from typing import NoReturn

from cifar_lightning.errors import InputError


class OneLineParser(argparse.ArgumentParser):
    """For a command with a few flags of its own."""

    def error(self, message: str) -> NoReturn:
        raise InputError("command line", message, f"`{self.prog.rpartition(' ')[2]} --help` lists what there is")
