"""What every sealed study of the poster's answers says: a table in Markdown, and the figure of `docs/poster.md`.

    python studies/poster/overview.py -o docs/poster/overview.svg

Numbers are those of `results.json` in each sealed study, which `knowhue check` computes again. Intervals are those that
decide whether there is a difference.
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
"""Sealed studies that ask the two questions, and what of each is its own."""
STUDIES = {study: name for group in GROUPS for study, name in group.items()}
TASKS = {"colour": ("Colouring", "error"), "class": ("Classification", "balanced accuracy")}


class Answer(NamedTuple):
    """What a study says of one question."""

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
    """at the level that decides whether it is less than what matters"""
    p: float
    seeds: int
    wins: int
    """seeds in which multi is better"""
    verdict: str

    @property
    def difference(self) -> float:
        return self.multi - self.single


def main() -> None:
    """Print the tables, and draw the figure where a path is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", type=Path, metavar="FILE", help="also draw the figure, .svg or .pdf")
    asked = parser.parse_args()
    if asked.o and asked.o.suffix not in (".svg", ".pdf"):
        parser.error(f"-o should name an .svg or a .pdf. Found {asked.o}")
    found = {question: [answer(study, question) for study in STUDIES] for question in TASKS}
    over_all = iter(holm([each.p for own in found.values() for each in own]))
    for question, own in found.items():
        print(f"\n## {TASKS[question][0]}\n")
        print("\n".join(table(own, islice(over_all, len(own)))))
    if asked.o:
        figure = draw(found)
        write_drawing(figure, asked.o)


def answer(study: str, question: str) -> Answer:
    """Read what a sealed study says of `colour` or `class`."""
    with zipfile.ZipFile(HOME / f"{study}.zip") as archive:
        results: dict[str, Any] = json.loads(archive.read("results.json"))
        asked = Question(**json.loads(archive.read("study.json"))["questions"][question])
    test, metric = results["tests"][question], asked.metric
    interval, inner = (tuple(each["interval"]) for each in test["intervals"])
    single, multi = (results["arms"][arm]["mean"][metric] for arm in (asked.single, asked.multi))
    return Answer(
        study, measure(results["metrics"], asked), asked.sesoi, METRICS[metric].better == "lower", single, multi,
        interval, inner, test["p"], len(test["seeds"]), test["wins"],
        results["verdicts"][question],
    )  # fmt: skip


def holm(p: Sequence[float]) -> list[float]:
    """Return p adjusted for their number after Holm (1979), which keeps the rate of any false claim among them."""
    order = np.argsort(p, kind="stable")
    rising = np.maximum.accumulate(np.take(p, order) * np.arange(len(p), 0, -1))
    return np.minimum(rising, 1)[np.argsort(order)].tolist()


def table(answers: list[Answer], over_all: Iterable[float]) -> Iterator[str]:
    """Write a line a study; `over_all` has p of each, adjusted for all questions of all studies."""
    yield "| study | seeds | alone | together | difference (97.5 %) | better in | p | over all | verdict |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for each, adjusted in zip(answers, over_all, strict=True):
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
    """Draw a panel a question, a line a study; orange where together is better, blue where alone is."""
    heights = [place + 0.6 * group for group, place in _places()]
    figure, axes = panels(7.6, 0.25 * heights[-1] + 1.3, columns=len(found), sharey=True)
    for ax, (question, own) in zip(axes.flat, found.items(), strict=True):
        _panel(ax, question, own, heights)
    axes[0, 0].set_yticks(heights, STUDIES.values(), fontsize=SMALL, color=INK)
    return figure


def _places() -> Iterator[tuple[int, int]]:
    """Of each study the number of its group and its own."""
    groups = [number for number, group in enumerate(GROUPS) for _ in group]
    yield from zip(groups, range(len(STUDIES)), strict=True)


def _panel(ax: "Axes", question: str, answers: list[Answer], heights: list[float]) -> None:
    written, sesoi = answers[0].measure, answers[0].sesoi
    ends = [written.scale * end for each in answers for end in each.interval]
    # upside down, so that the first study is on top, with room above for the name of the band
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
