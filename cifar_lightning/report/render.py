"""From a study's records to report.md, written once from its templates, and from that Markdown to report.html."""

import re
from itertools import pairwise
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cifar_lightning.report import charts, claims, curve_diagnosis, markdown, scalings, statements
from cifar_lightning.results.records import Study
from cifar_lightning.utils import files

HTML, MARKDOWN = "report.html", "report.md"


def write(study: Study) -> Path:
    """Write report.md, figures/ and report.html into the study's folder, which exists, and return the path of the last.

    The same records give the same bytes; few or none will do. Figures of an earlier report that are no longer shown go.
    """
    report, folder, earlier = charts.Report(study), study.folder / charts.FIGURES, study.folder / MARKDOWN
    shown = re.findall(rf"\]\({folder.name}/([\w-]+\.(?:svg|png))\)", earlier.read_text() if earlier.is_file() else "")
    blocks = [line.strip() for line in _render(f"{MARKDOWN}.j2", r=report).splitlines() if line.strip()]
    # One per line, but for tables and lists.
    together = [a[:2] == b[:2] and b[:2] in ("| ", "- ") for a, b in pairwise(blocks)] + [True]
    text = "".join(block + ("\n" if close else "\n\n") for block, close in zip(blocks, together, strict=True))
    body, sections = markdown.to_html(text, report.figures, charts.COLOURS)
    folder.mkdir(exist_ok=True)
    for name, content in report.figures.items():
        files.replace(folder / name, content)
    for name in set(shown) - report.figures.keys():
        (folder / name).unlink(missing_ok=True)
    files.replace(study.folder / MARKDOWN, text.encode())
    files.replace(study.folder / HTML, _render(f"{HTML}.j2", body=Markup(body), sections=sections).encode())
    return study.folder / HTML


def findings(study: Study) -> list[str]:
    """Return the first screen of the report, a sentence or a few an item, without Markdown."""
    return markdown.plain(_render("findings.md.j2", r=charts.Report(study)))


def _render(template: str, **content: object) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
        finalize=markdown.literal,  # whatever stands in a record is text
    )
    # The templates format numbers with what these modules have, and ask the report for the rest.
    modules = (curve_diagnosis, claims, scalings, statements, markdown, charts)
    names = {"dict": dict} | {name: each for module in modules for name, each in vars(module).items()}
    return environment.get_template(template).render(names | content)
