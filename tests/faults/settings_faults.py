"""Settings that can't be: in flags, in files, and in names of classes."""

import sys
from collections.abc import Iterator
from pathlib import Path

from tests.faults import children
from tests.faults.table import (
    BEST, FIT, LAST, NEW_RUN, RESUME, RUN, Fault, Place, Table, both, crossed, damaged, pipe, unreadable, written,
)  # fmt: skip


def command(name: str, words: str, *says: str) -> Fault:
    return Fault(name, words, 2, says)


def flags(*faults: str) -> list[Fault]:
    """Return a row of each flag, behind which stands what the line must contain."""
    return [Fault(flag, f"{FIT} {flag.removeprefix('*')}", 2, tuple(says)) for flag, *says in map(str.split, faults)]


def file(name: str, content: str | bytes, *says: str) -> Fault:
    """Return the row of a fault in a configuration file."""
    star = "*" if name.startswith("*") else ""
    return Fault(f"{star}file: {name.removeprefix('*')}", f"{FIT} --config=a.yaml", 2, says, written("a.yaml", content))


# Each level ten times the one before.
LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
TAG = "!!python/object/apply:os.system [touch CANARY]"

TABLE: Table = {
    "no such flag: parser": flags(
        "*--model.droput=0.3 model.droput model.dropout?", "--bogus=3 bogus", "stray stray", "--model.lr model.lr",
    ),
    "wrong type in a flag: parser": [
        command("*text for a number", f"{FIT} --model.lr=fast", "model.lr", "fast", "a number"),
        command("half a batch", f"{FIT} --data.batch_size=2.5", "data.batch_size", "2.5", "a whole number"),
        *flags("--trainer.max_epochs=abc trainer.max_epochs abc"),
    ],
    "out of range in a flag: constructor": flags(
        "--model.lr=.nan model.lr nan",
        "--model.lr=.inf model.lr inf",
        "*--model.weight_decay=-1 model.weight_decay -1",
        "--model.weight_decay=.inf model.weight_decay inf",
        "--model.width=0 model.width 0",
        "--model.depth=-1 model.depth -1",
        "--model.dropout=.nan model.dropout nan",
        "--seed_everything=4294967296 seed_everything 4294967296",
        f"--seed_everything={10**30} seed_everything",
        "--name= name",
        "--data.images=[] data.images",
        "--data.train_size=50000 data.train_size 50000",
    ),
    "out of range in a flag: Lightning": flags(
        "--trainer.max_epochs=-2 trainer",
        "*--trainer.devices=2 trainer",
        "--trainer.devices=0 trainer",
        "--trainer.precision=99 trainer.precision",
        "--trainer.accumulate_grad_batches=0 trainer accumulate_grad_batches",
        "--trainer.limit_train_batches=-1 trainer limit_train_batches",
        "--trainer.max_time=never trainer",
        "--trainer.val_check_interval=1000 val_check_interval",
    ),
    "code in a flag: safe YAML": [
        # To a text it is a name like any other.
        Fault("YAML tag in a flag", f'{FIT} "--data.root={TAG}"', 0, changes=NEW_RUN),
        command("*YAML tag in a list in a flag", f'{FIT} "--data.mirrors=[{TAG}]"', "data.mirrors"),
    ],
    "wrong setting in a file: parser": [
        file("*typo", "data:\n  batch_sise: 3\n", "data.batch_sise", "data.batch_size?"),
        file("typo in a section", "dta:\n  batch_size: 3\n", "dta"),
        file("wrong type", "model:\n  class_path: MLP\n  init_args:\n    lr: fast\n", "model", "lr", "fast"),
        file("a list for a section", "data: [1]\n", "data"),
        file("a checkpoint to start from", f"ckpt_path: {LAST}\n", "ckpt_path", "--ckpt_path"),
        file("a run to resume", f"resume: {RUN}\n", "resume", "--resume"),
    ],
    "a file that is not YAML: file check": [
        file("*not YAML", "data:\n  batch_size: [\n", "a.yaml, line 3", "not valid YAML"),
        file("a tab", "data:\n\tbatch_size: 3\n", "a.yaml, line 2", "not valid YAML"),
        file("no such anchor", "data: *nowhere\n", "a.yaml, line 1", "not valid YAML"),
        file("refers to itself", "data: &a {root: *a}\n", "data.root"),
        file("ten thousand brackets", "[" * 10_000, "a.yaml"),
        file("a hundred million of a few bytes", f"{LAUGHS}data: {{mirrors: *a8}}\n", "values"),
        file("empty", "", "a.yaml", "no settings"),
        file("binary", bytes(range(256)), "a.yaml", "not a text file"),
        file("zero bytes", b"\0" * 100, "a.yaml"),
        file("one word", "hello\n", "a.yaml", "no settings"),
    ],
    "code in a file: safe YAML": [
        file("*YAML tag that runs", f"data: {TAG}\n", "a.yaml, line 1"),
        file("YAML tag that makes", "data: !!python/object/new:subprocess.Popen [[touch, CANARY]]\n", "a.yaml, line 1"),
        file("YAML tag that imports", "data: !!python/module:evil\n", "a.yaml, line 1"),
        file("YAML tag that names", "data: !!python/name:os.system\n", "a.yaml, line 1"),
    ],
    "no file to read: file check": [
        command("*file: missing", f"{FIT} --config=nowhere.yaml", "nowhere.yaml", "no such file"),
        command("file: settings in its place", f'{FIT} "--config={{data: {{batch_size: 3}}}}"', "no such file"),
        command("file: a folder", f"{FIT} --config=logs", "logs"),
        command("file: a name too long", f"{FIT} --config={'a' * 300}.yaml", "aaa.yaml"),
        Fault("file: a pipe", f"{FIT} --config=a.yaml", 2, ("a.yaml",), damaged(pipe, "a.yaml")),
        Fault("file: unreadable", f"{FIT} --config=a.yaml", 2, ("a.yaml", "denied"), damaged(unreadable, "a.yaml"),
              child=children.nobody),
    ],
    "arguments that exclude each other: command line": [
        command("*a run and a checkpoint", f"{RESUME} --ckpt_path={LAST}", "resume", "--ckpt_path"),
        command("a run to test", f"test --resume={RUN}", "resume", "--ckpt_path"),
        command("a run to predict with", f"predict --resume={RUN} --ckpt_path={BEST}", "resume", "--ckpt_path"),
        command("no such command", "train", "train", "fit"),
        command("a flag before the command", "--config=a.yaml fit", "command"),
    ],
    "settings unlike the checkpoint's: validation": [
        command("*other settings for a run", f"{RESUME} --model.lr=0.5", "model.lr", "0.5"),
        command("another model for a checkpoint", f"test --ckpt_path={BEST} --model=CNN", "model", "CNN"),
        command("another width for a checkpoint", f"test --ckpt_path={BEST} --model.width=9", "model"),
        command("other data for a checkpoint", f"test --ckpt_path={BEST} --data.source=cifar10", "data.source"),
        command("fewer epochs than done", f"{RESUME} --trainer.max_epochs=1", "trainer.max_epochs"),
    ],
}  # fmt: skip

