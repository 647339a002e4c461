"""A figure as SVG for the page: text stays text, colours follow the page, no identifier collides."""

import io
import re
from typing import TYPE_CHECKING

from knowhue.report.palette import THEME

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def to_svg(figure: "Figure", name: str, description: str) -> str:
    """Return an `<svg>` element to be put into an HTML page.

    Args:
        figure: drawn with the colours of `palette`; they become the page's CSS variables.
        name: unique on the page; prefixes every identifier.
        description: what a reader who cannot see it should know.
    """
    import matplotlib

    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata=nothing, transparent=True)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r' id="([^"]+)"', rf' id="{name}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    for colour, variable in THEME.items():
        text = text.replace(colour, f"var(--{variable}, {colour})")
    text = re.sub(r"'DejaVu Sans'", "var(--sans, sans-serif)", text)
    size = r' width="[^"]+pt" height="[^"]+pt"|(?<=<svg) height="[^"]+pt"| width="[^"]+pt"(?= version)'
    label = description.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return re.sub(size, "", text, count=2).replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
