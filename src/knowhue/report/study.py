"""A study as plain values: its plan, runs and arms, and the tidy table of scores."""

import math
import re
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
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
"""Metrics in which a constant guess is perfect, so a model without skill can win; they have no floor."""
UNPAIRED = "unpaired"
"""State of an ended run whose block must not be compared."""
MIN_EQUAL_SCORES = 10
"""Images from which equal scores cannot be chance, without those that have the most frequent score (such as 1)."""
TASK_TITLES = {"colour": "Colouring", "class": "Classification"}
_ARM_NAMES = {
    r"multi": "multi-task",
    r"placebo-labels": "placebo: shuffled labels",
    r"placebo-colours": "placebo: another image's colours",
    r"multi-pcgrad": "multi-task, PCGrad",
    r"oracle": "oracle: true class given",
    r"multi-class(.+)": r"multi-task, class weight \1",
    r"multi-labels(.+)": r"multi-task, \1 % of the labels",
}
"""By pattern of an arm's name."""

Row = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray]
Runs = Mapping[str, Mapping[int, "Run"]]
Table = list[list[Any]]
"""Rows of cells, the header first; `None` is an empty cell."""


class Score(NamedTuple):
    """A row of the tidy table: one score of one run, over all images, over a class, or of a single image."""

    arm: str
    seed: int
    metric: str
    value: float
    label: str = ""
    """the class; empty for all classes"""
    image: int | None = None
    """index of the single image; None for a score over many images"""


class ScoreTable:
    """The tidy table by arm and metric: the input of contrasts and verdicts, from knowhue's runs or any other table.

    Args:
        rows: scores that are not finite are left out; of a single image they leave the metric without an interval.
        about: by metric, which direction is `better` (`lower`, `higher`) and its `unit`.
        declared: the scores of diverged runs in the metrics that questions ask about.
        runs: whose scores of single images are added to `rows`.
    """

    def __init__(
        self,
        rows: Iterable[Score],
        about: Mapping[str, Row],
        declared: Iterable[Score] = (),
        runs: Iterable["Run"] = (),
    ) -> None:
        self.about = about
        self.labels: dict[int, str] = {}
        self._totals: dict[tuple[str, str, str], dict[int, float]] = defaultdict(dict)
        # arrays take 16 bytes per score, a dictionary takes 100; some tables have hundreds of MB
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
        for run in runs:
            self._add_images(run)

    def _add_images(self, run: "Run") -> None:
        """Add the scores of `Run.image_scores`, by metric, which is several times as fast as one by one."""
        for metric, column in IMAGE_COLUMNS.items():
            if rows := run.scored_images(metric):
                images, values = self._images[run.arm, run.seed, metric]
                images.extend([row["index"] for row in rows])
                values.extend([math.nan if (value := row[column]) is None else value for row in rows])
                for row in rows:
                    self.labels.setdefault(row["index"], row.get("label", ""))

    def finished(self, arm: str, metric: str, label: str = "") -> dict[int, float]:
        """Return by seed the scores of an arm's finished runs, over all images or those of a class."""
        return self._totals.get((arm, metric, label), {})

    def declared(self, arm: str, metric: str) -> dict[int, float]:
        """Return by seed the scores that were declared for an arm's diverged runs."""
        return self._declared.get((arm, metric), {})

    def scores(self, arm: str, metric: str, label: str = "") -> dict[int, float]:
        """Return the scores of finished and diverged runs by ascending seed; diverged runs have no score of a class."""
        declared = {} if label else self.declared(arm, metric)
        return dict(sorted((self.finished(arm, metric, label) | declared).items()))

    def of_images(self, arm: str, seed: int, metric: str) -> dict[int, float]:
        """Return the scores of single images by image index; empty where there are none."""
        return dict(zip(*self._images.get((arm, seed, metric), ((), ())), strict=True))

    def classes(self, metric: str) -> Iterator[tuple[str, str, int]]:
        """Return class, arm and seed of each score of a single class."""
        for (arm, name, label), scores in self._totals.items():
            if label and name == metric:
                yield from ((label, arm, seed) for seed in scores)

    def same_image_scores(self, one: str, other: str, seed: int, metrics: Iterable[str]) -> bool:
        """Whether two runs have the same scores of all images, too many (`MIN_EQUAL_SCORES`) to be equal by chance."""
        pairs = []
        for metric in metrics:
            scores = [dict(sorted(self.of_images(arm, seed, metric).items())) for arm in (one, other)]
            if all(scores):
                pairs.append([np.array(list(each.values())) for each in scores])
        if not all(np.array_equal(*pair) for pair in pairs):
            return False
        counts = (np.unique(values, return_counts=True)[1] for values, _ in pairs)
        return any(each.sum() - each.max() >= MIN_EQUAL_SCORES for each in counts)

    def lower_is_better(self, metric: str) -> bool:
        usual = "lower" if metric in LOWER_IS_BETTER else "higher"
        return self.about.get(metric, {}).get("better", usual) == "lower"


