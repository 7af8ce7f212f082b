"""The one exception for what a person gave: it becomes one line on stderr and exit status 2."""


class InputError(ValueError):
    """Something a person gave can't be used: a setting, a file, a checkpoint.

    Args:
        field: The setting or the file, named as the person wrote it: `dropout`, `logs/best.ckpt`.
        cause: What is wrong with it, the value included.
        remedy: What to do next.
    """

    def __init__(self, field: str, cause: str, remedy: str) -> None:
        super().__init__(f"{field}: {cause}; {remedy}")
        self.field, self.cause, self.remedy = field, cause, remedy


def check(holds: bool, field: str, value: object, allowed: str) -> None:
    """Raises an `InputError` that names the field, the value and what is allowed, unless `holds`."""
    if not holds:
        raise InputError(field, f"{value!r} is not possible", f"use {allowed}")
