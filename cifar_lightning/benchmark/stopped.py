"""How a part of the benchmark tells that it can't go on."""


class StoppedError(Exception):
    """One of the parts ended before its time, and why has been said; the argument is the exit status."""
