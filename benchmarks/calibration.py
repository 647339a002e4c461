"""How often a verdict is wrong, and how often it detects an existing effect, in thousands of simulated studies.

Scores of single images are simulated, with new seeds and images for every study, and judged by `crossed`, `sign_flip_p`
and `judge` as in a report. The true effect is the one over the *populations* of seeds and images, not over the images
drawn.

    python benchmarks/calibration.py --studies 10000 --workers 2 > calibration.md
"""

import argparse
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from typing import NamedTuple

import numpy as np

from knowhue.statistics.crossed import crossed
from knowhue.statistics.paired import sign_flip_p
from knowhue.statistics.power import Design, Variances, chances
from knowhue.statistics.verdicts import Word, judge

ALPHA = 0.025
CLASSES = 5
DESIGNS = [(n, m) for n in (8, 10, 20) for m in (250, 1500)]
CHUNK = 500


class Question(NamedTuple):
    """How to draw scores, the question posed about them, and their variances if they are known.

    `effects` are the true effects in favour of multi-task, in units of the smallest effect of interest.
    """

    sesoi: float
    lower_is_better: bool
    draw: Callable[[np.random.Generator, int, int, float], np.ndarray]
    variances: Variances | None = None
    effects: tuple[float, ...] = (0.0, 1.0)


Draw = Callable[[np.random.Generator, int], np.ndarray]


