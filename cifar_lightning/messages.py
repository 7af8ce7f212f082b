"""One line for a person out of what a parser says."""


def explain(error: Exception) -> str:
    """What to print after `error: `."""
    return str(error)
