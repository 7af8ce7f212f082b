"""How a part of the benchmark tells that it can't go on."""


class StoppedError(Exception):
    """One of the parts ended before its time, having said why; the argument is its exit status."""
