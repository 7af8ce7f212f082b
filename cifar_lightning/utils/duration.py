"""Durations for people."""


def duration(seconds: float) -> str:
    """Return `42 s`, `17 min` or `5 h 4 min`; `1 s` at least."""
    if seconds < 99.5:
        return f"{max(1, seconds):.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
