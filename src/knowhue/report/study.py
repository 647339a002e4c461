"""A study as plain values: the plan, every run, what its arms learn and are called, and the tidy table of scores."""

import math
import re
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from knowhue.errors import spaced
from knowhue.metric_table import IMAGE_COLUMNS, LOWER_IS_BETTER, METRICS
from knowhue.plan import QUESTIONS, Question
from knowhue.presets import checked
from knowhue.report.text import about_metric, titled
from knowhue.statistics import ALPHA
from knowhue.statistics.verdicts import question_alpha

NO_SKILL = ("ece",)
"""Metrics at which a constant guess is perfect, so that not to beat one says nothing against a model."""
UNPAIRED = "unpaired"
"""State of an ended run whose block is not compared."""
FEWEST_ALIKE = 10
"""Images from which on equal scores are no chance; those with the commonest score, as of being right, are no sign."""
TASK_TITLES = {"colour": "Colouring", "class": "Classification"}
_ARM_NAMES = {
    "multi": "multi-task",
    "placebo-labels": "placebo: shuffled labels",
    "placebo-colours": "placebo: another image's colours",
    "multi-pcgrad": "multi-task, PCGrad",
    "oracle": "oracle: true class given",
}
_ARM_PATTERNS = {
    r"multi-class(.+)": r"multi-task, class weight \1",
    r"multi-labels(.+)": r"multi-task, \1 % of the labels",
}

Row = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray]
Runs = Mapping[str, Mapping[int, "Run"]]
Table = list[list[Any]]
"""Rows of cells, the header first; `None` is an empty cell."""


class Score(NamedTuple):
    """A row of the tidy table: one number of one run, of all images, of those of a class, or of a single one."""

    arm: str
    seed: int
    metric: str
    value: float
    label: str = ""
    """The class; empty for all."""
    image: int | None = None


class ScoreTable:
    """The tidy table, by arm and metric: all that contrasts and verdicts are made of, whoever made the scores.

    Args:
        rows: a value that is no number is left out of the totals; of single images it takes their metric's interval.
        about: by metric, which direction is `better` (`lower`, `higher`) and its `unit`.
        declared: what diverged runs are given, in the metrics that questions ask about.
    """

    def __init__(
        self, rows: Iterable[Score], about: Mapping[str, Row], declared: Iterable[Score] = ()
    ) -> None:
        self.about = about
        self.labels: dict[int, str] = {}
        self._totals: dict[tuple[str, str, str], dict[int, float]] = defaultdict(dict)
        # 16 bytes a score instead of 100 in a dictionary: tables of hundreds of MB come by
        self._images: dict[tuple[str, int, str], tuple[array[int], array[float]]] = defaultdict(
            lambda: (array("q"), array("d"))
        )
        self._declared: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
        for arm, seed, metric, value, label, image in rows:
            if image is not None:
                images, values = self._images[arm, seed, metric]
                images.append(image)
                values.append(value)
                self.labels.setdefault(image, label)
            elif math.isfinite(value):
                self._totals[arm, metric, label][seed] = value
        for row in declared:
            self._declared[row.arm, row.metric].setdefault(row.seed, row.value)

    def finished(self, arm: str, metric: str, label: str = "") -> dict[int, float]:
        """Return by seed what the finished runs of an arm scored, on all images or on those of a class."""
        return self._totals.get((arm, metric, label), {})

    def declared(self, arm: str, metric: str) -> dict[int, float]:
        """Return by seed what the diverged runs of an arm are given."""
        return self._declared.get((arm, metric), {})

    def scores(self, arm: str, metric: str, label: str = "") -> dict[int, float]:
        """Return both, by ascending seed; a diverged run has no score of a class."""
        own = self.finished(arm, metric, label)
        return dict(sorted((own if label else own | self.declared(arm, metric)).items()))

    def of_images(self, arm: str, seed: int, metric: str) -> dict[int, float]:
        """Return the scores of single images by their index; empty where the metric has none."""
        return dict(zip(*self._images.get((arm, seed, metric), ((), ())), strict=True))

    def classes(self, metric: str) -> Iterator[tuple[str, str, int]]:
        """Class, arm and seed of each score of a class alone that was given."""
        for (arm, name, label), own in self._totals.items():
            if label and name == metric:
                yield from ((label, arm, seed) for seed in own)

    def alike(self, one: str, other: str, seed: int, metrics: Iterable[str]) -> bool:
        """Whether two runs have the same score of each image in every metric, and of `FEWEST_ALIKE` that is a sign."""
        found = []
        for metric in metrics:
            pair = [self._images.get((arm, seed, metric), ((), ())) for arm in (one, other)]
            if all(images for images, _ in pair):
                found.append([np.array(own)[np.argsort(np.array(images, np.int64))] for images, own in pair])
        if not all(np.array_equal(*pair) for pair in found):
            return False
        counts = (np.unique(values, return_counts=True)[1] for values, _ in found)
        return any(each.sum() - each.max() >= FEWEST_ALIKE for each in counts)

    def lower_is_better(self, metric: str) -> bool:
        usual = "lower" if metric in LOWER_IS_BETTER else "higher"
        return self.about.get(metric, {}).get("better", usual) == "lower"


