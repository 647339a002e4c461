"""Results of a poster study for parts of its test images, for each class and for the colours, as Markdown tables.

    python studies/poster/parts.py studies/poster/main.zip

The encoder was pretrained on ImageNet's training split, in colour and with labels, so it has seen the test images from
that split, but not those from the validation split. Images of other data sets are not split into parts. Differences are
over seeds and images, as in the report.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from knowhue.errors import KnowhueError, RunError, spaced
from knowhue.evaluation.aggregation import score_rows
from knowhue.metric_table import METRICS
from knowhue.report.conditions import class_transfer
from knowhue.report.contrasts import FamilyTest, contrast, family_tests
from knowhue.report.reading import read_study
from knowhue.report.study import Run, Study
from knowhue.report.text import MISSING, difference, ends_text, number
from knowhue.sealing import unpacked
from knowhue.statistics.crossed import crossed
from knowhue.statistics.paired import Interval

PARTS: dict[str, Callable[[str], bool]] = {
    "all": lambda path: True,
    "seen in pretraining": lambda path: "_val_" not in path,
    "never seen": lambda path: "_val_" in path,
}
"""Parts of the test images: name, and whether the image with a path belongs to it."""
PAIRS = (
    ("colour", "multi"), ("colour", "placebo-labels"), ("placebo-labels", "multi"), ("colour", "oracle"),
    ("class", "multi"), ("class", "placebo-colours"), ("placebo-colours", "multi"),
    ("colour", "multi-w3"), ("colour", "multi-w30"), ("class", "multi-w3"), ("class", "multi-w30"),
    ("multi-w3", "multi-w30"),
)  # fmt: skip
COLOURS = ("ab_l1", "ab_l1_vivid", "ciede2000", "mean_a", "mean_b", "colourfulness")
CLASSES = ("balanced_accuracy", "cross_entropy")
SETS = ("kd_lite0", "fd_lite0")
"""Distances between all colourings and the true images; only for all test images, with intervals over seeds alone."""
HEAD = """| first | second | metric | first | second | second minus first, 95 % interval | p, adjusted |
|---|---|---|---|---|---|---|"""
CLASS_HEAD = (
    "| class | images | a\\*b\\* error alone | together | difference, 95 % interval "
    "| correct alone, % | together | points, 95 % interval |\n|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path, help="sealed study, or the folder of a study")
    arguments = parser.parse_args()
    try:
        show(arguments.study)
    except KnowhueError as error:
        parser.exit(2, f"{error}\n")


def show(path: Path) -> None:
    """Print the tables of a study.

    Raises:
        KnowhueError: the file is not a study, or no run of its arm `multi` has finished.
    """
    study = read_whole(path)
    if not study.finished("multi"):
        raise RunError(
            f"{path}: the arm `multi` should have finished runs. Found the arms {', '.join(study.runs)}."
        )
    print("Bold: both the adjusted p and the interval over seeds and images show a difference.")
    for part, is_in_part in parts(study).items():
        cut = of_part(study, is_in_part)
        count = len(cut.finished("multi")[0].images)
        unfinished = [
            f"{run.arm} with seed {run.seed}"
            for runs in cut.runs.values()
            for run in runs.values()
            if not run.finished
        ]
        print(f"\n## {part[0].upper()}{part[1:]}: {count:,} images\n")
        print(HEAD)
        print("\n".join(rows(cut, COLOURS, CLASSES)))
        if unfinished:
            print(f"\nWithout {', '.join(unfinished)}; comparisons with these arms leave these seeds out.")
    print("\n## Class by class, all images\n")
    print(f"{CLASS_HEAD}\n" + "\n".join(class_rows(study)))
    print("\n## Two colourings of the same photo\n")
    print("\n".join(nearer(study)))
    print("\n## Sets of colourings, over seeds alone\n")
    print(f"{HEAD}\n" + "\n".join(set_rows(study)))


def read_whole(path: Path) -> Study:
    """Read a study from its folder or from a sealed file."""
    if path.is_dir():
        return read_study(path)
    with unpacked(path) as (root, _):
        return read_study(root)


def parts(study: Study) -> dict[str, Callable[[str], bool]]:
    """The `PARTS` of a study: only `all` if no test image is from ImageNet's validation split."""
    is_imagenet = any(PARTS["never seen"](row["path"]) for row in study.finished("multi")[0].images)
    return PARTS if is_imagenet else {"all": PARTS["all"]}


