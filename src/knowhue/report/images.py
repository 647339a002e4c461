"""The report's figures as picture files, for a talk or a paper."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from knowhue.outputs import require_outputs
from knowhue.report.comparing.page import figures
from knowhue.report.comparing.reading import read_comparison
from knowhue.report.figures import FIGURES
from knowhue.report.reading import read_study
from knowhue.storage import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 200


def write_figures(folder: Path, out: Path, overwrite: bool = False) -> list[Path]:
    """Write every figure of a study as PNG on white.

    Args:
        folder: the study folder.
        out: where `<figure>.png` go.
        overwrite: whether files that exist may be replaced.

    Raises:
        ConfigError: a figure exists.
        RunError: `folder` is no study, or `out` cannot be written.
    """
    study = read_study(folder)
    _require_free(out, FIGURES, overwrite)
    return [_write(out / f"{name}.png", draw(study)) for name, draw in FIGURES.items()]


def write_comparison_figures(folder: Path, out: Path, overwrite: bool = False) -> list[Path]:
    """The same of a comparison.

    Raises:
        ConfigError: a figure exists.
        RunError: `folder` is no comparison, or `out` cannot be written.
    """
    drawn = figures(read_comparison(folder))
    _require_free(out, drawn, overwrite)
    return [_write(out / f"{name}.png", figure) for name, figure in drawn.items()]


def _require_free(out: Path, names: Iterable[str], overwrite: bool) -> None:
    for name in names:
        require_outputs({"--figures": out / f"{name}.png"}, overwrite=overwrite)


def _write(path: Path, figure: "Figure") -> Path:
    with replacing(path, "wb") as file:
        figure.savefig(file, format="png", dpi=DOTS_PER_INCH, facecolor="white", bbox_inches="tight")
    return path
