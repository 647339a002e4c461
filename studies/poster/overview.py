"""Results of every sealed study of the poster's two questions: Markdown tables, and the figure of `docs/poster.md`.

    python studies/poster/overview.py -o docs/poster/overview.svg

The numbers are from `results.json` in each sealed study, which `knowhue check` recomputes. The intervals have the level
that decides whether there is a difference.
"""

import argparse
import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from knowhue.metric_table import METRICS
from knowhue.plan import Question
from knowhue.report.figures import write_drawing
from knowhue.report.style import (
    INK,
    MULTI,
    MUTED,
    SINGLE,
    SMALL,
    axis_limits,
    dot,
    mark_margin,
    number_axis,
    panels,
    set_title,
)
from knowhue.report.text import Measure, measure, p_text
from knowhue.statistics.paired import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HOME = Path(__file__).parent
GROUPS = (
    {
        "main": "main study, 6 + 6 epochs",
        "weights": "the same, ten other seeds",
        "full": "30 + 15 epochs, as the poster",
    },
    {
        "unet": "head that reads every level",
        "lite0": "encoder EfficientNet-Lite0",
        "lite0-placebos": "EfficientNet-Lite0, ten other seeds",
    },
    {
        "ocean5": "other photos, of sea animals",
        "ocean5-128": "these at 128 pixels",
        "ocean5-128-again": "at 128 pixels, ten other seeds",
    },
    {
        "images-2000": "2,000 images; 500 test",
        "images-500": "500 images",
        "images-250": "250 images",
        "images-125": "125 images",
    },
    {"labels-25": "50 labels a class", "labels-5": "10 labels a class", "labels-2": "4 labels a class"},
)
"""Sealed studies of the two questions in groups: file name without suffix, and what distinguishes the study."""
STUDIES = {study: name for group in GROUPS for study, name in group.items()}
TASKS = {"colour": ("Colouring", "error"), "class": ("Classification", "balanced accuracy")}


class Answer(NamedTuple):
    """The result of a study for one question."""

    study: str
    measure: Measure
    sesoi: float
    lower_is_better: bool
    single: float
    """mean over seeds of the single-task arm, in the unit of the metric"""
    multi: float
    interval: Interval
    """of the difference, multi minus single, at the level that decides whether there is one"""
    inner: Interval
    """of the difference, at the level that decides whether it is smaller than what matters"""
    p: float
    seeds: int
    wins: int
    """number of seeds in which multi is better"""
    verdict: str

    @property
    def difference(self) -> float:
        return self.multi - self.single


def main() -> None:
    """Print the tables, and draw the figure if a path is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", type=Path, metavar="FILE", help="also draw the figure, .svg or .pdf")
    path = parser.parse_args().o
    if path and path.suffix not in (".svg", ".pdf"):
        parser.error(f"-o should be the name of an .svg or .pdf file. Found {path}")
    found = {question: [answer(study, question) for study in STUDIES] for question in TASKS}
    adjusted = iter(holm([each.p for answers in found.values() for each in answers]))
    for question, answers in found.items():
        print(f"\n## {TASKS[question][0]}\n")
        print("\n".join(table(answers, islice(adjusted, len(answers)))))
    if path:
        write_drawing(draw(found), path)


def answer(study: str, question: str) -> Answer:
    """Read the result of a sealed study for the question `colour` or `class`."""
    with zipfile.ZipFile(HOME / f"{study}.zip") as archive:
        results: dict[str, Any] = json.loads(archive.read("results.json"))
        declared = Question(**json.loads(archive.read("study.json"))["questions"][question])
    test, metric = results["tests"][question], declared.metric
    interval, inner = (tuple(each["interval"]) for each in test["intervals"])
    single, multi = (results["arms"][arm]["mean"][metric] for arm in (declared.single, declared.multi))
    return Answer(
        study, measure(results["metrics"], declared), declared.sesoi, METRICS[metric].better == "lower", single, multi,
        interval, inner, test["p"], len(test["seeds"]), test["wins"],
        results["verdicts"][question],
    )  # fmt: skip


def holm(p: Sequence[float]) -> list[float]:
    """Return p adjusted for multiple tests by Holm's method (1979), which controls the family-wise error rate."""
    order = np.argsort(p, kind="stable")
    rising = np.maximum.accumulate(np.take(p, order) * np.arange(len(p), 0, -1))
    return np.minimum(rising, 1)[np.argsort(order)].tolist()


def table(answers: list[Answer], p_adjusted: Iterable[float]) -> Iterator[str]:
    """Yield the lines of a table with a row per study; `p_adjusted` is adjusted for all questions of all studies."""
    yield "| study | seeds | alone | together | difference (97.5 %) | better in | p | over all | verdict |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for each, adjusted in zip(answers, p_adjusted, strict=True):
        written = each.measure
        less = f"; 95 %: {written.ends(each.inner)}" if each.verdict == "equivalent" else ""
        cells = (
            STUDIES[each.study], str(each.seeds), written.level(each.single), written.level(each.multi),
            f"{written.signed(each.difference)} ({written.ends(each.interval)}{less})", str(each.wins), p_text(each.p),
            p_text(adjusted), _bold(each.verdict),
        )  # fmt: skip
        yield f"| {' | '.join(cells)} |"


def _bold(verdict: str) -> str:
    word, mark, rest = verdict.partition(";")
    return verdict if word == "inconclusive" else f"**{word}**{mark}{rest}"


def draw(found: dict[str, list[Answer]]) -> "Figure":
    """Draw a panel per question and a line per study: orange if multi-task is better, blue if single-task is."""
    groups = [number for number, group in enumerate(GROUPS) for _ in group]
    heights = [place + 0.6 * group for place, group in enumerate(groups)]
    figure, axes = panels(7.6, 0.25 * heights[-1] + 1.3, columns=len(found), sharey=True)
    for ax, (question, answers) in zip(axes.flat, found.items(), strict=True):
        _panel(ax, question, answers, heights)
    axes[0, 0].set_yticks(heights, STUDIES.values(), fontsize=SMALL, color=INK)
    return figure


def _panel(ax: "Axes", question: str, answers: list[Answer], heights: list[float]) -> None:
    written, sesoi = answers[0].measure, answers[0].sesoi
    ends = [written.scale * end for each in answers for end in each.interval]
    # the axis is inverted, so that the first study is on top; there is room above it for the label of the band
    ax.set(xlim=axis_limits(ends, written.scale * sesoi), ylim=(heights[-1] + 0.6, -1.2))
    for height, each in zip(heights, answers, strict=True):
        word = each.verdict.partition(";")[0]
        colour = {"helps": MULTI, "hurts": SINGLE}.get(word.partition(",")[0], MUTED)
        interval = [written.scale * end for end in each.interval]
        ax.plot(interval, [height, height], color=colour, linewidth=2, zorder=3)
        dot(ax, written.scale * each.difference, height, colour, 6, zorder=4)
        ax.annotate(
            word.replace(", ", ",\n"), (1, height), xycoords=("axes fraction", "data"), xytext=(6, 0),
            textcoords="offset points", va="center", color=colour, fontsize=SMALL, annotation_clip=False,
        )  # fmt: skip
    ax.spines["left"].set_visible(False)
    number_axis(ax, "x")
    title, what = TASKS[question]
    set_title(ax, title, subtitle=f"{what}, together minus alone, {written.difference_unit}")
    mark_margin(ax, written.scale * sesoi, answers[0].lower_is_better)


if __name__ == "__main__":
    main()