def of_part(study: Study, is_in_part: Callable[[str], bool]) -> Study:
    """Return the study with its runs scored only on the test images of a part.

    Baselines are left out, because they are scores of all test images. A diverged run therefore has no score here, and
    its seed is left out.
    """
    runs = {
        arm: {seed: _cut(run, study, is_in_part) for seed, run in runs.items()}
        for arm, runs in study.runs.items()
    }
    return replace(study, runs=runs, baselines={})


def _cut(run: Run, study: Study, is_in_part: Callable[[str], bool]) -> Run:
    kept = tuple(row for row in run.images if is_in_part(row["path"]))
    number_of = {name: i for i, name in enumerate(study.classes)}
    metrics = score_rows([{**row, "label": number_of[row["label"]]} for row in kept])
    return replace(run, images=kept, scores={"split": run.scores.get("split"), "metrics": metrics})


def rows(study: Study, *families: Sequence[str]) -> Iterator[str]:
    """Yield a row for each pair of arms and each metric that both have; p is adjusted within a family of metrics."""
    for metrics in families:
        family = {
            (before, after, metric): contrast(study.table, metric, before, after)
            for before, after in PAIRS
            for metric in metrics
        }
        for (before, after, metric), test in family_tests(family).items():
            yield _row(study, before, after, metric, test)


def set_rows(study: Study) -> Iterator[str]:
    """Yield a row for each pair of arms and each distance of `SETS`; p is adjusted within a metric."""
    for metric in SETS:
        places = METRICS[metric].places
        family = {pair: contrast(study.table, metric, *pair) for pair in PAIRS}
        for (before, after), test in family_tests(family).items():
            (single, multi), (low, high) = test.found.levels, test.bounds.interval
            change = f"{multi - single:+.{places}f} ({low:+.{places}f} to {high:+.{places}f})".replace(
                "-", "−"
            )
            cells = (
                before, after, METRICS[metric].title, f"{single:.{places}f}", f"{multi:.{places}f}", change,
                f"{test.p_adjusted:.3g}",
            )  # fmt: skip
            yield f"| {' | '.join(cells)} |"


def nearer(study: Study) -> Iterator[str]:
    """Yield how often the multi-task colouring is nearer, and how much errors differ between arms and between seeds."""
    alone, together = (_errors(study, arm) for arm in ("colour", "multi"))
    seeds = sorted(alone.keys() & together.keys())
    single, multi = (np.array([errors[seed] for seed in seeds]) for errors in (alone, together))
    found = crossed((multi < single) + 0.5 * (multi == single))
    assert found is not None
    # one decimal, because 49.9 must not become 50
    low, high = (f"{100 * end:.1f}" for end in found.interval(0.95))
    share = 100 * found.estimate
    yield f"Together is nearer in {share:.1f} % ({low} to {high}), by a\\*b\\* error, over seeds and images."
    between_arms = np.abs(multi - single).mean()
    yield (
        f"A photo's error differs between the two by {between_arms:.1f} units on average; between two seeds of colour"
        f" alone by {_between_seeds(single):.1f}, of both tasks by {_between_seeds(multi):.1f}."
    )


def _errors(study: Study, arm: str) -> dict[int, list[float]]:
    return {run.seed: [row["ab_l1"] for row in run.images] for run in study.finished(arm)}


def _between_seeds(errors: NDArray[np.float64]) -> float:
    """Mean absolute difference between two rows, over all pairs of rows (seeds)."""
    return float(np.mean([np.abs(one - other).mean() for one, other in combinations(errors, 2)]))


def class_rows(study: Study) -> Iterator[str]:
    """Yield a row per class with both questions; what is bold depends on p adjusted over all these differences."""
    images = Counter(row["label"] for row in study.finished("multi")[0].images)
    found = {(row["question"], row["label"]): row for row in class_transfer(study)}
    for name in study.classes:
        cells = [spaced(name), str(images[name])]
        for question in ("colour", "class"):
            row = found[question, name]
            cells += _levels(
                row["single"], row["multi"], row["bounds"].interval, row["unit"], bool(row["word"])
            )
        yield f"| {' | '.join(cells)} |"


def _levels(single: float, multi: float, interval: Interval | None, unit: str, is_clear: bool) -> list[str]:
    mark = "**" if is_clear else ""
    larger = max(single, multi, key=abs)
    change = f"{mark}{difference(single, multi, unit)}{mark} ({ends_text(larger, interval, unit)})"
    return [number(single, unit, larger), number(multi, unit, larger), change]


def _row(study: Study, before: str, after: str, metric: str, test: FamilyTest) -> str:
    levels = _levels(*test.found.levels, test.bounds.interval, study.unit(metric), test.is_clear)
    p = MISSING if test.p_adjusted is None else f"{test.p_adjusted:.3g}"
    cells = (before, after, study.label(metric), *levels, p)
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
