"""Files that are no checkpoint, or no longer."""

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.faults.table import BEST, LAST, Fault, Place, Step, nothing

# Writes one to a path, relative to the working folder.
Damage = Callable[[Place, Path], object]


def cut(keep: Callable[[int], int]) -> Damage:
    """Cuts a file off."""
    return lambda place, path: path.write_bytes(path.read_bytes()[: keep(path.stat().st_size)])


def flipped(where: Callable[[bytes], int]) -> Damage:
    """Flips a bit."""

    def damage(place: Place, path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[where(bytes(content))] ^= 1
        path.write_bytes(content)

    return damage


def directory(content: bytes) -> int:
    """Where the CRC-32 of the third part stands in the zip's directory."""
    at = int(struct.unpack("<I", content[content.rindex(b"PK\5\6") + 16 :][:4])[0])
    for _ in range(2):
        at = content.index(b"PK\1\2", at + 4)
    return at + 16


def payload_alone(place: Place, path: Path) -> None:
    """The oldest way: a file that is nothing but a pickle."""
    path.write_bytes(pickle.dumps(place.payload))


def payload_in_zip(place: Place, path: Path) -> None:
    """One that looks as torch.save writes it."""
    torch.save({"state_dict": {}, "callbacks": place.payload}, path)


def payload_in_ours(place: Place, path: Path) -> None:
    """A whole checkpoint of ours, with one thing too many."""
    torch.save({**ours(place), "extra": place.payload}, path)


def payload_beside(place: Place, path: Path) -> None:
    """A second pickle in an archive, under the name that older readers look for."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("data.pkl", pickle.dumps(place.payload))


def legacy(place: Place, path: Path) -> None:
    """The format before zip, whose reader is another one."""
    torch.save({"state_dict": place.payload}, path, _use_new_zipfile_serialization=False)


def deflated(place: Place, path: Path) -> None:
    """The same parts, packed again and compressed."""
    with zipfile.ZipFile(BEST) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name, content in parts.items():
            archive.writestr(name, content[:-1])


def folder(place: Place, path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def pipe(place: Place, path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def loop(place: Place, path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def ours(place: Place) -> dict[str, Any]:
    """What stands in the finished run's best."""
    content: dict[str, Any] = torch.load(place.folder / BEST, weights_only=True)
    return content


def altered(alter: Callable[[dict[str, Any]], object]) -> Damage:
    """A whole file whose content is not ours."""

    def damage(place: Place, path: Path) -> None:
        content = ours(place)
        alter(content)
        buffer = io.BytesIO()
        torch.save(content, buffer)
        path.write_bytes(buffer.getvalue())

    return damage


DAMAGED: dict[str, Damage] = {
    "missing": lambda place, path: path.unlink(),
    "empty": lambda place, path: path.write_bytes(b""),
    "text": lambda place, path: path.write_text("hello\n"),
    "cut to ten bytes": cut(lambda size: 10),
    "cut in half": cut(lambda size: size // 2),
    "cut by one byte": cut(lambda size: size - 1),
    "bit flipped in the data": flipped(lambda content: len(content) // 2),
    "bit flipped in the directory": flipped(directory),
    "payload alone": payload_alone,
    "payload in a zip": payload_in_zip,
    "payload in the old format": legacy,
    "of another program": lambda place, path: torch.save({"weight": torch.ones(3)}, path),
    "a folder": folder,
    "a pipe": pipe,
}
STRANGE: dict[str, Damage] = {
    "payload in one of ours": payload_in_ours,
    "compressed, and each part cut": deflated,
    "a link to itself": loop,
    "not a dictionary": lambda place, path: torch.save([1, 2], path),
    "a tensor": lambda place, path: torch.save(torch.ones(3), path),
    "architecture os.system": altered(lambda content: content.update(architecture="os.system")),
    "architecture a number": altered(lambda content: content.update(architecture=5)),
    "weights a number": altered(lambda content: content.update(state_dict=5)),
    "a weight missing": altered(lambda content: content["state_dict"].popitem()),
    "a weight a number": altered(lambda content: content["state_dict"].update({next(iter(content["state_dict"])): 1})),
    "settings a tensor": altered(lambda content: content["hyper_parameters"].update(width=torch.ones(3))),
    "settings impossible": altered(lambda content: content["hyper_parameters"].update(dropout=7.0)),
    "settings unknown": altered(lambda content: content["hyper_parameters"].update(evil=7.0)),
    "seed a text": altered(lambda content: content["datamodule_hyper_parameters"].update(seed="touch CANARY")),
    "root a number": altered(lambda content: content["datamodule_hyper_parameters"].update(root=5)),
}
# Of no matter to what only evaluates.
TRAINING: dict[str, Damage] = {
    "no optimiser": altered(lambda content: content.pop("optimizer_states")),
    "optimiser of another model": altered(lambda content: content.update(optimizer_states=[{"state": {}}])),
    "history a number": altered(lambda content: content["callbacks"]["History"].update(rows=5)),
    "generator's state cut": altered(
        lambda content: content["callbacks"]["EpochSeed"].update(cpu=torch.ones(3, dtype=torch.uint8))
    ),
    "no progress": altered(lambda content: content.update(loops={})),
}


def made(damage: Damage) -> Step:
    """Damages the last checkpoint."""
    return lambda place: damage(place, Path(LAST))


def row(command: str, name: str, damage: Damage) -> Fault:
    """A command on a damaged checkpoint."""
    more = "--trainer.max_epochs=3" if command == "fit" else ""
    return Fault(f"{command} {name}", f"{command} --ckpt_path={LAST} {more}", 2, (LAST,), made(damage))


def unreadable(place: Place) -> None:
    place.folder.chmod(0o755)
    Path(LAST).chmod(0)


COMMANDS = ("test", "validate", "predict", "fit")
FAULTS = [
    *(row(command, name, damage) for name, damage in DAMAGED.items() for command in COMMANDS),
    *(row("test", name, damage) for name, damage in STRANGE.items()),
    *(row("fit", name, damage) for name, damage in TRAINING.items()),
    *(
        Fault(f"{command} unreadable", f"{command} --ckpt_path={LAST}", 2, (LAST,), unreadable, child="nobody")
        for command in COMMANDS
    ),
    *(Fault(f"{command} without", command, 2, ("ckpt_path",), nothing) for command in COMMANDS[:3]),
    Fault("fit an empty name", "fit --ckpt_path=", 2, ("ckpt_path",)),
]
