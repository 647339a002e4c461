"""Write the report of a comparison: one HTML file that needs nothing else, and every number as JSON."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from knowhue.report.comparing.figure import trade_off
from knowhue.report.comparing.grid import drawing_methods, drawn_grid, sample_grid
from knowhue.report.comparing.reading import Comparison, read_comparison
from knowhue.report.comparing.summary import question_alpha, results
from knowhue.report.comparing.table import cost_table, quality_table
from knowhue.report.svg import to_svg
from knowhue.report.template import fill
from knowhue.runs import REPORT_LOCK, REPORT_S, locked
from knowhue.statistics.verdicts import fewest_seeds
from knowhue.storage import replacing, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_comparison_report(folder: Path) -> Path:
    """Write `comparison-results.json` and `comparison.html` of a comparison, in whatever state it is.

    Raises:
        RunError: the folder holds no comparison, or cannot be written.
    """
    read_comparison(folder)  # before a lock is laid into any folder
    page = folder / "comparison.html"
    with locked(folder, "report", name=REPORT_LOCK, wait_s=REPORT_S):
        comparison = read_comparison(folder)
        write_json(folder / "comparison-results.json", results(comparison))
        with replacing(page) as file:
            file.write(render(comparison))
    return page


def render(comparison: Comparison) -> str:
    """The page as HTML."""
    return fill(
        "comparing/page.html",
        asked=comparison.asked,
        methods=comparison.methods,
        fewest=fewest_seeds(question_alpha(comparison)),
        reference=comparison.methods[comparison.reference]["title"],
        trade_off=_drawing(
            trade_off(comparison), "trade-off", "Quality of each method over its training time"
        ),
        regimes=[_regime(comparison, name) for name in comparison.regimes],
    )


def figures(comparison: Comparison) -> "dict[str, Figure]":
    """Every figure by file name, for a talk or a paper."""
    grids = {f"samples_{name}": sample_grid(comparison, name) for name in comparison.regimes}
    return {"trade_off": trade_off(comparison), **grids}


def _regime(comparison: Comparison, name: str) -> dict[str, Any]:
    several = drawing_methods(comparison, name)
    title = comparison.regimes[name]["title"]
    return {
        "title": title,
        "budget_s": comparison.regimes[name].get("budget_s"),
        "quality": quality_table(comparison, name),
        "cost": cost_table(comparison, name),
        "unfinished": comparison.unfinished(name),
        "samples": _drawing(sample_grid(comparison, name), f"samples-{name}", f"Colourings at {title}"),
        "drawn": _drawing(drawn_grid(comparison, name), f"drawn-{name}", f"Samples at {title}")
        if several
        else None,
        "drawing_methods": several,
    }


def _drawing(figure: "Figure", name: str, description: str) -> Markup:
    return Markup(to_svg(figure, name, description))
