"""Bring a run's folder to the state of its checkpoint, at whatever moment the run was killed."""

import itertools
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cifar_lightning.errors import InputError
from cifar_lightning.runs import metrics_csv
from cifar_lightning.runs.checkpoint import Checkpoint, read_checkpoint
from cifar_lightning.runs.layout import BEST, INTERRUPTED, LAST, NEW, OWN, PREVIOUS, RunFolder
from cifar_lightning.utils import files


def repair(run: RunFolder, checkpoint: Checkpoint | None) -> Path | None:
    """Repair the locked folder of a run that resumes from a checkpoint (None: anew); return where that is now."""
    if checkpoint:
        if read_checkpoint(checkpoint.path).steps != checkpoint.steps:  # replaced before the folder was locked
            raise InputError(str(run.path), "another process has just trained here", "start again")
        for path in sorted({*run.checkpoints.glob("*.ckpt")} & {*map(run.checkpoint, OWN)} - {checkpoint.path}):
            try:
                later = read_checkpoint(path, to_resume=path.name != BEST).steps > checkpoint.steps
            except InputError:
                later = True
            if later:  # so that it does not push out the whole one before it; kept to be looked into
                _set_aside(path)
    for leftover in [*run.path.glob(files.TEMPORARY), *run.checkpoints.glob(files.TEMPORARY)]:
        leftover.unlink()
    if checkpoint and checkpoint.rows:
        metrics_csv.write(run.metrics, checkpoint.rows)
    else:
        run.metrics.unlink(missing_ok=True)
    if checkpoint and checkpoint.path.name == NEW:
        return settle(checkpoint.path, checkpoint.rows)
    return checkpoint.path if checkpoint else None


def _set_aside(path: Path) -> None:
    """Rename a damaged file, over no other."""
    suffixes = itertools.chain([""], (f".{n}" for n in itertools.count(1)))
    names = (f"{path.name}.damaged{suffix}" for suffix in suffixes)
    name = next(name for name in names if not os.path.lexists(path.with_name(name)))
    print(f"sets aside {path} as {name}", file=sys.stderr)
    path.rename(path.with_name(name))


def settle(new: Path, rows: Sequence[metrics_csv.Row]) -> Path:
    """Give the checkpoint of an epoch its name, `last.ckpt`, and perhaps `best.ckpt`; if cut off, done from the start.

    The checkpoints of earlier epochs lie beside it; `rows` is the history up to it.
    """
    folder, last = new.parent, new.with_name(LAST)
    *before, now = [row.get("val/acc") for row in rows]
    if now is not None and now > max((acc for acc in before if acc is not None), default=float("-inf")):
        files.link(new, folder / BEST)
    if last.exists():
        last.replace(folder / PREVIOUS)
    new.replace(last)
    (folder / INTERRUPTED).unlink(missing_ok=True)
    files.sync(folder)
    return last
