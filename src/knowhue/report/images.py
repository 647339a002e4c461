"""The report's figures as picture files, for a talk or a paper."""

from pathlib import Path
from typing import TYPE_CHECKING

from knowhue.report.comparing.page import figures
from knowhue.report.comparing.reading import read_comparison
from knowhue.report.figures import FIGURES
from knowhue.report.reading import read_study
from knowhue.storage import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 200


def write_figures(folder: Path, out: Path) -> list[Path]:
    """Write every figure of a study as PNG on white.

    Args:
        folder: the study folder.
        out: where `<figure>.png` go.

    Raises:
        RunError: `folder` is no study, or `out` cannot be written.
    """
    study = read_study(folder)
    return [_write(out / f"{name}.png", draw(study)) for name, draw in FIGURES.items()]


def write_comparison_figures(folder: Path, out: Path) -> list[Path]:
    """The same of a comparison.

    Raises:
        RunError: `folder` is no comparison, or `out` cannot be written.
    """
    drawn = figures(read_comparison(folder))
    return [_write(out / f"{name}.png", figure) for name, figure in drawn.items()]


def _write(path: Path, figure: "Figure") -> Path:
    with replacing(path, "wb") as file:
        figure.savefig(file, format="png", dpi=DOTS_PER_INCH, facecolor="white", bbox_inches="tight")
    return path