# eq=False here and below: arrays are compared element by element and have no hash
@dataclass(frozen=True, eq=False)
class Run:
    """One arm trained with one seed, as far as it got."""

    arm: str
    seed: int
    state: str = "missing"
    """`finished`, `running` (or interrupted), `diverged`, `missing` (never started), or `unpaired` (it ended, but its
    block must not be compared, see `Study.faults`)"""
    same_settings: bool = True
    seconds: Mapping[str, float] = field(default_factory=dict)
    log: tuple[Row, ...] = ()
    scores: Row = field(default_factory=dict)
    images: tuple[Row, ...] = ()
    samples: Arrays = field(default_factory=dict)
    extremes: Arrays = field(default_factory=dict)
    environment: Row = field(default_factory=dict)
    gradient_shares: Row = field(default_factory=dict)
    """at `fork` and `end` of fine-tuning, see `training.diagnostics.measure_shares`"""
    damaged: tuple[str, ...] = ()
    """unreadable files of this run that only figures need"""

    @property
    def finished(self) -> bool:
        return self.state == "finished" and self.same_settings

    @property
    def metrics(self) -> dict[str, float | None]:
        """Scores over the whole reporting split; `recognition` is that of the first classifier."""
        recognition = flat_scores(self.scores).get("recognition")
        return self.scores.get("metrics", {}) | ({} if recognition is None else {"recognition": recognition})

    @property
    def all_scores(self) -> dict[str, float | None]:
        """Metrics, distances between sets, and `diversity` between the samples of a generative method."""
        spread = self.samples.get("diversity")
        return flat_scores(self.scores) | ({} if spread is None else {"diversity": float(spread.mean())})

    def metric(self, name: str) -> float | None:
        return self.metrics.get(name)

    def image_scores(self) -> Iterator[Score]:
        """Return the tidy rows of single images; images without a label have none in classification metrics."""
        for row in self.images:
            for metric, column in IMAGE_COLUMNS.items():
                if _is_scored(row, metric):
                    value = math.nan if row[column] is None else row[column]
                    yield Score(self.arm, self.seed, metric, value, row.get("label", ""), row["index"])

    def scored_images(self, metric: str) -> list[Row]:
        """Return the rows of the images that have a score of a metric."""
        return [row for row in self.images if _is_scored(row, metric)]


def _is_scored(image: Row, metric: str) -> bool:
    return IMAGE_COLUMNS[metric] in image and (METRICS[metric].task != "class" or bool(image.get("label")))