# eq=False here and below: arrays compare element by element, and have no hash
@dataclass(frozen=True, eq=False)
class Run:
    """One arm trained with one seed, as far as it got."""

    arm: str
    seed: int
    state: str = "missing"
    """`finished`, `running` (or interrupted), `diverged`, `missing` (never started), or `unpaired`: it ended, but its
    block may not be compared, see `faults`"""
    same_settings: bool = True
    seconds: Mapping[str, float] = field(default_factory=dict)
    log: tuple[Row, ...] = ()
    scores: Row = field(default_factory=dict)
    images: tuple[Row, ...] = ()
    samples: Arrays = field(default_factory=dict)
    extremes: Arrays = field(default_factory=dict)
    environment: Row = field(default_factory=dict)
    gradient_shares: Row = field(default_factory=dict)
    """`fork` and `end`: what trained the encoder, see `training.diagnostics.measure_shares`"""
    damaged: tuple[str, ...] = ()
    """files of this run that figures are drawn from, and that cannot be read"""

    @property
    def finished(self) -> bool:
        return self.state == "finished" and self.same_settings

    @property
    def metrics(self) -> dict[str, float | None]:
        """Scores of the whole split that is reported on; of several classifiers shown to, the first recognises."""
        found, recognition = dict(self.scores.get("metrics", {})), flat_scores(self.scores).get("recognition")
        return found if recognition is None else found | {"recognition": recognition}

    @property
    def all_scores(self) -> dict[str, float | None]:
        """The metrics, the distances, and how far the samples of a method that draws lie apart."""
        spread = self.samples.get("diversity")
        return flat_scores(self.scores) | ({} if spread is None else {"diversity": float(spread.mean())})

    def metric(self, name: str) -> float | None:
        return self.metrics.get(name)

    def image_scores(self) -> Iterator[Score]:
        """Return the rows of the tidy table of single images; those without a label count in no metric of classes."""
        for row in self.images:
            label = row.get("label", "")
            for metric, column in IMAGE_COLUMNS.items():
                if column in row and (label or METRICS[metric].task != "class"):
                    value = row[column]
                    yield Score(
                        self.arm, self.seed, metric, math.nan if value is None else value, label, row["index"]
                    )


