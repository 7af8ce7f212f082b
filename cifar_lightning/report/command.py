"""`python -m cifar_lightning report`: rebuild a study's report from its records alone."""

from collections.abc import Sequence
from pathlib import Path

from cifar_lightning.results import store
from cifar_lightning.utils.one_line_parser import OneLineParser


def report(args: Sequence[str]) -> int:
    """Read the records, write the report, and print where it is; return the exit status."""
    text = "Write report.html, report.md and figures/ from the records of a study: plan.json and a result.json per run."
    parser = OneLineParser("python -m cifar_lightning report", description=text, allow_abbrev=False)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="The study's: logs/study.")
    text = "Write there, and copy the records with it: a study to publish, without its checkpoints."
    parser.add_argument("--output", type=Path, help=text)
    options = parser.parse_args(args)
    study = store.read(options.folder)
    study = store.publish(study, options.output) if options.output else study
    from cifar_lightning.report.render import write  # here, so that --help need not wait for pandas and Altair

    print(f"written to {write(study)}")
    return 0
