"""Disks that are full, folders that can't be written to, and folders that two processes want."""

import errno
import os
import time
from pathlib import Path

from cifar_lightning.__main__ import main
from cifar_lightning.runs.checkpoint import read_checkpoint
from tests.faults.table import BEST, FIT, GOES_NEW, GOES_ON, LAST, NEW, RUN, Fault, Place, Step, both, removed, unlike


def goes_on(place: Place) -> None:
    """A new run that was cut short goes on and ends as the whole one."""
    assert main(["fit", f"--resume={NEW}"]) == 0
    assert (found := unlike(place.folder / NEW, place.whole)) == [], found


def loads(place: Place) -> None:
    """The checkpoint of the epoch before still loads, and the run goes on from it."""
    assert read_checkpoint(place.folder / NEW / "checkpoints/last.ckpt").epochs == 1
    goes_on(place)


def old_goes_on(place: Place) -> None:
    """The run that could not go on does now."""
    for path in (place.folder / RUN).rglob("*"):
        path.chmod(0o755)
    assert main(["fit", f"--resume={RUN}"]) == 0
    assert (found := unlike(place.folder / RUN, place.whole)) == [], found


def results(place: Place) -> None:
    """Results of an earlier call, which are worth keeping."""
    place.write(f"{RUN}/predictions.csv", "file,class\nold.png,cat\n")


