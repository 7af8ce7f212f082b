"""Imported once by the server that forks each command, so that a command takes a second and not ten."""

import pytest  # noqa: F401 - the main module of whoever starts them
import tensorboard.summary  # noqa: F401 - imported for the forked commands, as those below

import cifar_lightning.cli.lightning_cli
import cifar_lightning.report.render
import cifar_lightning.study.command
import cifar_lightning.study.worker  # noqa: F401
from cifar_lightning.data import synthetic

_SETS = {train: synthetic.make(train=train) for train in (True, False)}
setattr(synthetic, "make", lambda *, train: _SETS[train])  # noqa: B010 - mypy minds an assignment
