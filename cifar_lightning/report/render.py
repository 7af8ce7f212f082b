"""From a study's records to report.md, written once from one template, and from that Markdown to report.html."""

import re
from itertools import pairwise
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cifar_lightning.report import charts, claims, curve_diagnosis, markdown
from cifar_lightning.results.records import Study
from cifar_lightning.utils import files

HTML, MARKDOWN = "report.html", "report.md"


def write(study: Study) -> Path:
    """Write report.md, figures/ and report.html into the study's folder, which exists, and return the path of the last.

    The same records give the same bytes; few or none will do. Figures of an earlier report that are no longer shown go.
    """
    report, folder, earlier = charts.Report(study), study.folder / charts.FIGURES, study.folder / MARKDOWN
    shown = re.findall(rf"\]\({folder.name}/([\w-]+\.(?:svg|png))\)", earlier.read_text() if earlier.is_file() else "")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=True,
        finalize=markdown.literal,  # whatever stands in a record is text
    )
    # The template formats numbers with what these modules have, and asks the report for the rest.
    names = vars(curve_diagnosis) | vars(claims) | vars(markdown) | vars(charts) | {"dict": dict, "r": report}
    lines = environment.get_template(f"{MARKDOWN}.j2").render(names).splitlines()
    blocks = [line.strip() for line in lines if line.strip()]  # one per line, but for tables and lists
    together = [a[:2] == b[:2] and b[:2] in ("| ", "- ") for a, b in pairwise(blocks)] + [True]
    text = "".join(block + ("\n" if close else "\n\n") for block, close in zip(blocks, together, strict=True))
    body, sections = markdown.to_html(text, report.figures, charts.COLOURS)
    page = environment.get_template(f"{HTML}.j2").render(body=Markup(body), sections=sections)
    folder.mkdir(exist_ok=True)
    for name, content in report.figures.items():
        files.replace(folder / name, content)
    for name in set(shown) - report.figures.keys():
        (folder / name).unlink(missing_ok=True)
    files.replace(study.folder / MARKDOWN, text.encode())
    files.replace(study.folder / HTML, page.encode())
    return study.folder / HTML
