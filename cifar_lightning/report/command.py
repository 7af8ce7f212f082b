"""`python -m cifar_lightning report`: makes a study's report again, from its records alone."""

from collections.abc import Sequence
from pathlib import Path

from cifar_lightning.results import store
from cifar_lightning.utils.one_line_parser import OneLineParser


def report(args: Sequence[str]) -> int:
    """Reads the records, writes the report, says where it is.

    Args:
        args: What stands after `report`.

    Returns:
        Exit status.
    """
    options = parser().parse_args(args)
    study = store.read(options.folder)
    if options.output:
        study = store.publish(study, options.output)
    from cifar_lightning.report.render import write  # here, so that --help need not wait for it

    print(f"written to {write(study)}")
    return 0


def parser() -> OneLineParser:
    """The command's own flags."""
    own = OneLineParser(
        "python -m cifar_lightning report",
        description="Makes report.html, report.md and figures/ from the records of a study: plan.json and a "
        "result.json a run. The same records give the same bytes.",
        allow_abbrev=False,
    )
    own.add_argument("folder", type=Path, metavar="FOLDER", help="The study's: logs/study.")
    help_output = "Write it there, and copy the records with it: a study to publish, without its checkpoints."
    own.add_argument("--output", type=Path, help=help_output)
    return own