@dataclass(frozen=True, eq=False)
class Study:
    """All that the report knows: the plan, the images, the baselines, every run."""

    settings: Row
    """`study.json`"""
    runs: Mapping[str, Mapping[int, Run]]
    """by arm and seed"""
    prepared: Row = field(default_factory=dict)
    baselines: Mapping[str, Row] = field(default_factory=dict)
    metrics: Mapping[str, Row] = field(default_factory=dict)
    samples: Arrays = field(default_factory=dict)
    gates: Mapping[int, Row] = field(default_factory=dict)
    """the A/A gate of each block, by seed"""
    head_seconds: float = 0.0
    """of all heads of the plan's seeds, each once, however many arms start from it"""
    faults: Mapping[int, str] = field(default_factory=dict)
    """seeds whose arms may not be compared, and why"""
    exploratory: tuple[Row, ...] = ()
    """runs in the folder that the plan does not ask for"""
    costs: Mapping[str, Row] = field(default_factory=dict)
    """of a comparison, by method what predicting costs, `costs.json`"""
    damaged: tuple[str, ...] = ()
    """files beside the runs that figures are drawn from, and that cannot be read"""
    scores: ScoreTable | None = None
    """the tidy table, where it is somebody's own and not made of the runs"""

    @cached_property
    def questions(self) -> dict[str, Question]:
        """The questions as frozen; those of `QUESTIONS` where a study does not say."""
        frozen: Mapping[str, Row] | None = self.settings.get("questions")
        if frozen is None:
            return dict(QUESTIONS.items())
        return {name: checked(Question, each) for name, each in frozen.items()}

    @cached_property
    def table(self) -> ScoreTable:
        """The tidy table of all finished runs, and of what diverged ones are given."""
        if self.scores is not None:
            return self.scores
        images = (run.image_scores() for arm in self.runs for run in self.finished(arm))
        return ScoreTable(chain(tidy_scores(self), *images), self.metrics, self.declared_scores())

    def declared_scores(self) -> Iterator[Score]:
        """Return what is declared for diverged runs: in a question's metric, the score of a trivial baseline."""
        lost = [run for runs in self.runs.values() for run in runs.values() if run.state == "diverged"]
        for question in [QUESTIONS["colour"]] if self.is_comparison else self.questions.values():
            value = flat_scores(self.baselines.get(question.if_diverged, {})).get(question.metric)
            if value is not None:
                yield from (Score(run.arm, run.seed, question.metric, value) for run in lost)

    @property
    def alpha(self) -> float:
        return question_alpha(self.settings.get("alpha", ALPHA), len(self.questions))

    @property
    def seeds(self) -> list[int]:
        """Those that are planned."""
        return list(self.settings.get("seeds", ()))

    @property
    def arms(self) -> Mapping[str, Row]:
        """The plan's arms: the changes that make each from the configuration."""
        return self.settings.get("arms", {})

    @property
    def split(self) -> str:
        """The split that final scores, tables and samples are from."""
        known = (run.scores.get("split") for runs in self.runs.values() for run in runs.values())
        return str(next(filter(None, known), "validation"))

    @property
    def is_tuning(self) -> bool:
        """Whether settings are chosen by the study: it says nothing of the method then."""
        return self.settings.get("purpose") == "tuning"

    @property
    def is_table(self) -> bool:
        """Whether all that is known are the scores in a table, see `report.table_study`."""
        return self.scores is not None

    @property
    def is_comparison(self) -> bool:
        """Whether the arms are methods, all compared with one of them, see `report.methods`."""
        return self.settings.get("reference") is not None

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in label order."""
        return list(self.prepared.get("classes", ()))

    def of(self, arm: str) -> list[Run]:
        """Return the runs of an arm by seed, whatever their state; empty where the arm was not asked for."""
        return [run for _, run in sorted(self.runs.get(arm, {}).items())]

    def finished(self, arm: str) -> list[Run]:
        return [run for run in self.of(arm) if run.finished]

    @property
    def shown_seed(self) -> int | None:
        """The lowest seed that every arm with a finished run has finished, so that images compare."""
        sets = [{run.seed for run in self.finished(arm)} for arm in self.runs if self.finished(arm)]
        return min(set.intersection(*sets), default=None) if sets else None

    def shown(self, arm: str) -> Run | None:
        """Return the run of an arm whose images are shown; None where it has not finished."""
        return next((run for run in self.finished(arm) if run.seed == self.shown_seed), None)

    def config(self, *keys: str) -> Any:
        """Return a setting of the configuration, or None where it does not say."""
        value: Any = self.settings.get("config", {})
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def about(self, metric: str) -> Row:
        return about_metric(self.metrics, metric)

    def unit(self, metric: str) -> str:
        return self.about(metric).get("unit", "")

    def label(self, metric: str) -> str:
        return titled(self.about(metric).get("title", spaced(metric)), self.unit(metric))

    def metric_names(self, arm: str) -> list[str]:
        """Return the metrics that finished runs of an arm have, in the order of `metrics.json`, unknown ones last."""
        found = {name for run in self.finished(arm) for name in run.metrics}
        return [name for name in self.metrics if name in found] + sorted(found - set(self.metrics))


def flat_scores(found: Row) -> dict[str, float | None]:
    """Metrics, distances and recognition of `scores.json`, or of a row of `baselines.json`, in one table."""
    rows = found.get("metrics", found)
    flat: dict[str, float | None] = {
        name: value for name, value in rows.items() if value is None or isinstance(value, int | float)
    }
    flat |= {name: entry.get("value") for name, entry in found.get("distribution", {}).items()}
    # a table has the number itself, among the others
    recognition = found.get("recognition", {})
    shown_to = list(recognition.values()) if isinstance(recognition, Mapping) else ()
    return flat | ({"recognition": shown_to[0]["accuracy"]} if shown_to else {})


def floors(baselines: Mapping[str, Row], metric: str) -> dict[str, float]:
    """Return what each trivial baseline scores in a metric: all that costs nothing, but not other real images.

    A metric of `NO_SKILL` has none: a constant guess is as well calibrated as can be, and knows nothing.
    """
    if metric in NO_SKILL:
        return {}
    known = {name: flat_scores(values).get(metric) for name, values in baselines.items() if name != "real"}
    return {name: value for name, value in known.items() if value is not None}


def tidy_scores(study: Study) -> Iterator[Score]:
    """Return the rows of the tidy table of all images and of each class: every number of every finished run."""
    for arm in study.runs:
        for run in study.finished(arm):
            by_label = {"": run.all_scores, **run.scores.get("per_class", {})}
            yield from (
                Score(arm, run.seed, metric, value, label)
                for label, own in by_label.items()
                for metric, value in own.items()
                if value is not None and math.isfinite(value)
            )


class Sides(NamedTuple):
    """The two arms of a question; empty where a study has none that fits."""

    single: str
    multi: str


def sides(study: Study, question: str) -> Sides:
    """Return the arms that a question compares; where it is not asked, the first that do the task alone, and both."""
    asked = study.questions.get(question)
    if asked is not None:
        return Sides(asked.single, asked.multi)
    alone = (arm for arm in study.runs if tasks(study, arm) == {question})
    both = (arm for arm in study.runs if tasks(study, arm) == {"colour", "class"})
    return Sides(next(alone, ""), next(both, ""))


def arm_label(study: Study, arm: str) -> str:
    """Return an arm by its part in the questions, or else in words; in somebody's table arms keep their names."""
    if study.is_table:
        return arm
    for question, asked in study.questions.items():
        if arm == asked.single:
            return f"Single-task {TASK_TITLES[question].lower()}"
        if arm == asked.multi:
            return "Multi-task"
    return arm_name(arm)