@dataclass(frozen=True, eq=False)
class Study:
    """All data of the report: the plan, the images, the baselines and every run."""

    settings: Row
    runs: Mapping[str, Mapping[int, Run]]
    prepared: Row = field(default_factory=dict)
    baselines: Mapping[str, Row] = field(default_factory=dict)
    metrics: Mapping[str, Row] = field(default_factory=dict)
    samples: Arrays = field(default_factory=dict)
    gates: Mapping[int, Row] = field(default_factory=dict)
    """the A/A gate of each block, by seed"""
    head_seconds: float = 0.0
    """training time of all heads; a head counts once, although several arms start from it"""
    faults: Mapping[int, str] = field(default_factory=dict)
    """by seed, why its arms must not be compared"""
    exploratory: tuple[Row, ...] = ()
    """runs in the folder that are not in the plan"""
    costs: Mapping[str, Row] = field(default_factory=dict)
    """of a comparison of methods, by method the cost of prediction, from `costs.json`"""
    damaged: tuple[str, ...] = ()
    """unreadable files of the study that only figures need"""
    scores: ScoreTable | None = None
    """the tidy table of `knowhue verdict`; None where it is made from the runs"""

    @cached_property
    def questions(self) -> dict[str, Question]:
        """The frozen questions; those of `QUESTIONS` where `study.json` has none."""
        frozen = self.settings.get("questions", QUESTIONS)
        return {name: checked(Question, each) for name, each in frozen.items()}

    @cached_property
    def table(self) -> ScoreTable:
        """The tidy table of all finished runs, with the declared scores of diverged ones."""
        if self.scores is not None:
            return self.scores
        return ScoreTable(tidy_scores(self), self.metrics, self.declared_scores(), self.finished_runs)

    def declared_scores(self) -> Iterator[Score]:
        """Return the declared scores of diverged runs: in a question's metric, the score of a trivial baseline."""
        diverged = [run for run in self.all_runs if run.state == "diverged"]
        for question in [QUESTIONS["colour"]] if self.is_comparison else self.questions.values():
            value = flat_scores(self.baselines.get(question.if_diverged, {})).get(question.metric)
            if value is not None:
                yield from (Score(run.arm, run.seed, question.metric, value) for run in diverged)

    @property
    def alpha(self) -> float:
        return question_alpha(self.settings.get("alpha", ALPHA), len(self.questions))

    @property
    def seeds(self) -> list[int]:
        return list(self.settings.get("seeds", ()))

    @property
    def arms(self) -> Mapping[str, Row]:
        """The plan's arms, each with its changes to the configuration."""
        return self.settings.get("arms", {})

    @property
    def split(self) -> str:
        """The split of all final scores, tables and samples."""
        known = (run.scores.get("split") for run in self.all_runs)
        return str(next(filter(None, known), "validation"))

    @property
    def is_tuning(self) -> bool:
        """Whether the study serves to choose settings; it gives no verdict then."""
        return self.settings.get("purpose") == "tuning"

    @property
    def is_table(self) -> bool:
        """Whether the study was read from a table of scores, see `report.table_study`."""
        return self.scores is not None

    @property
    def is_comparison(self) -> bool:
        """Whether the arms are methods that are all compared with a reference, see `report.methods`."""
        return self.settings.get("reference") is not None

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in label order."""
        return list(self.prepared.get("classes", ()))

    def of(self, arm: str) -> list[Run]:
        """Return all runs of an arm by ascending seed, in any state; empty for an arm that is not in the plan."""
        return [run for _, run in sorted(self.runs.get(arm, {}).items())]

    def finished(self, arm: str) -> list[Run]:
        return [run for run in self.of(arm) if run.finished]

    @property
    def all_runs(self) -> list[Run]:
        return [run for arm in self.runs for run in self.of(arm)]

    @property
    def finished_runs(self) -> list[Run]:
        return [run for run in self.all_runs if run.finished]

    @property
    def shown_seed(self) -> int | None:
        """The lowest seed that all arms with finished runs share; the images of all arms are shown from it."""
        seeds = [{run.seed for run in found} for arm in self.runs if (found := self.finished(arm))]
        return min(set.intersection(*seeds), default=None) if seeds else None

    def shown(self, arm: str) -> Run | None:
        """Return the run of an arm whose images are shown; None where that run has not finished."""
        return next((run for run in self.finished(arm) if run.seed == self.shown_seed), None)

    def config(self, *keys: str) -> Any:
        """Return a setting of the configuration; None where it is not set."""
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
        """Return the metrics of an arm's finished runs in the order of `metrics.json`; unknown ones come last."""
        found = {name for run in self.finished(arm) for name in run.metrics}
        return [name for name in self.metrics if name in found] + sorted(found - set(self.metrics))


