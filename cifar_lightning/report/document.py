"""From a study's records to report.html, report.md and figures/."""

import base64
import re
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cifar_lightning.report.blocks import Figure, Gallery, Section
from cifar_lightning.report.claims import compare
from cifar_lightning.report.markup import as_markdown, literal
from cifar_lightning.report.sections.ablations import ablations
from cifar_lightning.report.sections.curves import curves
from cifar_lightning.report.sections.fit import fit
from cifar_lightning.report.sections.notices import SYNTHETIC, notices
from cifar_lightning.report.sections.provenance import provenance
from cifar_lightning.report.sections.results import results
from cifar_lightning.report.sections.summary import summary
from cifar_lightning.report.sections.sweeps import sweeps
from cifar_lightning.report.sections.tested import tested
from cifar_lightning.report.sections.verdicts import statements
from cifar_lightning.report.statements import judge
from cifar_lightning.report.style import marked
from cifar_lightning.report.words import is_synthetic
from cifar_lightning.results.study_results import Study
from cifar_lightning.utils import files

TEMPLATES = Path(__file__).parent / "templates"
HTML, MARKDOWN, FIGURES = "report.html", "report.md", "figures"
TITLE = "CIFAR-10 with an MLP and a CNN: a course report done again"


def write(study: Study) -> Path:
    """Writes the report into the study's folder. The same records give the same bytes.

    Args:
        study: Its folder must exist; its records may be few, or none.

    Returns:
        Where report.html is. Beside it are report.md and, for that, figures/, in which an earlier report's do not stay.
    """
    with marked(SYNTHETIC if is_synthetic(study) else ""):
        sections = contents(study)
    figures = study.folder / FIGURES
    figures.mkdir(exist_ok=True)
    pictures, earlier = _pictures(sections), _shown(study.folder / MARKDOWN)
    for name, content in pictures.items():
        files.replace(figures / name, content)
    for name in earlier - pictures.keys():
        (figures / name).unlink(missing_ok=True)
    for name in (MARKDOWN, HTML):
        page = _environment().get_template(f"{name}.j2")
        rendered = page.render(title=TITLE, notices=notices(study), sections=sections, figures=FIGURES)
        spaced = re.sub(r"\n{3,}", "\n\n", rendered).strip()
        files.replace(study.folder / name, f"{spaced}\n".encode())
    return study.folder / HTML


def contents(study: Study) -> list[Section]:
    """The report's sections, in their order."""
    comparisons, verdicts = compare(study), judge(study)
    return [
        summary(study, comparisons, verdicts),
        results(comparisons),
        curves(study),
        ablations(study),
        sweeps(study),
        fit(study),
        statements(verdicts),
        tested(study),
        provenance(study),
    ]


def _pictures(sections: Sequence[Section]) -> dict[str, bytes]:
    """What report.md shows, by the name of its file."""
    found: dict[str, bytes] = {}
    for block in (block for section in sections for block in section.blocks):
        if isinstance(block, Figure):
            for drawing in block.drawings:
                found |= {f"{drawing.name}.svg": drawing.svg, f"{drawing.name}.png": drawing.png}
        elif isinstance(block, Gallery):
            found |= {f"{picture.name}.png": base64.b64decode(picture.png) for picture in block.pictures}
    return found


def _shown(markdown: Path) -> set[str]:
    """The names of the pictures that an earlier report shows, each as both SVG and PNG; others are not its own."""
    if not markdown.is_file():
        return set()
    stems = re.findall(rf"\]\({FIGURES}/([\w-]+)\.(?:svg|png)\)", markdown.read_text())
    return {f"{stem}.{kind}" for stem in stems for kind in ("svg", "png")}


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=lambda name: bool(name and name.startswith(HTML)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"markdown": as_markdown, "literal": literal}
    return environment
