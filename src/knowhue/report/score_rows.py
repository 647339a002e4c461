"""Checks the rows of tables of scores: one score per run and metric, and the same images for all runs."""

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from knowhue.errors import TableError, plural, shown
from knowhue.metric_table import NEVER_NEGATIVE, SHARES
from knowhue.report.contrasts import BY_CLASS
from knowhue.report.score_files import FINISHED, NO_SCORE, ONLY_MEANS, read_scores
from knowhue.report.study import Score
from knowhue.settings_text import number_advice, parse_number
from knowhue.statistics import MAGNITUDES
from knowhue.storage import file_digest

DIVERGED = "diverged"
_ROW_BITS = 40
"""Low bits of a place, the row number; the bits above are the index of the file."""
_ROUNDING, _COARSE_ROUNDING, _SINGLE_PRECISION = 2e-3, 0.1, 1e-6
"""Relative differences between a total and the mean over its images: the largest for any total; the largest for a total
that is rounded to few digits; and the one from which the mean replaces the total."""
_LONGEST_NAME = 200
_MOST_SEED = 2**53  # whole numbers that a float holds exactly
_SPLITS = {"": "", "test": "test"} | dict.fromkeys(("validation", "val", "valid", "dev"), "validation")


class ImageColumn(NamedTuple):
    """The scores of single images of one run in one metric."""

    images: "array[int]"
    """index of each image, as in `ScoreRows.image_numbers`"""
    values: "array[float]"
    places: "array[int]"
    """file and row of each score, see `_ROW_BITS`"""