def flat_scores(found: Row) -> dict[str, float | None]:
    """Return metrics, distances and recognition in one mapping, from `scores.json` or an entry of `baselines.json`."""
    rows = found.get("metrics", found)
    flat: dict[str, float | None] = {
        name: value for name, value in rows.items() if value is None or isinstance(value, int | float)
    }
    flat |= {name: entry.get("value") for name, entry in found.get("distribution", {}).items()}
    # in a table of `knowhue verdict`, `recognition` is a number among the metrics
    recognition = found.get("recognition", {})
    shown_to = list(recognition.values()) if isinstance(recognition, Mapping) else ()
    return flat | ({"recognition": shown_to[0]["accuracy"]} if shown_to else {})


def floors(baselines: Mapping[str, Row], metric: str) -> dict[str, float]:
    """Return the score of each trivial baseline in a metric, without `real`, which is other real images.

    A metric of `NO_SKILL` has no floor: a constant guess can be perfectly calibrated.
    """
    if metric in NO_SKILL:
        return {}
    known = {name: flat_scores(values).get(metric) for name, values in baselines.items() if name != "real"}
    return {name: value for name, value in known.items() if value is not None}


def tidy_scores(study: Study) -> Iterator[Score]:
    """Return every finite score of every finished run, over all images and over each class."""
    for arm in study.runs:
        for run in study.finished(arm):
            by_label = {"": run.all_scores, **run.scores.get("per_class", {})}
            yield from (
                Score(arm, run.seed, metric, value, label)
                for label, scores in by_label.items()
                for metric, value in scores.items()
                if value is not None and math.isfinite(value)
            )


def sides(study: Study, question: str) -> tuple[str, str]:
    """Return the arms that a question compares, single-task first; an empty name where the study has no such arm.

    Where the plan does not ask it: the first arm with this task alone, and the first with both tasks.
    """
    spec = study.questions.get(question)
    if spec is not None:
        return spec.single, spec.multi
    alone = (arm for arm in study.runs if tasks(study, arm) == {question})
    both = (arm for arm in study.runs if tasks(study, arm) == {"colour", "class"})
    return next(alone, ""), next(both, "")


def arm_label(study: Study, arm: str) -> str:
    """Return the title of an arm: its role in the questions, or else its name in words; a table's arms keep theirs."""
    if study.is_table:
        return arm
    for question, spec in study.questions.items():
        if arm == spec.single:
            return f"Single-task {TASK_TITLES[question].lower()}"
        if arm == spec.multi:
            return "Multi-task"
    return arm_name(arm)


def arm_name(arm: str) -> str:
    """Return the arms of `presets.ARMS` and of a grid of task weights in words, and others by their names.

    >>> arm_name("multi-class0.5"), arm_name("mine")
    ('multi-task, class weight 0.5', 'mine')
    """
    known = (re.sub(form, text, arm) for form, text in _ARM_NAMES.items() if re.fullmatch(form, arm))
    return next(known, arm)


def tasks(study: Study, arm: str) -> set[str]:
    return set(_setting(study, arm, "tasks", "names") or ("colour", "class"))


def labelled_share(study: Study, arm: str) -> float:
    return float(_setting(study, arm, "supervision", "labelled_share") or 1.0)


def placebo(study: Study, arm: str) -> str | None:
    """Return which targets of an arm are a placebo, `labels` or `colours`; None where all are true."""
    found = _setting(study, arm, "supervision", "placebo")
    return None if found in (None, "none") else str(found)


def is_oracle(study: Study, arm: str) -> bool:
    return bool(_setting(study, arm, "colour", "oracle")) and "colour" in tasks(study, arm)


def _setting(study: Study, arm: str, section: str, key: str) -> Any:
    """Return an arm's value of a setting: its own change, or else the study's value."""
    edits = study.arms.get(arm) or {}
    return (edits.get(section) or {}).get(key, study.config(section, key))
