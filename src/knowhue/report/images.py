"""The report's figures as image files, for a talk or a paper."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from knowhue.report.exhibits import EXHIBITS, Exhibit, facts
from knowhue.report.figures import FIGURES
from knowhue.report.forest import forest_rows
from knowhue.report.label_fraction import has_label_fractions
from knowhue.report.method_figures import comparison_figures
from knowhue.report.samples import has_second
from knowhue.report.study import Study, read_study
from knowhue.storage import replacing, require_outputs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 200


def write_figures(folder: Path, out: Path, overwrite: bool = False) -> list[Path]:
    """Write every figure of a study that shows something as PNG on white, and `figures.md`, which says what.

    Args:
        folder: the study folder.
        out: where `<figure>.png` go.
        overwrite: whether files that exist may be replaced.

    Raises:
        ConfigError: a figure exists.
        RunError: `folder` is no study, or `out` cannot be written.
    """
    study = read_study(folder)
    if study.is_comparison:
        drawn = comparison_figures(study)
        _require_free(out, drawn, overwrite)
        return [_write(out / f"{name}.png", figure) for name, figure in drawn.items()]
    chosen = {
        name: exhibit
        for exhibit in EXHIBITS.values()
        for name in exhibit.figures
        if name in FIGURES and is_worth_drawing(study, name)
    }
    _require_free(out, chosen, overwrite)
    written = [_write(out / f"{name}.png", FIGURES[name](study)) for name in chosen]
    _write_list(out / "figures.md", study, chosen)
    return written


def is_worth_drawing(study: Study, name: str) -> bool:
    """Whether a figure shows more than that there is nothing to show: one seed has no spread, one arm no rivals."""
    needs = {
        "transfer_colour": lambda: "colour" in study.questions and len(study.seeds) > 1,
        "transfer_class": lambda: "class" in study.questions and len(study.seeds) > 1,
        "forest": lambda: len({row.arm for row in forest_rows(study)}) > 1,
        "label_fraction": lambda: has_label_fractions(study),
        "more_samples": lambda: has_second(study),
    }
    return needs[name]() if name in needs else True


def _write_list(path: Path, study: Study, chosen: Mapping[str, Exhibit]) -> None:
    """Say what each file shows, in the words of the report."""
    said = facts(study)
    lines = [
        f"- `{name}.png`: **{each.title}** {each.caption.format(**said)}\n" for name, each in chosen.items()
    ]
    with replacing(path) as file:
        file.writelines(lines)


def _require_free(out: Path, names: Iterable[str], overwrite: bool) -> None:
    for name in (*(f"{name}.png" for name in names), "figures.md"):
        require_outputs({"--figures": out / name}, overwrite=overwrite)


def _write(path: Path, figure: "Figure") -> Path:
    with replacing(path, "wb") as file:
        figure.savefig(file, format="png", dpi=DOTS_PER_INCH, facecolor="white", bbox_inches="tight")
    return path