class ScoreRows:
    """The content of tables of scores, checked row by row while they are read."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        # scores with the place of their row: of finished runs by arm, seed, metric and class (empty for all); declared
        # scores of diverged runs; and scores of trivial baselines, which have no seed
        self.totals: dict[tuple[str, int, str, str], tuple[float, int]] = {}
        self.declared: dict[tuple[str, int, str], tuple[float, int]] = {}
        self.seedless: dict[tuple[str, None, str], tuple[float, int]] = {}
        self.images: dict[tuple[str, int, str], ImageColumn] = defaultdict(
            lambda: ImageColumn(array("i"), array("d"), array("q"))
        )
        self.image_numbers: dict[str, int] = {}
        self.labels: dict[int, str] = {}  # class of each image, by its number
        self.states: dict[tuple[str, int], str] = {}  # runs that did not finish
        # by column (`better`, `sesoi`, `unit`, `against`, `secondary`), then by metric; `against` by metric and arm
        self.metadata: dict[str, dict[Any, Any]] = defaultdict(dict)
        self.split: str | None = None  # `test` or `validation` for all rows; empty without a column
        self.tables: list[dict[str, Any]] = []  # of each file `file`, `sha256`, `rows`, for the page
        self.unused: dict[str, str] = {}  # unused columns, each with a suggestion
        self._at = 0  # place of the row that is being read

    @property
    def metrics(self) -> list[str]:
        return list(dict.fromkeys(metric for _, _, metric, label in self.totals if not label))

    def arms(self, metric: str | None = None) -> list[str]:
        """Return the arms with a score in a metric (None: in any), in the order of the rows."""
        names = [(arm, name) for arm, _, name, label in self.totals if not label]
        names += [(arm, name) for arm, _, name in self.declared]
        return list(dict.fromkeys(arm for arm, name in names if metric in (None, name)))

    def seeds(self) -> dict[str, dict[int, None]]:
        seeds: dict[str, dict[int, None]] = defaultdict(dict)
        for arm, seed, *_ in (*self.totals, *self.declared):
            seeds[arm][seed] = None
        return seeds

    def replaced(self) -> list[str]:
        """Return the unfinished attempts of runs that finished in another row."""
        ended = {(arm, seed) for arm, seed, *_ in self.totals}
        return [
            f"{arm} seed {seed} ({state})"
            for (arm, seed), state in self.states.items()
            if (arm, seed) in ended and state not in (DIVERGED, NO_SCORE)
        ]

    def baselines(self) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = defaultdict(dict)
        for (name, _, metric), (value, _) in self.seedless.items():
            found[name][metric] = value
        return dict(found)

    def scores(self) -> Iterator[Score]:
        """Return the rows of the tidy table."""
        for (arm, seed, metric, label), (value, _) in self.totals.items():
            yield Score(arm, seed, metric, value, label)
        for (arm, seed, metric), column in self.images.items():
            for image, value in zip(column.images, column.values, strict=True):
                yield Score(arm, seed, metric, value, self.labels[image], image)

    def declared_scores(self) -> Iterator[Score]:
        return (Score(*key, value) for key, (value, _) in self.declared.items())

    def check(self) -> None:
        """Check that there are scores, and that they are consistent."""
        paths = ", ".join(map(str, self.paths))
        if not self.totals and not self.images:
            raise TableError(f"{paths}: {self._why_nothing()}")
        self._check_baselines()
        self._check_images()
        if not self.metrics:
            raise TableError(
                f"{paths}: every row has a `class`, so that no run has a score of all classes. Give these without a "
                "class, or the `image` that each row is of."
            )

    def _place(self, code: int) -> str:
        return f"{self.paths[code >> _ROW_BITS]}, row {code & (1 << _ROW_BITS) - 1}"

    def _fail(self, problem: str, at: int | None = None) -> TableError:
        return TableError(f"{self._place(self._at if at is None else at)}: {problem}")

    def add(self, place: int, values: Mapping[str, Any]) -> None:
        """Check and store one row."""
        self._at = place
        arm, metric = self._name(values, "arm"), self._name(values, "metric")
        self._add_metadata(values, arm, metric)
        self._check_split(str(values.get("split", "")))
        state, label = (str(values.get(name, "")).strip() for name in ("state", "class"))
        state = state.lower() or FINISHED[0]
        if "seed" not in values and "image" not in values and state in FINISHED:
            if label:
                raise self._fail(
                    "a row without a seed is a trivial baseline, which is scored over all classes. Remove the row, or "
                    "give its seed."
                )
            self._put(self.seedless, (arm, None, metric), self._value(values, metric))
            return
        seed = self._seed(values)
        if state not in (*FINISHED, DIVERGED):
            self.states[arm, seed] = state
            return
        value = self._value(values, metric)
        if state == DIVERGED:
            self._put(self.declared, (arm, seed, metric), value)
            self.states[arm, seed] = DIVERGED
        elif "image" in values:
            self._add_image(str(values["image"]).strip(), label, (arm, seed, metric), value)
        else:
            self._put(self.totals, (arm, seed, metric, label), value)

    def _put(self, known: dict[Any, tuple[float, int]], key: tuple[Any, ...], value: float) -> None:
        if key in known:
            first = self._place(known[key][1])
            raise self._fail(f"a second row of {_named(*key)}. The first is {first}. Keep one of them.")
        known[key] = value, self._at

    def _add_image(self, name: str, label: str, key: tuple[str, int, str], value: float) -> None:
        if key[2] in BY_CLASS:
            raise self._fail(
                f"a single image has no `{key[2]}`. Call its row `{BY_CLASS[key[2]]}`, and give its class."
            )
        number = self.image_numbers.setdefault(name, len(self.image_numbers))
        usual = self.labels.get(number) or label
        if label and usual != label:
            raise self._fail(
                f"the image `{shown(name)}` has the class `{shown(label)}`, and in a row above `{shown(usual)}`. "
                "Give it one class in all rows."
            )
        self.labels[number] = usual
        column = self.images[key]
        column.images.append(number)
        column.values.append(value)
        column.places.append(self._at)

    def _name(self, values: Mapping[str, Any], column: str) -> str:
        name = str(values.get(column, "")).strip()
        if not name or len(name) > _LONGEST_NAME:
            found = f"`{shown(name)}`, {len(name)} characters" if name else "nothing"
            raise self._fail(
                f"`{column}` should be a name of at most {_LONGEST_NAME} characters. Found {found}."
            )
        return name

    def _seed(self, values: Mapping[str, Any]) -> int:
        given = values.get("seed")
        number = parse_number(given)
        if number.is_integer() and 0 <= number < _MOST_SEED:
            return int(number)
        # larger numbers are not exact in a table that stores them as floats
        most = " below 2^53" if number >= _MOST_SEED else ""
        raise self._fail(
            f"`seed` should be a whole number from 0 on{most}, the same for runs that are a pair. Found "
            f"{_quoted(given)}."
        )

    def _value(self, values: Mapping[str, Any], metric: str) -> float:
        given = values.get("value")
        value = parse_number(given)
        if not math.isfinite(value):
            diverged = (
                "If the run diverged, give the score declared for it and the state `diverged`, or remove the row: then "
                "there is no verdict."
            )
            is_mean = "seed" not in values or any(sign in str(given) for sign in ("±", r"\pm", "+-", "+/-"))
            remedy = f"{ONLY_MEANS}." if is_mean else number_advice(given) or diverged
            raise self._fail(
                f"the value of `{shown(metric)}` should be a finite number, with a decimal point. Found "
                f"{_quoted(given)}. {remedy}"
            )
        if value and not MAGNITUDES[0] <= abs(value) <= MAGNITUDES[1]:
            raise self._fail(
                f"the value of `{shown(metric)}` should be 0, or {MAGNITUDES[0]:g} to {MAGNITUDES[1]:g} without its "
                f"sign. Found {_quoted(given)}. Give the metric in another unit, or its logarithm."
            )
        if metric in NEVER_NEGATIVE and value < 0:
            raise self._fail(
                f"`{metric}` is never below 0. Found {value:g}. Leave out the sign, or give the metric another name."
            )
        if (metric in SHARES or self.metadata["unit"].get(metric) == "share") and not 0 <= value <= 1:
            raise self._fail(
                f"`{metric}` is a share from 0 to 1. Found {value:g}. Divide it by 100, or give the metric another "
                "name."
            )
        return value

    def _add_metadata(self, values: Mapping[str, Any], arm: str, metric: str) -> None:
        """Store what a row declares about its metric; all rows must agree."""
        for column in ("better", "sesoi", "unit", "against", "secondary"):
            if column not in values:
                continue
            key = (metric, arm) if column == "against" else metric
            given: Any = str(values[column]).strip()
            if column == "sesoi":
                given = parse_number(values[column])
                if not MAGNITUDES[0] <= given <= MAGNITUDES[1]:
                    raise self._fail(
                        f"`sesoi` should be a number above 0, {MAGNITUDES[0]:g} to {MAGNITUDES[1]:g}, in the unit of "
                        f"the metric. Found {_quoted(values[column])}. {number_advice(values[column])}".rstrip()
                    )
            elif column == "better" and (given := given.lower()) not in ("lower", "higher"):
                raise self._fail(f"`better` should be lower or higher. Found `{shown(given)}`.")
            known = self.metadata[column].setdefault(key, given)
            if known != given:
                raise self._fail(
                    f"`{column}` of `{shown(metric)}` is `{given}`, and in a row above `{known}`. Keep one of them."
                )

    def _check_split(self, given: str) -> None:
        split = _SPLITS.get(given.strip().lower())
        if split is None:
            raise self._fail(f"`split` should be test or validation. Found `{shown(given)}`.")
        if self.split not in (None, split):
            here, above = (f"the split `{name}`" if name else "no split" for name in (split, self.split))
            raise self._fail(
                f"this row has {here}, and rows above have {above}. Keep the rows of one split, and name it in all "
                "rows or in none, because settings are chosen on one split and judged on the other."
            )
        self.split = split

    def _why_nothing(self) -> str:
        if self.states:
            counts = Counter(self.states.values())
            states = ", ".join(f"{count} of `{shown(state)}`" for state, count in counts.items())
            return f"no row of a finished run ({states})."
        if self.seedless:
            return "no row has a seed. Give each run the seed that it was trained with: runs of one seed are a pair."
        return "no row with a score. Give one row per score: arm, seed, metric, value."

    def _check_baselines(self) -> None:
        """Check that no baseline has the name of an arm, as in a row with the arm's mean over seeds."""
        trained = {arm for arm, *_ in (*self.totals, *self.images, *self.states)}
        for (arm, _, metric), (_, code) in self.seedless.items():
            if arm in trained:
                raise self._fail(
                    f"{_named(arm, None, metric)}, but other rows of this arm have one. Remove means over seeds, "
                    "give the seed, or give a trivial baseline its own name.", at=code,
                )  # fmt: skip

    def _check_images(self) -> None:
        """Check that all runs are scored once on each of the same images, and that totals are their means."""
        metrics: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for arm, seed, metric in self.images:
            metrics[metric].append((arm, seed))
        for metric, runs in metrics.items():
            first = np.sort(np.frombuffer(self.images[(*runs[0], metric)].images, np.int32))
            for arm, seed in runs:
                self._check_column(arm, seed, metric, runs[0], first)
        for (arm, seed, metric, label), (_, code) in self.totals.items():
            runs = metrics.get(metric)
            if runs and not label and (arm, seed) not in runs:
                raise self._fail(
                    f"{_named(arm, seed, metric)} has no rows of single images, but {_named(*runs[0])} has. Give them "
                    "for all runs, or for none.", at=code,
                )  # fmt: skip

    def _check_column(
        self, arm: str, seed: int, metric: str, first_run: tuple[str, int], first: np.ndarray
    ) -> None:
        column = self.images[arm, seed, metric]
        images = np.frombuffer(column.images, np.int32)
        order = np.argsort(images, kind="stable")
        ascending = images[order]
        twice = np.flatnonzero(ascending[1:] == ascending[:-1])
        if len(twice):
            before, code = (column.places[int(order[twice[0] + step])] for step in (0, 1))
            image = self._image(int(ascending[twice[0]]))
            raise self._fail(
                f"a second row of {_named(arm, seed, metric)} for the image `{image}`. The first is "
                f"{self._place(before)}. Keep one of them.", at=code,
            )  # fmt: skip
        if len(ascending) != len(first) or (ascending != first).any():
            other = np.setxor1d(ascending, first)
            has, lacks = ((arm, seed), first_run) if other[0] in ascending else (first_run, (arm, seed))
            image, count = self._image(int(other[0])), plural(len(other), "such image")
            raise self._fail(
                f"{_named(*has, metric)} has the image `{image}`, but {_named(*lacks)} lacks it ({count}). Score all "
                "runs on the same images, or remove the images that some lack.", at=column.places[0],
            )  # fmt: skip
        mean = float(np.frombuffer(column.values).mean())
        self._check_total((arm, seed, metric, ""), mean, column.places[0])
        for by_class, source in BY_CLASS.items():
            if source == metric:
                self._check_by_class((arm, seed, by_class, ""), column)

    def _check_total(self, key: tuple[str, int, str, str], mean: float, place: int) -> None:
        """Compare a run's total with the mean over its images, up to rounding; a missing total becomes the mean."""
        total, place = self.totals.setdefault(key, (mean, place))
        off = abs(total - mean) / (abs(mean) or 1.0)
        half_digit = 0.5 * 10.0 ** min(int(Decimal(f"{total:.15g}").as_tuple().exponent), 0)
        is_rounded = abs(total - mean) <= half_digit * (1 + _SINGLE_PRECISION) and off <= _COARSE_ROUNDING
        if off > _ROUNDING and not is_rounded:
            raise self._fail(
                f"{_named(*key)} is {total:.6g}, but the mean over its images is {mean:.6g}. Remove the row, or give "
                "it the mean.", at=place,
            )  # fmt: skip
        if off > _SINGLE_PRECISION:  # so that estimate and interval come from the same numbers
            self.totals[key] = mean, place

    def _check_by_class(self, key: tuple[str, int, str, str], column: ImageColumn) -> None:
        """Like `_check_total`, for a metric whose classes have equal weight: the mean over classes of their means."""
        labels = [self.labels[image] for image in column.images]
        if "" in labels:
            if key in self.totals:
                image = self._image(column.images[labels.index("")])
                raise self._fail(
                    f"{_named(*key)} gives all classes equal weight, but the image `{image}` has no class. Give the "
                    f"rows of images their `class`, or remove the rows of `{key[2]}`.", at=self.totals[key][1],
                )  # fmt: skip
            return
        groups = np.unique(labels, return_inverse=True)[1]
        means = np.bincount(groups, np.frombuffer(column.values)) / np.bincount(groups)
        self._check_total(key, float(means.mean()), column.places[0])

    def _image(self, number: int) -> str:
        return shown(list(self.image_numbers)[number])


def read_score_rows(
    paths: Sequence[Path],
    wanted: Collection[str],
    arm_column: str | None = None,
    seed_column: str | None = None,
) -> ScoreRows:
    """Read tables together; a `TableError` for an invalid or duplicate row, or missing scores of single images."""
    found = ScoreRows(paths)
    for place, path in enumerate(paths):
        rows, unused = read_scores(path, wanted, arm_column, seed_column)
        count = 0
        for number, values in rows:
            found.add(place << _ROW_BITS | number, values)
            count += 1
        found.tables.append({"file": path.name, "sha256": file_digest(path), "rows": count})
        found.unused |= unused
    found.check()
    return found


def _quoted(cell: Any) -> str:
    return "nothing" if cell is None else f"`{shown(str(cell))}`"


def _named(arm: str, seed: int | None, metric: str = "", label: str = "") -> str:
    of_class = f", class `{shown(label)}`" if label else ""
    of_seed = "without a seed" if seed is None else f"seed {seed}"
    return f"arm `{shown(arm)}`, {of_seed}" + (f", metric `{shown(metric)}`" if metric else "") + of_class
