"""Files that are no checkpoint, or no longer, and runs that resume from what is left of them."""

import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.faults.processes import nobody
from tests.faults.settings_faults import modules
from tests.faults.steps import both, check_whole, content, damaged, folder, gone, pipe, replaced, written
from tests.faults.table import BEST, LAST, OLD_RUN, RESUME, RUN, Damage, Fault, Payload, Place, Step, crossed, nothing


def flip(text: bytes, at: int) -> bytes:
    return text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :]


flipped = content(lambda text: flip(text, len(text) // 2))


def flipped_in_directory(path: Path) -> None:
    """Flip a bit of the third part's CRC-32 in the zip's directory, which stands behind all parts."""
    with zipfile.ZipFile(path) as archive:
        crc = archive.infolist()[2].CRC.to_bytes(4, "little")
    text = path.read_bytes()
    path.write_bytes(flip(text, text.rindex(crc)))


def payload_in_zip(path: Path) -> None:
    torch.save({"state_dict": {}, "callbacks": Payload()}, path)


def payload_in_old_format(path: Path) -> None:
    """Write the format before zip, whose reader is another one: five pickles, the first two of fixed numbers."""
    parts: Any = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {"state_dict": Payload()}, [])
    path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts))


def deflated(path: Path) -> None:
    with zipfile.ZipFile(BEST) as archive, zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name)[:-1])


def altered(alter: Callable[[dict[str, Any]], object]) -> Damage:
    """Write a whole file whose content is not as the program left it."""

    def damage(path: Path) -> None:
        values: dict[str, Any] = torch.load(BEST, weights_only=True)
        alter(values)
        torch.save(values, path)

    return damage


def entry(key: str, **values: Any) -> Damage:
    return altered(lambda content: content[key].update(values))


payload_in_ours = altered(lambda values: values.update(extra=Payload()))