def _normal(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.normal(size=count)


def _heavy(rng: np.random.Generator, count: int) -> np.ndarray:
    """Student's t with 4 degrees of freedom."""
    return rng.standard_t(4, count) / np.sqrt(2)


def _some_worse(rng: np.random.Generator, count: int) -> np.ndarray:
    """Exponential, skewness 2: a few errors are much larger, most are slightly smaller."""
    return rng.exponential(size=count) - 1


def _some_better(rng: np.random.Generator, count: int) -> np.ndarray:
    return -_some_worse(rng, count)


def errors(variances: Variances, seeds: Draw = _normal, images: Draw = _normal) -> Question:
    """Errors: effects of seeds and of images, drawn with variance 1, and a normal residual."""

    def draw(rng: np.random.Generator, n: int, m: int, effect: float) -> np.ndarray:
        of_seeds, of_images = seeds(rng, n)[:, None], images(rng, m)
        rest = rng.normal(size=(n, m))
        return effect + variances.seed * of_seeds + variances.image * of_images + variances.residual * rest

    return Question(0.25, True, draw, variances)


def accuracy(level: float) -> Question:
    """Correct or not: images of five classes differ in difficulty for both arms, and slightly for one arm only."""

    def odds(rng: np.random.Generator, m: int) -> tuple[np.ndarray, np.ndarray]:
        centres = np.repeat(level + np.linspace(-1, 1, CLASSES), m // CLASSES)
        return centres + 2.5 * rng.normal(size=len(centres)), 0.4 * rng.normal(size=len(centres))

    @cache
    def shift(effect: float) -> float:
        """Return the shift of multi-task's log odds that gives this difference in the population."""
        images, own = odds(np.random.default_rng(0), 1_000_000)
        wobble = 0.1 * np.random.default_rng(1).normal(size=(2, len(images)))
        low, high = -2.0, 4.0
        for _ in range(40):
            middle = (low + high) / 2
            gap = _share(images + own + middle + wobble[0]) - _share(images + wobble[1])
            low, high = (middle, high) if gap < effect else (low, middle)
        return low

    def draw(rng: np.random.Generator, n: int, m: int, effect: float) -> np.ndarray:
        images, own = odds(rng, m)
        single = images + 0.1 * rng.normal(size=(n, 1)) + rng.logistic(size=(n, m)) > 0
        multi = images + own + shift(effect) + 0.1 * rng.normal(size=(n, 1)) + rng.logistic(size=(n, m)) > 0
        return multi.astype(float) - single

    return Question(0.01, False, draw)


def _share(odds: np.ndarray) -> float:
    return float((1 / (1 + np.exp(-odds))).mean())


LITTLE_FROM_SEEDS, MUCH_FROM_SEEDS = Variances(0.076, 1.45, 0.8), Variances(0.25, 1.45, 2.0)
QUESTIONS = {
    "a*b*, seeds .076, images 1.45, residual .8": errors(LITTLE_FROM_SEEDS)._replace(effects=(0, 1, 2)),
    "balanced accuracy about 88 %": accuracy(3.4)._replace(effects=(0, 1, 2)),
    "balanced accuracy about 97 %": accuracy(6.5),
    "a*b*, seeds .25, images 1.45, residual 2": errors(MUCH_FROM_SEEDS),
    "a*b*, seeds .076, images 1.45 with heavy tails": errors(LITTLE_FROM_SEEDS, images=_heavy),
    "a*b*, seeds .076, a few much worse": errors(LITTLE_FROM_SEEDS, seeds=_some_worse),
    "a*b*, seeds .076, a few much better": errors(LITTLE_FROM_SEEDS, seeds=_some_better),
    "a*b*, seeds .25, a few much worse": errors(MUCH_FROM_SEEDS, seeds=_some_worse),
    "a*b*, seeds .25, a few much better": errors(MUCH_FROM_SEEDS, seeds=_some_better),
}


class Cell(NamedTuple):
    """One question with one true effect and one design."""

    question: str
    effect: float
    seeds: int
    images: int


def words(cell: Cell, studies: int, seed: int) -> list[Word]:
    """Return the verdicts of simulated studies."""
    rng = np.random.default_rng([seed, list(QUESTIONS).index(cell.question), *map(int, cell[1:])])
    return [_one(rng, cell) for _ in range(studies)]


def _one(rng: np.random.Generator, cell: Cell) -> Word:
    question = QUESTIONS[cell.question]
    effect = cell.effect * question.sesoi * (-1 if question.lower_is_better else 1)
    scores = question.draw(rng, cell.seeds, cell.images, effect)
    groups = None if question.lower_is_better else np.repeat(np.arange(CLASSES), cell.images // CLASSES)
    found = crossed(scores, groups, binary=groups is not None)
    assert found is not None
    p = sign_flip_p(scores.mean(axis=1))  # classes are equally large
    return judge(cell.seeds, p, found.interval, question.sesoi, ALPHA, question.lower_is_better)


def is_false(word: Word, effect: float) -> bool:
    """Whether a verdict is a false claim; an effect as large as the smallest effect of interest matters."""
    if not effect:
        return bool(word.direction)
    wrong = word.direction == "hurts"
    return wrong or word in (Word.EQUIVALENT, Word.HELPS_LITTLE, Word.HURTS_LITTLE)


@cache
def _variances(cell: Cell) -> Variances:
    """Return a question's variances: the true ones, or the mean of many pilot studies of this size."""
    question = QUESTIONS[cell.question]
    if question.variances is not None:
        return question.variances
    rng, groups = np.random.default_rng(7), np.repeat(np.arange(CLASSES), cell.images // CLASSES)
    tables = [question.draw(rng, cell.seeds, cell.images, cell.effect * question.sesoi) for _ in range(400)]
    found = [each for table in tables if (each := crossed(table, groups, binary=True)) is not None]
    parts = [[part.variance for part in (each.over_seeds, each.over_images, each.residual)] for each in found]
    seeds, images, rest = np.mean(parts, axis=0)
    n, m = cell.seeds, cell.images
    return Variances(
        max(n * (seeds - rest), 0) ** 0.5, max(m * (images - rest), 0) ** 0.5, (n * m * rest) ** 0.5
    )


def predicted(cell: Cell) -> float:
    """Return how often `knowhue plan` predicts a claim, or, without an effect, the verdict equivalent."""
    question = QUESTIONS[cell.question]
    design = Design(cell.seeds, cell.images, question.sesoi, ALPHA)
    variances = _variances(cell)
    expected = chances(design, -cell.effect * question.sesoi, variances, 10_000, seed=3)
    return 100 * (sum(share for word, share in expected.items() if word.direction) if cell.effect
                  else expected.get(Word.EQUIVALENT, 0.0))  # fmt: skip


def run(cells: list[Cell], studies: int, workers: int) -> Iterator[tuple[Cell, list[Word]]]:
    """Yield every cell's verdicts; its studies are distributed over processes."""
    starts = range(0, studies, CHUNK)
    counts = [min(CHUNK, studies - start) for start in starts]
    with ProcessPoolExecutor(workers) as pool:
        found = [
            (cell, [pool.submit(words, cell, *each) for each in zip(counts, starts, strict=True)])
            for cell in cells
        ]
        for cell, parts in found:
            yield cell, [word for part in parts for word in part.result()]


def main() -> None:
    """Print both tables as Markdown."""
    parser = argparse.ArgumentParser(description="How often a verdict is wrong.")
    parser.add_argument("--studies", type=int, default=10_000, help="simulated studies per cell of the table")
    parser.add_argument("--workers", type=int, default=2, help="number of processes")
    parser.add_argument(
        "--question", action="append", help="part of a question's name; by default all questions"
    )
    args = parser.parse_args()
    names = [name for name in QUESTIONS if not args.question or any(part in name for part in args.question)]
    if not names:
        parser.error(f"--question should be part of one of: {'; '.join(QUESTIONS)}")
    cells = [
        Cell(name, effect, n, m) for name in names for effect in QUESTIONS[name].effects for n, m in DESIGNS
    ]
    found: dict[Cell, list[Word]] = {}
    print("| question | true effect / smallest effect of interest | seeds | images | false claims, % "
          "| claims, % (planned) | equivalent, % (planned) |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for cell, verdicts in run(cells, args.studies, args.workers):
        found[cell] = verdicts
        false = 100 * np.mean([is_false(word, cell.effect) for word in verdicts])
        claims = 100 * np.mean([bool(word.direction) for word in verdicts])
        equal = 100 * np.mean([word == Word.EQUIVALENT for word in verdicts])
        plan = predicted(cell)
        planned = (f" ({plan:.1f})", "") if cell.effect else ("", f" ({plan:.1f})")
        numbers = f"{false:.1f} | {claims:.1f}{planned[0]} | {equal:.1f}{planned[1]}"
        print(f"| {cell.question} | {cell.effect:g} | {cell.seeds} | {cell.images} | {numbers} |", flush=True)
    _print_both(found)


def _print_both(found: dict[Cell, list[Word]]) -> None:
    """Print the share of studies with a false claim of any kind in at least one of two questions."""
    errors, shares = ([name for name in QUESTIONS if name.startswith(kind)] for kind in ("a*b*", "balanced"))
    print(
        "\n| colour question, class question | seeds | images | a false claim of any kind, % |\n|---|---|---|---|"
    )
    for first in errors:
        for second in shares:
            for n, m in DESIGNS:
                for effects in ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)):
                    cells = (Cell(first, effects[0], n, m), Cell(second, effects[1], n, m))
                    if not set(cells) <= set(found):
                        continue
                    pairs = zip(*(found[cell] for cell in cells), strict=True)
                    wrong = np.mean([is_false(a, effects[0]) or is_false(b, effects[1]) for a, b in pairs])
                    print(
                        f"| {first} at {effects[0]:g}, {second} at {effects[1]:g} | {n} | {m} | {100 * wrong:.1f} |"
                    )


if __name__ == "__main__":
    main()
