"""Settings that can't be: in flags, in files, and in names of classes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import pytest

from cifar_lightning.__main__ import main
from tests.conftest import CONFIGS
from tests.faults.processes import nobody
from tests.faults.steps import pipe
from tests.faults.table import BEST, FIT, LAST, NEW, NEW_RUN, RESUME, RUN, SMALL, Fault, Table, write


def flags(*faults: str) -> list[Fault]:
    """Return a row of each flag, behind which stands what the line must contain."""
    return [Fault(flag, f"{FIT} {flag}", 2, tuple(says)) for flag, *says in map(str.split, faults)]


def file(name: str, content: str | bytes, *says: str) -> Fault:
    return Fault(f"file: {name}", f"{FIT} --config=a.yaml", 2, says, {"a.yaml": content})


def contradicts(what: str, flag: str, says: str) -> Fault:
    told = (says, "but the checkpoint has", "; leave it out")
    return Fault(f"{what} for a checkpoint", f"test --ckpt_path={BEST} {flag}", 2, told)


TAG = "!!python/object/apply:os.system [touch CANARY]"
ARGS = "args: [touch, CANARY]"
POPEN = "subprocess.Popen"
# Reached through a module of Lightning's that imports it.
INNER = "lightning.pytorch.strategies.launchers.subprocess_script.subprocess.Popen"
LAMBDA = "lightning.pytorch.callbacks.LambdaCallback on_fit_start:"
# Class paths, and constructor arguments behind a blank.
CALLBACKS = (
    'builtins.exec source: \'open("CANARY", "w")\'', "cifar_lightning.utils.files.os.system command: touch CANARY",
    f"{LAMBDA} os.system", f"{LAMBDA} builtins.exec", f"{LAMBDA} lightning.pytorch.trainer.trainer.os.abort",
    *(f"{LAMBDA} {{class_path: {name}, init_args: {{{ARGS}}}}}" for name in (POPEN, INNER)),
)  # fmt: skip


def class_in_file(key: str, text: str) -> Fault:
    class_path, _, init_args = text.partition(" ")
    value = f"{{class_path: {class_path}, init_args: {{{init_args}}}}}"
    value = f"[{value}]" if key in ("callbacks", "plugins") else value
    content = f"{key}: {value}\n" if key == "model" else f"trainer:\n  {key}: {value}\n"
    return file(f"{key} {text}", content, key)


# Modules whose import creates the canary.
EVIL = ("evil_callbacks.py", "lightning_evil.py", "cifar_lightning_evil.py", "packages/pytorch_evil.py")
MINE = """\
from lightning.pytorch import Callback
from cifar_lightning.models import MLP
class Hello(Callback):
    def on_fit_start(self, trainer, pl_module): print("hello from mine")