def no_space(place: Place) -> None:
    """The real errno of a full disk, where a file is made durable; as from a write, without a file's name."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    place.patch.setattr(os, "fsync", full)


def read_only(*names: str) -> Step:
    """Folders and files that nobody may write to."""

    def make(place: Place) -> None:
        place.folder.chmod(0o755)
        for name in names:
            (place.folder / name).chmod(0o555)

    return make


def open_to_all(*names: str) -> Step:
    """Folders that anyone may write to."""

    def make(place: Place) -> None:
        place.folder.chmod(0o777)
        for name in names:
            (place.folder / name).mkdir(exist_ok=True)
            (place.folder / name).chmod(0o777)

    return make


def training_elsewhere(place: Place) -> None:
    """Another process goes on with the run, and is in the middle of it until the row is over."""
    removed(LAST)(place)
    given = {"at": "cifar_lightning.models.base:ImageClassifier.training_step"}
    wait_for_child(place, [f"--resume={RUN}"], "pause", given)


def trained_from(place: Place) -> None:
    """Another process trains the run for more epochs."""
    given = {"at": "cifar_lightning.models.base:ImageClassifier.training_step"}
    wait_for_child(place, [f"--resume={RUN}", "--trainer.max_epochs=4"], "pause", given)


def taking_the_version(place: Place) -> None:
    """Another process is about to take the folder that this one will take."""
    wait_for_child(place, FIT.split()[1:], "version_taken", None)


def wait_for_child(place: Place, args: list[str], before: str, given: object) -> None:
    """Starts a process and waits until it pauses."""
    function = f"tests.faults.children:{before}"
    child = place.nursery().start(place.folder, ["fit", *args], before=function, given=given)

    def end() -> None:
        (place.folder.parent / "go").touch()
        place.words["other"] = str(child.wait())

    place.stack.callback(end)
    give_up = time.monotonic() + 30
    while not (place.folder.parent / "here").exists():
        assert time.monotonic() < give_up, child.output.read_text()
        time.sleep(0.01)


def other_ends(place: Place) -> None:
    """The process that was first ends as if there had been no second."""
    place.stack.close()
    assert place.words["other"] == "0"
    assert (found := unlike(place.folder / RUN, place.whole)) == [], found


def each_has_its_own(place: Place) -> None:
    """Two that started at once are both whole, in two folders."""
    other_ends(place)
    for version in (1, 2):
        assert (found := unlike(place.folder / f"logs/mlp-synthetic/version_{version}", place.whole)) == [], found


FULL_AT = "full_disk"
FAULTS = [
    Fault(
        "disk full at the first checkpoint", FIT, 1, (NEW, "checkpoints", "free some space"), changes=GOES_NEW,
        then=goes_on, child=FULL_AT, given={"nth": 1, "bytes": 20_000},
    ),
    Fault(
        "disk full at the second checkpoint", FIT, 1, (NEW, "checkpoints", "free some space"), changes=GOES_NEW,
        then=loads, child=FULL_AT, given={"nth": 2, "bytes": 20_000},
    ),
    Fault(
        "disk full from the start", FIT, 1, (NEW,), changes=GOES_NEW, child=FULL_AT, given={"nth": 0, "bytes": 1000},
    ),
    Fault(
        "disk full once config.yaml is there", FIT, 1, ("disk", "free some space"), changes=GOES_NEW,
        then=goes_on, child=FULL_AT, given={"nth": 0, "bytes": 10_000},
    ),
    Fault(
        "disk full where a run goes on", f"fit --resume={RUN}", 1, (RUN, "checkpoints", "free some space"),
        removed(LAST), GOES_ON, then=old_goes_on, child=FULL_AT, given={"nth": 1, "bytes": 20_000},
    ),
    Fault("no space left for a checkpoint", FIT, 1, (NEW, "No space left", "free some space"), no_space, GOES_NEW),
    Fault(
        "no space left for predictions", f"predict --ckpt_path={BEST}", 1, (f"{RUN}/predictions.csv", "No space left"),
        no_space,
    ),
    Fault(
        "no space left for test.json", f"test --ckpt_path={BEST}", 1, (f"{RUN}/test.json", "No space left"),
        no_space, (f"{RUN}/events.*",),
    ),
    Fault(
        "old predictions on a full disk", f"predict --ckpt_path={BEST}", 1, (f"{RUN}/predictions.csv",), results,
        child=FULL_AT, given={"nth": 0, "bytes": 3000},
    ),
    Fault(
        "a folder that can't be written to", FIT, 2, ("logs", "written to"), read_only("logs/mlp-synthetic"),
        child="nobody",
    ),
    Fault(
        "no folder for logs", f"{FIT} --logs=new", 2, ("logs", "written to"), read_only("."), child="nobody",
    ),
    Fault(
        "logs read only", f"{FIT} --logs=other", 2, ("other", "written to"),
        both(open_to_all("other"), read_only("other")), child="nobody",
    ),
    Fault("logs is a file", f"{FIT} --logs=a.txt", 2, ("logs", "a.txt"), lambda place: place.write("a.txt", "hello")),
    Fault("logs below a file", f"{FIT} --logs=a.txt/b", 2, ("a.txt",), lambda place: place.write("a.txt", "hello")),
    Fault(
        "logs is a dangling link", f"{FIT} --logs=link", 2, ("link",),
        lambda place: (place.folder / "link").symlink_to("nowhere"),
    ),
    Fault("logs too long a name", f"{FIT} --logs={'a' * 300}", 2, ("aaa",)),
    Fault(
        "the name's folder is a file", f"{FIT} --name=x", 2, ("logs/x-synthetic",),
        lambda place: place.write("logs/x-synthetic", "hello"),
    ),
    Fault(
        "predictions can't be written", f"predict --ckpt_path={BEST}", 1, (f"{RUN}/predictions.csv", "denied"),
        read_only(RUN), child="nobody",
    ),
    Fault(
        "test.json can't be written", f"test --ckpt_path={BEST}", 1, (RUN, "denied"), read_only(RUN), child="nobody"
    ),
    Fault(
        "a run that can't be written to goes on", f"fit --resume={RUN}", 1, (RUN, "denied"),
        both(removed(LAST), read_only(RUN, f"{RUN}/checkpoints")), then=old_goes_on, child="nobody",
    ),
    Fault(
        "predictions is a folder", f"predict --ckpt_path={BEST}", 1, (f"{RUN}/predictions.csv",),
        lambda place: Path(RUN, "predictions.csv").mkdir(),
    ),
    Fault(
        "another process goes on with the run", f"fit --resume={RUN}", 2, (RUN, "another process"), training_elsewhere,
        then=other_ends,
    ),
    Fault(
        "another process trains from the checkpoint", f"fit --ckpt_path={LAST} --trainer.max_epochs=3", 2,
        (RUN, "another process"), trained_from, then=lambda place: place.stack.close(),
    ),
    Fault("two runs at once", FIT, 0, (), taking_the_version, GOES_NEW, then=each_has_its_own),
]  # fmt: skip