# Modules whose import creates the canary.
EVIL = ("evil_callbacks.py", "lightning_evil.py", "cifar_lightning_evil.py", "packages/pytorch_evil.py")
CONTENT = 'open("CANARY", "w").close()\nfrom lightning.pytorch import Callback\nclass X(Callback): pass\n'


def evil_modules(place: Place) -> None:
    """Write modules into the working folder, which Python searches, and one that looks as if it were Lightning's."""
    import lightning

    place.patch.syspath_prepend(str(place.folder))
    place.patch.setattr(lightning, "__path__", [*lightning.__path__, str(place.folder / "packages")])
    place.patch.setattr(sys, "dont_write_bytecode", True)
    for name in EVIL:
        place.write(name, CONTENT)
        for module in (Path(name).stem, f"lightning.{Path(name).stem}"):
            place.stack.callback(sys.modules.pop, module, None)


X = "evil_callbacks.X"
ARGS = "args: [touch, CANARY]"
POPEN = "subprocess.Popen"
# Reached through a module of Lightning's that imports it.
INNER = "lightning.pytorch.strategies.launchers.subprocess_script.subprocess.Popen"
LAMBDA = "lightning.pytorch.callbacks.LambdaCallback on_fit_start:"
IN_FLAGS = {
    "*model": ["*os.system", X, "builtins.eval", "lightning.pytorch.LightningModule"],
    "*trainer.callbacks": ["os.system", f"*{X}", "lightning.pytorch_evil.X"],
    **dict.fromkeys([f"trainer.{key}" for key in ("logger", "profiler", "strategy", "plugins", "accelerator")], [X]),
}
# Class paths, and constructor arguments behind a blank.
IN_FILES = {
    "*model": [X, f"*{POPEN} {ARGS}", f"{INNER} {ARGS}"],
    "*callbacks": [
        f"*{X}", f"{POPEN} {ARGS}", f"{INNER} {ARGS}", "lightning_evil.X", "lightning.pytorch_evil.X",
        "cifar_lightning_evil.X", 'builtins.exec source: \'open("CANARY", "w")\'',
        "cifar_lightning.utils.files.os.system command: touch CANARY",
        f"{LAMBDA} os.system", f"{LAMBDA} builtins.exec", f"{LAMBDA} {X}",
        f"{LAMBDA} lightning.pytorch.trainer.trainer.os.abort",
        *(f"{LAMBDA} {{class_path: {name}, init_args: {{{ARGS}}}}}" for name in (POPEN, INNER)),
    ],
    "strategy": [X, f"{INNER} {ARGS}"],
    **dict.fromkeys(("logger", "plugins", "profiler"), [X, f"{POPEN} {ARGS}"]),
}  # fmt: skip


def in_flags() -> Iterator[Fault]:
    for key, names in IN_FLAGS.items():
        for name in names:
            flag = f"--{key}={name}".replace("*", "")
            yield Fault(crossed(key, name), f"{FIT} {flag}", 2, (key.rpartition(".")[2].strip("*"),), evil_modules)


def in_files() -> Iterator[Fault]:
    for starred, names in IN_FILES.items():
        key = starred.removeprefix("*")
        for name in names:
            class_path, _, init_args = name.removeprefix("*").partition(" ")
            value = f"{{class_path: {class_path}, init_args: {{{init_args}}}}}"
            value = f"[{value}]" if key in ("callbacks", "plugins") else value
            content = f"{key}: {value}\n" if key == "model" else f"trainer:\n  {key}: {value}\n"
            make = both(evil_modules, written("a.yaml", content))
            yield Fault(f"{crossed(starred, name)} in a file", f"{FIT} --config=a.yaml", 2, (key,), make)


TABLE["a foreign class in a flag: import list"] = list(in_flags())
TABLE["a foreign class in a file: import list"] = list(in_files())