def arm_name(arm: str) -> str:
    """Return an arm in words.

    The names are the keys of `presets.ARMS`, and those that `plan.make_plan` gives to its grid of task weights;
    an arm that a user has named keeps its name.

    >>> arm_name("multi-class0.5"), arm_name("mine")
    ('multi-task, class weight 0.5', 'mine')
    """
    found = (
        re.sub(pattern, text, arm) for pattern, text in _ARM_PATTERNS.items() if re.fullmatch(pattern, arm)
    )
    return _ARM_NAMES.get(arm) or next(found, arm)


def tasks(study: Study, arm: str) -> set[str]:
    """Return what an arm is trained on, by its edits, or the study's configuration where they do not say."""
    return set(_setting(study, arm, "tasks", "names") or ("colour", "class"))


def labelled_share(study: Study, arm: str) -> float:
    return float(_setting(study, arm, "supervision", "labelled_share") or 1.0)


def placebo(study: Study, arm: str) -> str | None:
    """Return which targets of an arm are a placebo, `labels` or `colours`; None for true ones."""
    found = _setting(study, arm, "supervision", "placebo")
    return None if found in (None, "none") else str(found)


def is_oracle(study: Study, arm: str) -> bool:
    return bool(_setting(study, arm, "colour", "oracle")) and "colour" in tasks(study, arm)


def _setting(study: Study, arm: str, section: str, key: str) -> Any:
    """Return a setting as an arm changes it, or the study's own where it does not."""
    edits = study.arms.get(arm) or {}
    return (edits.get(section) or {}).get(key, study.config(section, key))
