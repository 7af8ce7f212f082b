"""Where every number comes from: command, versions, hardware, data, and the runs themselves."""

from collections import Counter
from collections.abc import Iterator

from cifar_lightning.report.blocks import Block, Group, Heading, Paragraph, Section, Span, Table, Text, listed, text
from cifar_lightning.report.words import NOTHING, linked, names, plain, run_name, title, variant_title
from cifar_lightning.results.study_results import Run, Study

# Keys of a record's environment, as the report names them; others follow under their own name.
KEYS = {
    "commit": "commit",
    "code": "code (hash)",
    "data": "data and split (hash of images and labels, in order)",
    "python": "Python",
    "lightning": "Lightning",
    "torch": "PyTorch",
    "torchvision": "torchvision",
    "torchmetrics": "torchmetrics",
    "system": "system",
    "machine": "machine",
    "processor": "processor",
    "cores": "cores",
    "device": "device",
    "threads": "threads",
    "precision": "precision",
}


def provenance(study: Study) -> Section:
    """Command, environment, and every run with its command."""
    blocks: list[Block] = [
        Heading("9.1", "Environment", "environment"),
        *listed("What it was made with", ("", ""), "tp", list(_environment(study))),
        Heading("9.2", "Runs", "runs"),
        *_runs(study),
        Heading("9.3", "Failed and missing", "missing"),
        *_missing(study),
    ]
    return Section(9, "Provenance", "provenance", blocks)


def _environment(study: Study) -> Iterator[list[Text]]:
    yield [text("command"), text(Span(study.plan.command, tone="code"))]
    records = [run.record for run in _planned(study)]
    seeds = sorted({point.seed for point in study.plan.points})
    yield [text("seeds"), text(names([str(seed) for seed in seeds]) or NOTHING)]
    yield [text("images"), text(_counted([record.source for record in records]))]
    others = sorted({key for record in records for key in record.environment} - KEYS.keys())
    for key in (*KEYS, *others):
        values = [plain(record.environment[key]) for record in records if key in record.environment]
        yield [text(KEYS.get(key, key)), text(_counted(values))]


def _counted(values: list[str]) -> str:
    """The distinct values; how many runs have which, where they differ."""
    counts = Counter(values)
    if len(counts) < 2:
        return values[0] if values else "not recorded"
    return "; ".join(f"{value} ({count} {'run' if count == 1 else 'runs'})" for value, count in counts.items())


def _planned(study: Study) -> list[Run]:
    """One run a record, at the first point that it serves."""
    runs: dict[str, Run] = {}
    for point in study.plan.points:
        if point.address in study.records:
            runs.setdefault(point.address, Run(point, study.records[point.address]))
    return list(runs.values())


def _runs(study: Study) -> list[Block]:
    groups: dict[str, list[list[Text]]] = {}
    for run in _planned(study):
        row = [
            linked(run_name(run), [run]),
            text(run.record.status),
            text(str(len(run.record.rows))),
            text(f"{run.record.parameters:,}" if run.record.parameters else NOTHING),
            text(Span(run.record.command, tone="code")),
        ]
        groups.setdefault(title(run.point.experiment), []).append(row)
    if not groups:
        return [Paragraph(text("None yet."))]
    head = ("", "status", "epochs", "parameters", "command")
    return [
        _repeating(study),
        Table("Every run", head, "ttnnp", [Group(text(name), rows) for name, rows in groups.items()]),
    ]


def _repeating(study: Study) -> Paragraph:
    """What else it takes to come to the same bits."""
    counts = {run.record.environment.get("threads") for run in _planned(study)}
    threads = f"OMP_NUM_THREADS={counts.pop()}" if len(counts) == 1 and None not in counts else ""
    which = Span(threads, tone="code") if threads else "environment.threads of its record"
    return Paragraph(
        text(
            "A command repeats its run to the last bit with the same machine, versions and number of threads (",
            which,
            ").",
        )
    )


def _missing(study: Study) -> list[Block]:
    variants = [variant for those in study.experiments.values() for variant in those]
    titles = {id(variant): variant_title(variant.experiment, variant.name) for variant in variants}
    failed = [
        [linked(f"{titles[id(variant)]}, seed {run.point.seed}", [run]), text(run.reason)]
        for variant in variants
        for run in (*variant.runs, *variant.failed)
        if run.reason
    ]
    pending = [
        [text(titles[id(variant)]), text(", ".join(map(str, variant.pending)))]
        for variant in variants
        if variant.pending
    ]
    blocks: list[Block] = [
        *listed("Failed runs", ("failed", "reason"), "tp", failed),
        *listed("Runs that have not been made", ("not run yet", "seeds"), "tt", pending),
    ]
    return blocks or [Paragraph(text("Nothing: every run of the plan is done."))]