NO_FILE: dict[str, Damage] = {"*missing": gone, "a folder": folder, "a pipe": pipe}
BROKEN: dict[str, Damage] = {
    "*cut in half": content(lambda text: text[: len(text) // 2]),
    "bit flipped in the data": flipped,
    "empty": content(lambda text: b""),
    "text": content(lambda text: b"hello\n"),
    "cut to ten bytes": content(lambda text: text[:10]),
    "cut by one byte": content(lambda text: text[:-1]),
    "bit flipped in the directory": flipped_in_directory,
}
FOREIGN: dict[str, Damage] = {
    "*payload in a zip": payload_in_zip,
    "payload alone": content(lambda text: pickle.dumps(Payload())),
    "payload in the old format": payload_in_old_format,
    "of another program": lambda path: torch.save({"weight": torch.ones(3)}, path),
}
DAMAGED = BROKEN | FOREIGN
STRANGE: dict[str, Damage] = {
    "architecture a number": altered(lambda values: values.update(architecture=5)),
    "weights a number": altered(lambda values: values.update(state_dict=5)),
    "*a weight missing": altered(lambda values: values["state_dict"].popitem()),
    "a weight a number": altered(lambda values: values["state_dict"].update(dict.fromkeys(values["state_dict"], 1))),
    "settings a tensor": entry("hyper_parameters", width=torch.ones(3)),
    "*settings impossible": entry("hyper_parameters", dropout=7.0),
    "settings unknown": entry("hyper_parameters", evil=7.0),
    "seed a text": entry("datamodule_hyper_parameters", seed="touch CANARY"),
    "root a number": entry("datamodule_hyper_parameters", root=5),
    "payload in one of ours": payload_in_ours,
    "compressed, and each part cut": deflated,
    "a link to itself": partial(replaced, partial(os.symlink, "last.ckpt")),
    "not a dictionary": lambda path: torch.save([1, 2], path),
    "a tensor": lambda path: torch.save(torch.ones(3), path),
}
# A checkpoint's own word imports nothing but this project's models.
IMPORTED = ("*evil_callbacks.X", "lightning.pytorch_evil.X", "lightning_evil.X", "cifar_lightning_evil.X", "os.system",
            "subprocess.Popen", "builtins.eval", "cifar_lightning.models.base.torch.os.system")  # fmt: skip
FOREIGN_CLASS = {name: altered(partial(dict.update, architecture=name.removeprefix("*"))) for name in IMPORTED}
X = {"class_path": "evil_callbacks.X"}
FOREIGN_VALUE = {
    "*setting a class": entry("hyper_parameters", width=X),
    "optimizer a class": entry("hyper_parameters", optimizer=X),
    "data a class": entry("datamodule_hyper_parameters", augment=X),
    "precision a class": altered(lambda values: values.update(precision=X)),
    "epochs a class": altered(lambda values: values.update(max_epochs=X)),
}
# Of no matter to a command that only evaluates.
TRAINING: dict[str, Damage] = {
    "*no optimizer": altered(lambda values: values.pop("optimizer_states")),
    "optimizer of another model": altered(lambda values: values.update(optimizer_states=[{"state": {}}])),
    "history a number": altered(lambda values: values["callbacks"]["History"].update(rows=5)),
    "generator's state cut": altered(lambda values: values["callbacks"]["EpochSeed"].update(cpu=torch.ones(3).byte())),
    "no progress": altered(lambda values: values.update(loops={})),
}
COMMANDS = ("*test", "validate", "predict", "*fit")


def refused(damages: dict[str, Damage], *commands: str, also: Step = nothing, **more: Any) -> list[Fault]:
    return [
        Fault(crossed(command, name), f"{command.removeprefix('*')} --ckpt_path={LAST}", 2, (LAST,),
              both(also, damaged(damage, LAST)), **more)
        for name, damage in damages.items() for command in commands
    ]  # fmt: skip


def as_whole(place: Place) -> None:
    """Assert that the run ended as it would have without the fault; the damaged checkpoint is kept."""
    for aside in Path().glob(f"{LAST}.damaged"):
        gone(aside)
    check_whole(RUN)


def resumed(name: str, make: Step, *says: str, then: Step = as_whole) -> Fault:
    return Fault(name, RESUME, 0, says, make, OLD_RUN, then=then)


def not_resumed(name: str, make: Step, *says: str, run: str = RUN) -> Fault:
    return Fault(name, f"fit --resume={run}", 2, says, make)


def names_its_checkpoints(place: Place) -> None:
    """Assert all there is to say of a run whose config.yaml is new."""
    assert {path.name for path in Path(BEST).parent.iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}


def without_last(name: str, damage: Damage) -> Step:
    """Remove the last checkpoint, so that there is something to do, and damage another file."""
    return both(damaged(gone, LAST), lambda place: [damage(path) for path in Path(RUN).glob(name)])


CONFIG, NOT_USING = f"{RUN}/config.yaml", f"not using {LAST}"
TAG = b"x: !!python/object/apply:os.system ['touch canary']\n"
CUT = content(lambda text: text[: len(text) // 2] + b"\n  x: [")
CLASS = content(lambda text: text.replace(b"callbacks: null", b"callbacks: [{class_path: os.system}]"))
ALL = (LAST, BEST, f"{RUN}/checkpoints/previous.ckpt")

TABLE = {
    "a checkpoint that is no file: reader": [
        *refused(NO_FILE, *COMMANDS), *refused({"unreadable": partial(Path.chmod, mode=0)}, *COMMANDS, child=nobody),
    ],
    "broken bytes in a checkpoint: CRC": refused(BROKEN, *COMMANDS),
    "code in a checkpoint: safe unpickler": refused(FOREIGN, *COMMANDS),
    "strange content of a checkpoint: its checks": refused(STRANGE, "*test"),
    "a foreign class in a checkpoint: its checks": [
        *refused(FOREIGN_CLASS, *COMMANDS, also=modules),
        *(not_resumed(crossed("resume with", name), both(modules, damaged(damage, *ALL)), RUN)
          for name, damage in FOREIGN_CLASS.items()),
    ],
    "a class for a value in a checkpoint: parser": refused(FOREIGN_VALUE, *COMMANDS, also=modules),
    "training state in a checkpoint: its checks": refused(TRAINING, "*fit"),
    "no checkpoint named: command line": [
        *(Fault(f"{command} without", command, 2, ("ckpt_path",)) for command in ("test", "validate", "predict")),
        Fault("*fit an empty name", "fit --ckpt_path=", 2, ("ckpt_path",)),
    ],
    "the last checkpoint is no file: resume": [
        resumed("*resume last missing", damaged(gone, LAST)),
        resumed("resume last folder", damaged(folder, LAST), NOT_USING),
        resumed("resume last pipe", damaged(pipe, LAST), NOT_USING),
    ],
    "the last checkpoint is damaged: resume": [
        *(resumed(crossed("*resume last", name), damaged(damage, LAST), NOT_USING) for name, damage in DAMAGED.items()),
        resumed("resume last payload in one of ours", damaged(payload_in_ours, LAST), NOT_USING),
    ],
    "no checkpoint is whole: resume": [
        *(not_resumed(crossed("*resume all", name), damaged(damage, *ALL), "resume", RUN)
          for name, damage in [*DAMAGED.items(), ("a pipe", pipe)]),
        not_resumed("resume all missing, curves there", damaged(gone, *ALL), "resume", RUN, "curves"),
    ],
    "no run: resume": [
        not_resumed("*resume an empty folder", damaged(Path.mkdir, "empty"), "resume", "empty", run="empty"),
        not_resumed("resume a file", written("a.txt", "hello"), "resume", "a.txt", run="a.txt"),
        not_resumed("resume a missing folder", nothing, "resume", "nowhere", run="nowhere"),
        not_resumed("resume nothing", nothing, "resume", run=""),
        not_resumed("resume the folder of all runs", nothing, "resume", "logs", run="logs"),
    ],
    "config.yaml damaged: resume": [
        not_resumed("*config.yaml cut", damaged(CUT, CONFIG), CONFIG),
        not_resumed("config.yaml empty", written(CONFIG, ""), CONFIG),
        not_resumed("config.yaml with a tag", damaged(content(lambda text: text + TAG), CONFIG), CONFIG),
        not_resumed("config.yaml with a class of another", damaged(CLASS, CONFIG), "callbacks"),
        resumed("config.yaml missing", without_last("config.yaml", gone), then=names_its_checkpoints),
    ],
    "curves damaged: resume": [
        resumed("*metrics.csv damaged", without_last("metrics.csv", content(lambda text: b"\0\xff,,\n\n"))),
        resumed("*event file cut", without_last("events.*", content(lambda text: text[:-7]))),
        resumed("event file flipped", without_last("events.*", flipped), then=nothing),
    ],
    "nothing wrong: resume": [
        Fault("*resume a run that is done", RESUME, 0, ("all epochs are done",)),
        Fault("resume a run that was copied", "fit --resume=copy --trainer.max_epochs=3", 0, (),
              lambda place: shutil.copytree(RUN, "copy"), ("copy/*",)),
    ],
}  # fmt: skip
