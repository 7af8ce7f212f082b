"""Runs that go on from what is left of them."""

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.faults.checkpoint_faults import DAMAGED, STRANGE, Damage
from tests.faults.table import BEST, GOES_ON, LAST, PREVIOUS, RUN, Fault, Place, Step, both, files, removed, unlike

RESUME = f"fit --resume={RUN}"


def damaged(damage: Damage, *names: str) -> Step:
    """Damages checkpoints."""

    def make(place: Place) -> None:
        for name in names:
            damage(place, Path(name))

    return make


def as_whole(place: Place) -> None:
    """The run ended as it would have without the fault."""
    aside = place.folder / f"{LAST}.damaged"  # what was damaged is kept
    if aside.is_dir():
        aside.rmdir()
    aside.unlink(missing_ok=True)
    assert (found := unlike(place.folder / RUN, place.whole)) == [], found


def goes_on(name: str, make: Step, *says: str) -> Fault:
    """A run that goes on from the epoch before its last, and ends as the whole one."""
    return Fault(f"resume {name}", RESUME, 0, says, make, GOES_ON, then=as_whole)


def refused(name: str, make: Step, *says: str, command: str = RESUME) -> Fault:
    """A run that can't go on."""
    return Fault(f"resume {name}", command, 2, says, make)


def no_config(place: Place) -> None:
    (place.folder / RUN / "config.yaml").unlink()


def ends(place: Place) -> None:
    """All there is to say of a run whose config.yaml is new."""
    names = {path.name for path in (place.folder / RUN / "checkpoints").iterdir()}
    assert names == {"best.ckpt", "last.ckpt", "previous.ckpt"}


def config(change: Callable[[str], str]) -> Step:
    """Changes config.yaml."""

    def make(place: Place) -> None:
        text = (place.folder / RUN / "config.yaml").read_text()
        place.write(f"{RUN}/config.yaml", change(text))

    return make


def flipped_events(place: Place) -> None:
    """Flips a bit in the middle of the event file."""
    for path in Path(RUN).glob("events.*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


ALL = (LAST, BEST, PREVIOUS)
NOT_USING = f"not using {LAST}"

FAULTS = [
    *(
        goes_on(f"last {name}", damaged(damage, LAST), *(() if name == "missing" else (NOT_USING,)))
        for name, damage in DAMAGED.items()
    ),
    goes_on("last with payload in one of ours", damaged(STRANGE["payload in one of ours"], LAST), NOT_USING),
    *(
        refused(f"all {name}", damaged(DAMAGED[name], *ALL), "resume", RUN)
        for name in ("empty", "cut in half", "bit flipped in the data", "payload alone", "payload in a zip", "a pipe")
    ),
    refused("all missing, curves there", damaged(DAMAGED["missing"], *ALL), "resume", RUN, "curves"),
    refused("an empty folder", lambda place: Path("empty").mkdir(), "resume", "empty", command="fit --resume=empty"),
    refused("a file", files(a_txt="hello"), "resume", "a.txt", command="fit --resume=a.txt"),
    refused("a missing folder", lambda place: None, "resume", "nowhere", command="fit --resume=nowhere"),
    refused("nothing", lambda place: None, "resume", command="fit --resume="),
    refused("the folder of all runs", lambda place: None, "resume", "logs", command="fit --resume=logs"),
    refused("config.yaml cut", config(lambda text: text[: len(text) // 2] + "\n  x: ["), "config.yaml"),
    refused("config.yaml empty", config(lambda text: ""), "config.yaml"),
    refused(
        "config.yaml with a tag",
        config(lambda text: f"{text}\nx: !!python/object/apply:os.system ['touch CANARY']\n"), "config.yaml",
    ),
    refused(
        "config.yaml with a class of another",
        config(lambda text: text.replace("callbacks: null", "callbacks: [{class_path: os.system}]")), "callbacks",
    ),
    Fault(
        "resume without config.yaml", RESUME, 0, (), both(no_config, removed(LAST)), GOES_ON, then=ends
    ),
    Fault(
        "resume with damaged curves", RESUME, 0, (),
        both(
            lambda place: place.write(f"{RUN}/metrics.csv", b"\0\xff,,\n\n"),
            removed(LAST),
        ),
        GOES_ON, then=as_whole,
    ),
    Fault(
        "resume with a damaged event file", RESUME, 0, (),
        both(
            lambda place: [path.write_bytes(path.read_bytes()[:-7]) for path in Path(RUN).glob("events.*")],
            removed(LAST),
        ),
        GOES_ON, then=as_whole,
    ),
    Fault(
        "resume with a flipped event file", RESUME, 0, (),
        both(
            flipped_events,
            removed(LAST),
        ),
        GOES_ON,
    ),
    Fault("resume a run that is done", RESUME, 0, ("all epochs are done",)),
    Fault(
        "resume a run that was copied", "fit --resume=copy --trainer.max_epochs=3", 0, (),
        lambda place: shutil.copytree(RUN, "copy"), ("copy/*",),
    ),
]  # fmt: skip