class Net(MLP): pass
"""


@contextmanager
def modules() -> Iterator[None]:
    """Write modules into the working folder, which Python searches, and one that looks as if it were Lightning's."""
    write(Path("own_classes.py"), MINE)  # stays imported: the parser looks up every living subclass by its import path
    for name in EVIL:
        # No class is defined: a living subclass of Callback would be looked up by the parser in later tests, too.
        write(Path(name), 'open("CANARY", "w").close()\nfrom lightning.pytorch import Callback as X\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path.cwd()))
        patch.setattr(lightning, "__path__", [*lightning.__path__, str(Path("packages").absolute())])
        patch.setattr(sys, "dont_write_bytecode", True)
        try:
            yield
        finally:
            for module in map(Path, EVIL):
                sys.modules.pop(module.stem, None)
                sys.modules.pop(f"lightning.{module.stem}", None)


def trains(flags: str) -> Fault:
    """Return the row of a run that succeeds, and whose checkpoint can be validated."""
    return Fault(flags, f"{FIT} {flags}", 0, changes=NEW_RUN, then=validated)


def validated() -> None:
    assert main(["validate", f"--ckpt_path={NEW}"]) == 0


CALLBACK = "trainer:\n  callbacks: [{class_path: own_classes.Hello}]\n"
HELLO: Any = ("hello from mine",), {"a.yaml": CALLBACK}, NEW_RUN, modules

TABLE: Table = [
    "no such flag: parser",
    *flags("--model.droput=0.3 model.droput model.dropout?", "--bogus=3 bogus", "stray stray"),
    *flags("--model.lr model.lr nothing follows give value"),
    "wrong type in a flag: parser",
    Fault("text for a number", f"{FIT} --model.lr=fast", 2, ("model.lr", "fast", "a number")),
    Fault("half a batch", f"{FIT} --data.batch_size=2.5", 2, ("data.batch_size", "2.5", "a whole number")),
    "out of range in a flag: constructor",
    *flags(
        "--model.weight_decay=-1 model.weight_decay -1", "--model.weight_decay=.inf model.weight_decay inf",
        "--model.lr=.nan model.lr nan", "--model.lr=.inf model.lr inf",
        "--model.width=0 model.width 0", "--model.depth=-1 model.depth -1", "--model.dropout=.nan model.dropout nan",
        "--seed_everything=4294967296 seed_everything 4294967296", f"--seed_everything={10**30} seed_everything",
        "--name= name", "--data.images=[] data.images", "--data.train_size=50000 data.train_size 50000",
    ),
    "out of range in a flag: Lightning",
    *flags(
        "--trainer.devices=0 trainer", "--trainer.precision=99 trainer.precision",
        "--trainer.max_epochs=-2 trainer", "--trainer.accumulate_grad_batches=0 trainer accumulate_grad_batches",
        "--trainer.limit_train_batches=-1 trainer limit_train_batches", "--trainer.max_time=never trainer",
        "--trainer.val_check_interval=1000 val_check_interval",
    ),
    "code in a flag: safe YAML",
    Fault("YAML tag in a list in a flag", f'{FIT} "--data.mirrors=[{TAG}]"', 2, ("data.mirrors",)),
    # To a text it is a name like any other.
    Fault("YAML tag in a flag", f'{FIT} "--data.root={TAG}"', 0, changes=NEW_RUN),
    "wrong setting in a file: parser",
    file("typo", "data:\n  batch_sise: 3\n", "data.batch_sise", "data.batch_size?"),
    file("typo in a section", "dta:\n  batch_size: 3\n", "dta"),
    file("wrong type", "model:\n  class_path: MLP\n  init_args:\n    lr: fast\n", "model", "lr", "fast"),
    file("a checkpoint to start from", f"ckpt_path: {LAST}\n", "ckpt_path", "--ckpt_path"),
    file("a run to resume", f"resume: {RUN}\n", "resume", "--resume"),
    "a file that is not YAML: file check",
    file("not YAML", "data:\n  batch_size: [\n", "a.yaml, line 3", "not valid YAML"),
    file("refers to itself", "data: &a {root: *a}\n", "data.root"),
    file("ten thousand brackets", "[" * 10_000, "a.yaml"),
    file("empty", "", "a.yaml", "no settings"),
    file("binary", bytes(range(256)), "a.yaml", "not a text file"),
    file("zero bytes", b"\0" * 100, "a.yaml"),
    file("one word", "hello\n", "a.yaml", "no settings"),
    "code in a file: safe YAML",
    file("YAML tag that runs", f"data: {TAG}\n", "a.yaml, line 1"),
    file("YAML tag that makes", "data: !!python/object/new:subprocess.Popen [[touch, CANARY]]\n", "a.yaml, line 1"),
    file("YAML tag that imports", "data: !!python/module:evil\n", "a.yaml, line 1"),
    file("YAML tag that names", "data: !!python/name:os.system\n", "a.yaml, line 1"),
    "no file to read: file check",
    Fault("file: missing", f"{FIT} --config=nowhere.yaml", 2, ("nowhere.yaml", "no such file")),
    Fault("file: settings in its place", f'{FIT} "--config={{data: {{batch_size: 3}}}}"', 2, ("no such file",)),
    Fault("file: a folder", f"{FIT} --config=logs", 2, ("logs",)),
    Fault("file: a name too long", f"{FIT} --config={'a' * 300}.yaml", 2, ("aaa.yaml",)),
    Fault("file: a pipe", f"{FIT} --config=a.yaml", 2, ("a.yaml",), {"a.yaml": pipe}),
    Fault("file: unreadable", f"{FIT} --config=a.yaml", 2, ("a.yaml", "denied"), child=nobody,
          files={"a.yaml": partial(Path.touch, mode=0)}),
    "arguments that exclude each other: command line",
    Fault("a run and a checkpoint", f"{RESUME} --ckpt_path={LAST}", 2, ("resume", "--ckpt_path")),
    Fault("a run to test", f"test --resume={RUN}", 2, ("resume", "--ckpt_path")),
    Fault("no such command", "train", 2,
          ("command: 'train' is not possible; use one of fit, validate, test, predict",)),
    "settings unlike the checkpoint's: validation",
    contradicts("another model", "--model=CNN", "model.class_path"),
    contradicts("another model's file", f"--config={CONFIGS / 'cnn.yaml'}", "model.class_path"),
    contradicts("another width", "--model.width=9", "model.width: 9"),
    contradicts("no batch norm", "--model.batch_norm=false", "model.batch_norm: False"),
    contradicts("other data", "--data.source=cifar10", "data.source: 'cifar10'"),
    Fault("nothing to validate on", f"validate --ckpt_path={BEST} --data.val_size=0", 2,
          ("data.val_size: 0 leaves nothing to validate on",)),
    "a class of the wrong kind in a flag: parser",
    *flags("--model=os.system model", "--model=builtins.eval model"),
    *flags("--trainer.callbacks=os.system trainer.callbacks os.system not allowed"),
    *flags("--model=lightning.pytorch.LightningModule model"),
    "a class of the wrong kind in a file: parser",
    *(class_in_file(key, f"{POPEN} {ARGS}") for key in ("model", "callbacks", "logger", "plugins", "profiler")),
    *(class_in_file(key, f"{INNER} {ARGS}") for key in ("model", "callbacks", "strategy")),
    *(class_in_file("callbacks", text) for text in CALLBACKS),
    "a class of a person's own: used",
    Fault("own callback in a flag", f"{FIT} --name=mlp --trainer.callbacks+=own_classes.Hello", 0, *HELLO),
    Fault("own callback in a file", f"{FIT} --name=mlp --config=a.yaml", 0, *HELLO),
    Fault("own model in a flag", f"fit --name=mlp --model=own_classes.Net {SMALL} --config=a.yaml", 0, *HELLO),
    "settings of a kind of their own: trained and validated",
    # With batch norm one image is refused; the CNN has its pixels to average over.
    *(trains(flags) for flags in (
        "--model.batch_norm=false --data.batch_size=1 --trainer.limit_train_batches=2",
        "--model=CNN --model.channels=[4] --data.batch_size=1 --trainer.limit_train_batches=2",
        "--trainer.precision=bf16-mixed", "--trainer.precision=bf16-true", "--trainer.enable_progress_bar=false",
    )),
]  # fmt: skip
