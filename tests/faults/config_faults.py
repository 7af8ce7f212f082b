"""Settings that can't be: in flags and in files."""

import os

from tests.faults.table import BEST, FIT, GOES_NEW, LAST, RUN, Fault, Place, files


def pipe(place: Place) -> None:
    os.mkfifo(place.folder / "a.yaml")


def unreadable(place: Place) -> None:
    place.write("a.yaml", "data: {batch_size: 3}\n").chmod(0)
    place.folder.chmod(0o755)


def flag(name: str, flags: str, *says: str) -> Fault:
    """A fault in a flag."""
    return Fault(f"flag: {name}", f"{FIT} {flags}", 2, says)


def file(name: str, content: str | bytes, *says: str) -> Fault:
    """A fault in a file of settings."""
    return Fault(f"file: {name}", f"{FIT} --config=a.yaml", 2, says, files(a_yaml=content))


# Each level ten times the one before.
LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))

FAULTS = [
    flag("typo", "--model.droput=0.3", "model.droput", "model.dropout?"),
    flag("unknown", "--bogus=3", "bogus"),
    flag("a stray word", "stray", "stray"),
    flag("nothing follows", "--model.lr", "model.lr"),
    flag("text for a number", "--model.lr=fast", "model.lr", "fast", "a number"),
    flag("text for a whole number", "--trainer.max_epochs=abc", "trainer.max_epochs", "abc"),
    flag("half a batch", "--data.batch_size=2.5", "data.batch_size", "2.5", "a whole number"),
    flag("a number that is none", "--model.lr=.nan", "model.lr", "nan"),
    flag("an infinite rate", "--model.lr=.inf", "model.lr", "inf"),
    flag("negative weight decay", "--model.weight_decay=-1", "model.weight_decay", "-1"),
    flag("infinite weight decay", "--model.weight_decay=.inf", "model.weight_decay", "inf"),
    flag("no width", "--model.width=0", "model.width", "0"),
    flag("negative depth", "--model.depth=-1", "model.depth", "-1"),
    flag("dropout that is no number", "--model.dropout=.nan", "model.dropout", "nan"),
    flag("a seed too large", "--seed_everything=4294967296", "seed_everything", "4294967296"),
    flag("a seed of thirty digits", f"--seed_everything={10**30}", "seed_everything"),
    flag("impossible epochs", "--trainer.max_epochs=-2", "trainer"),
    flag("two devices", "--trainer.devices=2", "trainer"),
    flag("no devices", "--trainer.devices=0", "trainer"),
    flag("no such precision", "--trainer.precision=99", "trainer.precision"),
    flag("nothing to accumulate", "--trainer.accumulate_grad_batches=0", "trainer", "accumulate_grad_batches"),
    flag("less than no batches", "--trainer.limit_train_batches=-1", "trainer", "limit_train_batches"),
    flag("a time that is none", "--trainer.max_time=never", "trainer"),
    flag("validation more seldom than there are steps", "--trainer.val_check_interval=1000", "val_check_interval"),
    flag("an empty name", "--name=", "name"),
    flag("no pictures named", "--data.images=[]", "data.images"),
    flag("train and validate on more than there is", "--data.train_size=50000", "data.train_size", "50000"),
    Fault(  # to a text it is a name like any other
        "flag: YAML tag", f'{FIT} "--data.root=!!python/object/apply:os.system [touch CANARY]"', 0, changes=GOES_NEW
    ),
    flag("YAML tag in a list", '"--data.mirrors=[!!python/object/apply:os.system [touch CANARY]]"', "data.mirrors"),
    flag("settings in place of a file", '"--config={data: {batch_size: 3}}"', "no such file"),
    file("typo", "data:\n  batch_sise: 3\n", "data.batch_sise", "data.batch_size?"),
    file("typo in a section", "dta:\n  batch_size: 3\n", "dta"),
    file("wrong type", "model:\n  class_path: MLP\n  init_args:\n    lr: fast\n", "model", "lr", "fast"),
    file("a list for a section", "data: [1]\n", "data"),
    file("not YAML", "data:\n  batch_size: [\n", "a.yaml, line 3", "not valid YAML"),
    file("a tab", "data:\n\tbatch_size: 3\n", "a.yaml, line 2", "not valid YAML"),
    file("no such anchor", "data: *nowhere\n", "a.yaml, line 1", "not valid YAML"),
    file("refers to itself", "data: &a {root: *a}\n", "data.root"),
    file("ten thousand brackets", "[" * 10_000, "a.yaml"),
    file("a hundred million of a few bytes", f"{LAUGHS}data: {{mirrors: *a8}}\n", "values"),
    file("YAML tag that runs", "data: !!python/object/apply:os.system ['touch CANARY']\n", "a.yaml, line 1"),
    file("YAML tag that makes", "data: !!python/object/new:subprocess.Popen [[touch, CANARY]]\n", "a.yaml, line 1"),
    file("YAML tag that imports", "data: !!python/module:evil\n", "a.yaml, line 1"),
    file("YAML tag that names", "data: !!python/name:os.system\n", "a.yaml, line 1"),
    file("empty", "", "a.yaml", "no settings"),
    file("binary", bytes(range(256)), "a.yaml", "not a text file"),
    file("zero bytes", b"\0" * 100, "a.yaml"),
    file("one word", "hello\n", "a.yaml", "no settings"),
    file("a checkpoint to start from", f"ckpt_path: {LAST}\n", "ckpt_path", "--ckpt_path"),
    file("a run to go on with", f"resume: {RUN}\n", "resume", "--resume"),
    Fault("file: missing", f"{FIT} --config=nowhere.yaml", 2, ("nowhere.yaml", "no such file")),
    Fault("file: a folder", f"{FIT} --config=logs", 2, ("logs",)),
    Fault("file: a pipe", f"{FIT} --config=a.yaml", 2, ("a.yaml",), pipe),
    Fault("file: a name too long", f"{FIT} --config={'a' * 300}.yaml", 2, ("aaa.yaml",)),
    Fault("file: unreadable", f"{FIT} --config=a.yaml", 2, ("a.yaml", "denied"), unreadable, child="nobody"),
    Fault("a run and a checkpoint", f"fit --resume={RUN} --ckpt_path={LAST}", 2, ("resume", "--ckpt_path")),
    Fault("a run to test", f"test --resume={RUN}", 2, ("resume", "--ckpt_path")),
    Fault("a run to predict with", f"predict --resume={RUN} --ckpt_path={BEST}", 2, ("resume", "--ckpt_path")),
    Fault("other settings for a run", f"fit --resume={RUN} --model.lr=0.5", 2, ("model.lr", "0.5")),
    Fault("another model for a checkpoint", f"test --ckpt_path={BEST} --model=CNN", 2, ("model", "CNN")),
    Fault("another width for a checkpoint", f"test --ckpt_path={BEST} --model.width=9", 2, ("model",)),
    Fault("other data for a checkpoint", f"test --ckpt_path={BEST} --data.source=cifar10", 2, ("data.source",)),
    Fault("fewer epochs than done", f"fit --resume={RUN} --trainer.max_epochs=1", 2, ("trainer.max_epochs",)),
    Fault("no such command", "train", 2, ("train", "fit")),
    Fault("a flag before the command", "--config=a.yaml fit", 2, ("command",)),
]
