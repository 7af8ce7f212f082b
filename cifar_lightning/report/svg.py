"""From the SVG that matplotlib writes to a file of its own, and to a part of a page."""

import re
from collections.abc import Mapping
from html import escape

SANS = "system-ui, 'Segoe UI', Roboto, Helvetica, Arial, 'DejaVu Sans', sans-serif"


def tidy(svg: str) -> str:
    """What matplotlib wrote, from its `<svg>` on and without what nobody reads; places to a hundredth of a pixel."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    # The date is in there.
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r" font-family: [^;]*;", "", svg)
    svg = re.sub(r' transform="rotate\(-?0 [^"]*"', "", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r' (?:d|x|y|transform)="[^"]*"', lambda match: _rounded(match[0]), svg)
    return re.sub(r"\n\s*", "\n", svg)


def _rounded(attribute: str) -> str:
    return re.sub(r"-?\d+\.\d+", lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), attribute)


def _opened(svg: str, attributes: str, first: str = "") -> str:
    """With another opening tag, and something put right behind it."""
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box
    return f"<svg {box[0]} {attributes}>{first}{svg[svg.index('>') + 1 :]}"


def standalone(svg: str, alt: str) -> str:
    """A file of its own, on white: what shows it may be dark, and would not say so."""
    _, _, width, height = re.findall(r'viewBox="(\S+) (\S+) (\S+) (\S+)"', svg)[0]
    attributes = f'xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="{SANS}"'
    ground = f'<title>{escape(alt)}</title><rect width="100%" height="100%" fill="#ffffff"/>'
    return _opened(svg, f'{attributes} stroke-linejoin="round"', ground)


def inline(svg: str, name: str, alt: str, colours: Mapping[str, str]) -> str:
    """Part of a page.

    Args:
        svg: As `tidy` returns it.
        name: What its ids begin with: they are the whole page's.
        alt: What it shows, in words.
        colours: What stands for a colour there.
    """
    for colour, variable in colours.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    return _opened(svg, f'role="img" aria-label="{escape(alt)}" stroke-linejoin="round"')
