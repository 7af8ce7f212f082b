"""Bring a run's folder to where its checkpoint is, whatever moment it was killed at."""

import sys
from pathlib import Path

from cifar_lightning.errors import InputError
from cifar_lightning.runs import events, metrics_csv
from cifar_lightning.runs.checkpoint import Checkpoint, read_checkpoint
from cifar_lightning.runs.layout import NEW, RunFolder
from cifar_lightning.utils import files

# So that what is wrong with it can be looked into, and the next checkpoint does not push out the one before it.
DAMAGED = ".damaged"

# So that a run which goes back to an earlier epoch does not find the later ones again that it has left.
LATER = ".later"


def repair(folder: Path, checkpoint: Checkpoint | None) -> Path | None:
    """Brings curves and leftovers of a run to where its checkpoint is, whatever moment it was killed at.

    Args:
        folder: Of the run; this process must have it to itself.
        checkpoint: What it goes on from.

    Returns:
        Where the checkpoint is now.

    Raises:
        InputError: The checkpoint has been replaced since.
    """
    rows, steps = (checkpoint.rows, checkpoint.steps) if checkpoint else ([], 0)
    if checkpoint and read_checkpoint(checkpoint.path).steps != steps:  # it was read before the folder was ours alone
        raise InputError(str(folder), "another process has just trained here", "start again")
    if checkpoint:
        _set_aside_others(folder, checkpoint)
    for leftover in [*folder.glob(files.TEMPORARY), *folder.glob(f"checkpoints/{files.TEMPORARY}")]:
        leftover.unlink()
    events.repair(folder, rows, steps)
    if rows:
        metrics_csv.write(RunFolder(folder).metrics, rows)
    else:
        RunFolder(folder).metrics.unlink(missing_ok=True)
    if checkpoint and checkpoint.path.name == NEW:
        return settle(checkpoint.path, rows)
    return checkpoint.path if checkpoint else None


def _set_aside_others(run: Path, checkpoint: Checkpoint) -> None:
    """Leaves no checkpoint of a run that is damaged, or further on than the one that it goes on from."""
    for path in sorted((run / "checkpoints").glob("*.ckpt")):
        if path == checkpoint.path:
            continue
        try:
            suffix = LATER if read_checkpoint(path).steps > checkpoint.steps else ""
        except InputError:
            suffix = DAMAGED
        if suffix:
            print(f"sets aside {path} as {path.name}{suffix}", file=sys.stderr)
            path.replace(f"{path}{suffix}")


def settle(new: Path, rows: list[dict[str, float]]) -> Path:
    """Gives the checkpoint of an epoch its names; where that was cut off, it is done again from the start.

    Args:
        new: The checkpoint, beside those of the epochs before.
        rows: The history up to it.

    Returns:
        `last.ckpt`.
    """
    folder, last = new.parent, new.with_name("last.ckpt")
    *before, now = [row.get("val/acc") for row in rows]
    if now is not None and now > max((acc for acc in before if acc is not None), default=float("-inf")):
        files.link(new, folder / "best.ckpt")
    if last.exists():
        last.replace(folder / "previous.ckpt")
    new.replace(last)
    (folder / "interrupted.ckpt").unlink(missing_ok=True)
    files.sync_folder(folder)
    return last
