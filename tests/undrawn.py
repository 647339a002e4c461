"""Reports without figures, whose drawing takes most of a small study: also in processes that tests start."""

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from knowhue.report.figures import Figure


def undrawn_figures() -> "dict[str, Figure]":
    """What `knowhue.report.page.FIGURES` is to be for that."""
    from knowhue.report.figures import FIGURES

    return {name: replace(figure, draw=lambda _: {}) for name, figure in FIGURES.items()}
