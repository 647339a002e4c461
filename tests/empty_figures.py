"""Reports without figures, which take most of the time of a small study; also for processes that tests start."""

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from knowhue.report.figures import Figure


def empty_figures() -> "dict[str, Figure]":
    """The value of `knowhue.report.page.FIGURES` for reports without figures."""
    from knowhue.report.figures import FIGURES

    return {name: replace(figure, draw=lambda _: {}) for name, figure in FIGURES.items()}
