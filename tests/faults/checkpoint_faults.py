"""Files that are no checkpoint, or no longer, and runs that resume from what is left of them."""

import os
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from tests.faults.processes import nobody
from tests.faults.settings_faults import modules
from tests.faults.steps import Payload, content, folder, gone, is_whole, pipe, replaced
from tests.faults.table import BEST, FIT, LAST, OLD_RUN, RESUME, RUN, Damage, Fault, Table, Then


def flip(text: bytes) -> bytes:
    middle = len(text) // 2
    return text[:middle] + bytes([text[middle] ^ 1]) + text[middle + 1 :]


flipped = content(flip)


def deflated(path: Path) -> None:
    with zipfile.ZipFile(BEST) as archive, zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name)[:-1])


def altered(alter: Callable[[dict[str, Any]], object], *keys: str) -> Damage:
    """Write a whole file whose content, there where the keys lead to, is not as the program left it."""

    def damage(path: Path) -> None:
        content = values = torch.load(BEST, weights_only=True)
        for key in keys:
            values = values[key]
        alter(values)
        torch.save(content, path)

    return damage


def changed(*keys: str, **changes: Any) -> Damage:
    return altered(lambda values: values.update(changes), *keys)


NO_FILE: dict[str, Damage] = {"missing": gone, "a folder": folder, "a pipe": pipe}
BROKEN: dict[str, Damage] = {
    "cut in half": content(lambda text: text[: len(text) // 2]),
    "bit flipped in the data": flipped,
    "empty": "",
    "text": "hello\n",
    "cut to ten bytes": content(lambda text: text[:10]),
    "cut by one byte": content(lambda text: text[:-1]),
}
# The format before zip, whose reader is another one: five pickles, the first two of fixed numbers.
OLD_FORMAT: Any = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {"state_dict": Payload()}, [])
FOREIGN: dict[str, Damage] = {
    "payload in a zip": lambda path: torch.save({"state_dict": {}, "callbacks": Payload()}, path),
    "payload alone": pickle.dumps(Payload()),
    "payload in the old format": b"".join(pickle.dumps(part, protocol=2) for part in OLD_FORMAT),
    "of another program": lambda path: torch.save({"weight": torch.ones(3)}, path),
}
OURS: dict[str, Damage] = {"payload in one of ours": changed(extra=Payload())}
STRANGE: dict[str, Damage] = {
    "a weight missing": altered(lambda values: values.popitem(), "state_dict"),
    "a weight a number": altered(lambda values: values.update(dict.fromkeys(values, 1)), "state_dict"),
    "weights a number": changed(state_dict=5),
    "architecture a number": changed(architecture=5),
    "settings a tensor": changed("hyper_parameters", width=torch.ones(3)),
    "settings impossible": changed("hyper_parameters", dropout=7.0),
    "settings unknown": changed("hyper_parameters", evil=7.0),
    "seed a text": changed("datamodule_hyper_parameters", seed="touch CANARY"),
    "root a number": changed("datamodule_hyper_parameters", root=5),
    **OURS,
    "compressed, and each part cut": deflated,
    "a link to itself": partial(replaced, partial(os.symlink, "last.ckpt")),
    "not a dictionary": lambda path: torch.save([1, 2], path),
    "a tensor": lambda path: torch.save(torch.ones(3), path),
}
# A checkpoint's own word imports nothing but this project's models.
EVIL = "evil_callbacks.X"
IMPORTED = (EVIL, "lightning.pytorch_evil.X", "lightning_evil.X", "cifar_lightning_evil.X", "os.system",
            "subprocess.Popen", "builtins.eval", "cifar_lightning.models.base.torch.os.system")  # fmt: skip
FOREIGN_CLASS = {name: changed(architecture=name) for name in IMPORTED}
X = {"class_path": EVIL}
FOREIGN_VALUE = {
    "setting a class": changed("hyper_parameters", width=X),
    "optimizer a class": changed("hyper_parameters", optimizer=X),
    "data a class": changed("datamodule_hyper_parameters", augment=X),
    "precision a class": changed(precision=X),
    "epochs a class": changed(max_epochs=X),
}
# Of no matter to a command that only evaluates.
TRAINING: dict[str, Damage] = {
    "no optimizer": altered(lambda values: values.pop("optimizer_states")),
    "optimizer of another model": changed(optimizer_states=[{"state": {}}]),
    "history a number": changed("callbacks", "History", rows=5),
    "generator's state cut": changed("callbacks", "EpochSeed", cpu=torch.ones(3).byte()),
    "no progress": changed(loops={}),
}
# For commands other than `test`, which is given every damage: the same function, `read_checkpoint`, reads for them.
OF_EACH_KIND = {name: (NO_FILE | BROKEN | FOREIGN)[name] for name in ("missing", "cut in half", "payload in a zip")}
OTHERS = ("validate", "predict", "fit")


@contextmanager
def pytorch_is_told_to_run_code() -> Iterator[None]:
    # Its warning, an error in tests, would end the command before the payload does what it can.
    with patch.dict(os.environ, TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1"), warnings.catch_warnings(action="ignore"):
        yield


def refused(damages: dict[str, Damage], *commands: str, **more: Any) -> list[Fault]:
    return [
        Fault(f"{command} {name}", f"{start}={LAST}", 2, (LAST,), {LAST: damage}, **more)
        for name, damage in damages.items()
        for command in commands
        for start in [f"{FIT} --init_from" if command == "fit" else f"{command} --ckpt_path"]
    ]


def as_whole() -> None:
    """Assert that the run ended as it would have without the fault; the damaged checkpoint is kept."""
    for aside in Path().glob(f"{LAST}.damaged"):
        gone(aside)
    is_whole(RUN)


def resumed(name: str, files: dict[str, Damage], *says: str, then: Then | None = as_whole) -> Fault:
    return Fault(f"resume {name}", RESUME, 0, says, files, OLD_RUN, then=then)


def another(damages: dict[str, Damage]) -> list[Fault]:
    """Return rows of runs that resume from another checkpoint than the last."""
    return [resumed(f"last {name}", {LAST: damages[name]}, f"not using {LAST}") for name in damages]


def not_resumed(name: str, files: dict[str, Damage], *says: str, run: str = RUN, **more: Any) -> Fault:
    return Fault(f"resume {name}", f"fit --resume={run}", 2, says, files, **more)


def every(damage: Damage) -> dict[str, Damage]:
    return dict.fromkeys((LAST, BEST, f"{RUN}/checkpoints/previous.ckpt"), damage)


CONFIG = f"{RUN}/config.yaml"
TAG = b"x: !!python/object/apply:os.system ['touch canary']\n"
CUT = content(lambda text: text[: len(text) // 2] + b"\n  x: [")
CLASS = content(lambda text: text.replace(b"callbacks: null", b"callbacks: [{class_path: os.system}]"))

TABLE: Table = [
    "a checkpoint that is no file: reader",
    *refused(NO_FILE, "test"),
    *refused({"unreadable": partial(Path.chmod, mode=0)}, "test", child=nobody),
    "broken bytes in a checkpoint: CRC",
    *refused(BROKEN, "test"),
    "code in a checkpoint: safe unpickler",
    *refused(FOREIGN, "test"),
    Fault("test a payload that PyTorch is told to run", f"test --ckpt_path={LAST}", 2, (LAST, "not a checkpoint"),
          {LAST: OURS["payload in one of ours"]}, make=pytorch_is_told_to_run_code),
    "such a checkpoint for another command: the same reader",
    *refused(OF_EACH_KIND, *OTHERS),
    "strange content of a checkpoint: its checks",
    *refused(STRANGE, "test"),
    "a foreign class in a checkpoint: its checks",
    *refused(FOREIGN_CLASS, "test", make=modules),
    *refused({EVIL: FOREIGN_CLASS[EVIL]}, *OTHERS, make=modules),
    not_resumed(f"with {EVIL}", every(FOREIGN_CLASS[EVIL]), RUN, make=modules),
    "a class for a value in a checkpoint: parser",
    *refused(FOREIGN_VALUE, "test", make=modules),
    *refused({"setting a class": FOREIGN_VALUE["setting a class"]}, "validate", "predict", make=modules),
    Fault("fit setting a class", f"{FIT} --ckpt_path=last", 2, (), every(FOREIGN_VALUE["setting a class"]),
          make=modules),
    "training state in a checkpoint: its checks",
    *another(TRAINING),
    "no checkpoint named: command line",
    Fault("fit an empty name", "fit --ckpt_path=", 2, ("ckpt_path",)),
    *(Fault(f"{command} without", command, 2, (f"ckpt_path: {command} needs a checkpoint; give --ckpt_path RUN",))
      for command in ("test", "validate", "predict")),
    "the last checkpoint is no file: resume",
    resumed("last missing", {LAST: gone}),
    *another({"folder": folder, "pipe": pipe}),
    "the last checkpoint is damaged: resume",
    *another({"cut in half": BROKEN["cut in half"], **OURS}),
    "no checkpoint is whole: resume",
    not_resumed("all cut in half", every(BROKEN["cut in half"]), "resume", RUN),
    not_resumed("all with payloads", every(FOREIGN["payload in a zip"]), "resume", RUN),
    not_resumed("all a pipe", every(pipe), "resume", RUN),
    not_resumed("all missing, curves there", every(gone), "resume", RUN, "curves"),
    "no run: resume",
    not_resumed("a missing folder", {}, "resume", "nowhere", run="nowhere"),
    not_resumed("nothing", {}, "resume", run=""),
    not_resumed("the folder of all runs", {}, "resume", "logs", run="logs"),
    "config.yaml damaged: resume",
    not_resumed("config.yaml cut", {CONFIG: CUT}, CONFIG),
    not_resumed("config.yaml empty", {CONFIG: ""}, CONFIG),
    not_resumed("config.yaml with a tag", {CONFIG: content(lambda text: text + TAG)}, CONFIG),
    not_resumed("config.yaml with a class of another", {CONFIG: CLASS}, "callbacks"),
    # Without the last checkpoint there is something to do.
    resumed("config.yaml missing", {LAST: gone, CONFIG: gone}, then=Path(LAST).stat),
    "curves damaged: resume",
    resumed("metrics.csv damaged", {LAST: gone, f"{RUN}/metrics.csv": b"\0\xff,,\n\n"}),
    resumed("event file cut", {LAST: gone, f"{RUN}/*/events.*": content(lambda text: text[:-7])}),
    resumed("event file flipped", {LAST: gone, f"{RUN}/**/events.*": flipped}, then=None),
    "nothing wrong: resume",
    Fault("resume a run that is done", RESUME, 0, ("all epochs are done",)),
    Fault("resume a run that was copied", "fit --resume=copy --trainer.max_epochs=3", 0, (),
          {RUN: lambda run: shutil.copytree(run, "copy")}, ("copy/*",)),
]  # fmt: skip
