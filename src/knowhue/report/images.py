"""The report's figures as picture files, for a talk or a paper."""

from pathlib import Path

from knowhue.report.figures import FIGURES
from knowhue.report.reading import read_study
from knowhue.runs import replacing

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
    paths = []
    for name, draw in FIGURES.items():
        path = out / f"{name}.png"
        with replacing(path, "wb") as file:
            draw(study).savefig(file, format="png", dpi=DOTS_PER_INCH, facecolor="white", bbox_inches="tight")
        paths.append(path)
    return paths
