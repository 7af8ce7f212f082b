"""Which of the processes that train one model this one is, told without importing anything."""

import os


def rank() -> int:
    """Return its number, from 0, by the variables of whoever started it: torchrun, SLURM, or this program."""
    return next((int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID") if name in os.environ), 0)
