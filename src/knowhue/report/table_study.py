"""Makes a study of a table of scores: the arms to compare, the metrics, the smallest effects of interest, alpha."""

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from itertools import combinations, product
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator
from pydantic.dataclasses import dataclass

from knowhue.config import digest
from knowhue.errors import (
    ConfigError,
    KnowhueError,
    TableError,
    did_you_mean,
    few,
    plural,
    quoted,
    shown,
    spaced,
)
from knowhue.metric_table import METRIC_NAMES, METRICS, NEVER_NEGATIVE, SET_DISTANCES
from knowhue.plan import QUESTIONS, Question
from knowhue.report.findings import Findings
from knowhue.report.score_files import metric_name
from knowhue.report.score_rows import DIVERGED, ScoreRows, read_score_rows
from knowhue.report.study import Row, Run, ScoreTable, Study
from knowhue.report.tables import TABLES
from knowhue.report.text import TableCell, seeds_text
from knowhue.settings_text import plain_name
from knowhue.statistics import ALPHA

MOST_QUESTIONS = 60
FAR_BEYOND = 20
"""Factor between the largest score and the next from which it is reported as a possible mistake."""
_DECLARED = "what the table says"
_DEFAULT_SESOI = {each.metric: each.sesoi for each in QUESTIONS.values()}
_KNOWN_METRICS = [name for name, each in METRICS.items() if each.better != "neither"]
"""Knowhue's metrics with a better direction."""


# normalised like the names of a table, so that equal names are equal text
_Name = Annotated[str, AfterValidator(plain_name)]


@dataclass(frozen=True)
class TableOptions:
    """Options for reading a table; the rest comes from its columns, or is known for Knowhue's own metrics."""

    metrics: Sequence[_Name] = ()
    """metrics of the questions; if empty, all with a smallest effect of interest"""
    better: Mapping[_Name, str] = field(default_factory=dict)
    """by metric, `lower` or `higher`"""
    sesoi: Mapping[_Name, float] = field(default_factory=dict)
    """by metric, the smallest effect of interest in the metric's unit"""
    against: _Name | None = None
    """the arm that others are compared with"""
    arms: Sequence[_Name] = ()
    """the arms that are compared with it; if empty, all others"""
    alpha: float = ALPHA
    """rate of false claims over all questions together"""
    arm_column: _Name | None = None
    """the column with the arm, if it has none of the usual names"""
    seed_column: _Name | None = None
    """the same for the seed"""


def read_table(paths: Sequence[Path], options: TableOptions) -> Study:
    """Read tables of scores, see `score_files.read_scores`, together as one study, ready for `findings.find`.

    Each question has the name of its metric, followed by the arm where several are compared. A `TableError` if a table
    cannot be read or judged; a `ConfigError` if an option has an unknown name, or something is neither given nor known.
    """
    wanted = dict.fromkeys([*options.metrics, *options.better, *options.sesoi, *_KNOWN_METRICS])
    rows = read_score_rows(paths, list(wanted), options.arm_column, options.seed_column)
    _require_known(rows, options)
    about = {metric: _about(rows, options, metric) for metric in rows.metrics}
    seeds = rows.seeds()
    try:
        questions = _questions(rows, options, about)
    except KnowhueError as error:  # report both problems at once
        error.args += (*_same_but_for_case("arm", seeds), *_misspelt("seed", seeds))
        raise
    primary = {question.metric for question in questions.values()}
    compared = {arm for each in questions.values() for arm in (each.single, each.multi)}
    _require_letters_that_differ(seeds, compared)
    scored = [(arm, seed) for arm, seed, *_ in (*rows.totals, *rows.declared)] + list(rows.states)
    frozen = {
        "questions": {name: each.model_dump(mode="json") for name, each in questions.items()},
        "alpha": options.alpha,
        # seeds that arms of any question have, or lack
        "seeds": sorted({seed for arm, seed in scored if arm in compared}),
    }
    secondary = rows.metadata["secondary"].items()
    settings = frozen | {
        "name": ", ".join(each["file"] for each in rows.tables), "arms": {arm: {} for arm in rows.arms()},
        "purpose": "report", "tables": rows.tables, "unused": rows.unused, "replaced": rows.replaced(),
        "exploratory": {metric: named for metric, named in secondary if not {metric, named} & primary},
        "hash": digest(frozen | {"tables": [each["sha256"] for each in rows.tables]}),
    }  # fmt: skip
    table = ScoreTable(rows.scores(), about, rows.declared_scores())
    runs = _runs(rows, settings["seeds"])
    return Study(settings, runs, baselines=rows.baselines(), metrics=about, scores=table)


def _require_known(rows: ScoreRows, options: TableOptions) -> None:
    """Check that options name metrics and arms of the table."""
    metrics, arms = rows.metrics, rows.arms()
    against = [options.against] if options.against else []
    of_metrics = {"--metric": options.metrics, "--better": options.better, "--sesoi": options.sesoi}
    for option, names in (of_metrics | {"--against": against, "--arm": options.arms}).items():
        known = metrics if option in of_metrics else arms
        if unknown := [name for name in names if name not in known]:
            meant = did_you_mean(unknown[0], [*known, *rows.unused] if known is metrics else known)
            raise ConfigError(
                f"`{option}` should name what the table has: {few(known, 12)}. Found `{shown(unknown[0])}`.{meant}"
            )


def _declared(rows: ScoreRows, options: TableOptions, name: str, metric: str) -> Any:
    """Return the value for a metric from the option or column `name`; None where neither has one."""
    given, column = getattr(options, name).get(metric), rows.metadata[name].get(metric)
    if given is not None and column is not None and given != column:
        raise ConfigError(
            f"`--{name} {metric}={given}` differs from the column `{name}` ({column}). Leave out one of them."
        )
    return column if given is None else given


def _about(rows: ScoreRows, options: TableOptions, metric: str) -> Row:
    """Return what is known about a metric: `title`, `unit`, `better`, and `least`, None where it has no lower limit."""
    better = _declared(rows, options, "better", metric)
    known = METRICS[metric] if metric in _KNOWN_METRICS else None
    if known and better not in (None, known.better):
        raise ConfigError(
            f"Two directions of `{metric}`: {better}, and {known.better} for Knowhue's metric of that name. Leave out "
            "the first, or rename the metric."
        )
    better = known.better if known else better
    unit = rows.metadata["unit"].get(metric) or (known.unit if known else "")
    about = {"title": known.title if known else spaced(metric), "unit": unit}
    about |= {"better": better} if better else {}
    # a user's metric can be negative
    return about if metric in NEVER_NEGATIVE or unit == "share" else about | {"least": None}


def _questions(rows: ScoreRows, options: TableOptions, about: Mapping[str, Row]) -> dict[str, Question]:
    """Return a question for each primary metric and each pair of arms."""
    declared = {metric: _declared(rows, options, "sesoi", metric) for metric in rows.metrics}
    declared = {metric: value for metric, value in declared.items() if value is not None}
    sesoi: dict[str, Any] = dict.fromkeys(rows.metrics) | _DEFAULT_SESOI | declared
    known = [metric for metric in rows.metrics if sesoi[metric]]
    primary = options.metrics or [*declared] or known or rows.metrics
    if unknown := [metric for metric in primary if sesoi[metric] is None]:
        raise ConfigError(
            f"The smallest effect of interest, below which no difference matters, is not known for {few(unknown, 12)}. "
            f"Give it, in the metric's unit: --sesoi {quoted(unknown[0])}=0.01{_known_metric_hint(unknown[0], '.')}"
        )
    questions = {}
    for metric in dict.fromkeys(primary):
        smallest = sesoi[metric]
        if "better" not in about[metric]:
            raise ConfigError(
                f"Whether more or less of `{shown(metric)}` is better is not known. Give it: "
                f"--better {quoted(metric)}=higher, or =lower.{_known_metric_hint(metric)}"
            )
        if about[metric]["unit"] == "share" and smallest >= 1:
            raise ConfigError(
                f"`--sesoi {metric}` should be a share, such as 0.01 for one point. Found `{smallest:g}`."
            )
        pairs = _pairs(rows, options, metric)
        for before, after in pairs:
            name = metric if len(pairs) == 1 else f"{metric}: {after}"
            questions[name] = Question(
                metric=metric, single=before, multi=after, sesoi=smallest, if_diverged=_DECLARED,
                secondary=tuple(each for each, by in rows.metadata["secondary"].items() if by == metric),
            )  # fmt: skip
    if len(questions) > MOST_QUESTIONS:
        raise ConfigError(
            f"{len(questions)} questions share alpha, and {MOST_QUESTIONS} are the most. Name fewer with --metric and "
            "--arm."
        )
    return questions


def _known_metric_hint(metric: str, end: str = "") -> str:
    """Return a suggestion of Knowhue's metric with a similar name; empty without one."""
    meant = "" if metric in _KNOWN_METRICS else did_you_mean(metric, _KNOWN_METRICS)
    return meant and end + meant


def _pairs(rows: ScoreRows, options: TableOptions, metric: str) -> list[tuple[str, str]]:
    """Return the pairs of arms to compare, before first: by option, by column, or as in Knowhue's own studies."""
    arms = rows.arms(metric)
    if len(arms) < 2:
        raise TableError(
            f"Only one arm has the metric `{shown(metric)}`: {few(arms)}. Give the rows of the arm that it is compared "
            "with, or name other metrics with --metric."
        )
    columns = {arm: by for (name, arm), by in rows.metadata["against"].items() if name == metric}
    usual = next(
        ((each.single, each.multi) for task, each in QUESTIONS.items() if metric in METRIC_NAMES[task]), None
    )
    if options.against is not None:
        found = [(options.against, arm) for arm in options.arms or arms if arm != options.against]
    elif columns:
        found = [(by, arm) for arm, by in columns.items() if not options.arms or arm in options.arms]
    elif usual is not None and set(usual) <= set(arms) and not options.arms:
        found = [usual]
    else:
        raise ConfigError(
            f"Which arm the others are compared with in `{shown(metric)}` is not known. Give it: --against "
            f"{shown(arms[0])}. Found the arms {few(arms, 12)}."
        )
    if lacking := [arm for pair in found for arm in pair if arm not in arms]:
        raise TableError(
            f"No row of the metric `{shown(metric)}` for the arm `{shown(lacking[0])}`. Found the arms "
            f"{few(arms, 12)}. Name others with --against and --arm, or the metrics with --metric."
        )
    if not found or any(before == after for before, after in found):
        alone = shown(next((before for before, after in found if before == after), ", ".join(options.arms)))
        by = "The column `against`" if columns and options.against is None else "`--arm`"
        raise ConfigError(
            f"{by} should name an arm to compare with another in `{shown(metric)}`. Found `{alone}` alone. The arms "
            f"are {few(arms, 12)}."
        )
    return found


def _runs(rows: ScoreRows, seeds: Sequence[int]) -> dict[str, dict[int, Run]]:
    """Return the runs of the rows, by arm and seed; a run without rows has the state `missing`."""
    scores: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    for (arm, seed, metric, label), (value, _) in rows.totals.items():
        if not label:
            scores[arm, seed][metric] = value
    runs: dict[str, dict[int, Run]] = {arm: {} for arm in rows.arms()}
    for arm, seed in product(runs, seeds):
        metrics = {"metrics": scores[arm, seed]} if (arm, seed) in scores else {}
        state = "finished" if metrics else rows.states.get((arm, seed), "missing")
        runs[arm][seed] = Run(arm, seed, state, scores=metrics | {"split": rows.split or "test"})
    return runs


def _copies(study: Study) -> Iterator[str]:
    """Report compared arms that look like copies of each other: in all scores, or in all images of some seeds."""
    assert study.scores is not None
    for arms in dict.fromkeys((each.single, each.multi) for each in study.questions.values()):
        before, after = ({run.seed: run.scores["metrics"] for run in study.finished(arm)} for arm in arms)
        seeds = sorted(before.keys() & after.keys())
        pairs = [(before[seed], after[seed]) for seed in seeds]
        shared = [one[name] == other[name] for one, other in pairs for name in one.keys() & other.keys()]
        copied = [seed for seed in seeds if study.scores.same_image_scores(*arms, seed, study.metrics)]
        same = f"score of every image with {seeds_text(copied)}" if copied else ""
        if shared and all(shared):
            same = "scores to the last digit"
        if same:
            yield f"“{arms[0]}” and “{arms[1]}” have the same {same}: is one a copy of the other?"


def _probable_mistakes(study: Study) -> Iterator[str]:
    """Report probable mistakes: similar names of arms, metrics or classes, and a score far beyond all others."""
    assert study.scores is not None
    totals = (label for metric in study.metrics for label, *_ in study.scores.classes(metric))
    yield from _same_but_for_case("arm", study.runs)
    yield from _same_but_for_case("metric", [*study.metrics, *map(metric_name, study.settings["unused"])])
    yield from _same_but_for_case("class", [*totals, *study.scores.labels.values()])
    scores: dict[str, dict[tuple[str, int], float]] = defaultdict(dict)
    seeds: dict[str, list[int]] = defaultdict(list)
    for run in study.finished_runs:
        seeds[run.arm].append(run.seed)
        for metric, score in run.scores["metrics"].items():
            scores[metric][run.arm, run.seed] = abs(score)
    yield from _misspelt("seed", seeds)
    yield from _misspelt("score", scores)
    for metric, by_run in scores.items():
        runs_of_class: dict[str, list[Hashable]] = defaultdict(list)
        for label, *run_key in study.scores.classes(metric):
            runs_of_class[label].append(tuple(run_key))
        yield from _misspelt("run", runs_of_class)
        if len(by_run) < 3:
            continue
        (next_, _), (most, (arm, seed)) = sorted((score, run) for run, score in by_run.items())[-2:]
        if 0 < FAR_BEYOND * next_ < most:
            yield (
                f"{spaced(metric)} of “{arm}” with seed {seed} is {most:g}, all others are at most {next_:g}: is its "
                "decimal point where it should be, or is it a percentage among shares?"
            )


def _require_letters_that_differ(seeds: Mapping[str, Mapping[int, None]], compared: Collection[str]) -> None:
    """Refuse two arms whose names differ only in case and that share no seed, if either is compared.

    They are probably one arm.
    """
    for one, other in combinations(seeds, 2):
        are_alike = one.casefold() == other.casefold() and not seeds[one].keys() & seeds[other].keys()
        if are_alike and (one in compared or other in compared):
            raise TableError(
                f"The arms `{shown(one)}` ({plural(len(seeds[one]), 'seed')}) and `{shown(other)}` "
                f"({plural(len(seeds[other]), 'seed')}) differ only in case, and have no seed in common. If they are "
                "one arm, spell them the same; otherwise rename one."
            )


def _same_but_for_case(noun: str, names: Iterable[str]) -> Iterator[str]:
    """Report names that differ only in case from an earlier one."""
    above: dict[str, str] = {}
    for name in dict.fromkeys(names):
        first = above.setdefault(name.casefold(), name)
        if name != first:
            yield f"“{first}” and “{name}” differ only in case: are they one {noun}?"


def _misspelt(noun: str, items: Mapping[str, Iterable[Hashable]]) -> Iterator[str]:
    """Report each name if a similar name has more items but none of its own, unless they differ only in case."""
    by_name = {name: set(values) for name, values in items.items()}
    for name, values in by_name.items():
        larger = {other: more for other, more in by_name.items() if len(more) > len(values)}
        disjoint = [other for other, more in larger.items() if values.isdisjoint(more)]
        if suggestion := did_you_mean(
            name, [each for each in disjoint if each.casefold() != name.casefold()]
        ):
            yield f"“{name}” has {plural(len(values), noun)}, which others lack.{suggestion}"


def notices(study: Study) -> list[str]:
    """Return notes on a table: probable mistakes and copies, and the runs, columns and metrics that were not used."""
    ended = ("finished", "missing", DIVERGED)
    unfinished = [
        f"{run.arm} seed {run.seed} ({run.state})" for run in study.all_runs if run.state not in ended
    ]
    without_direction = [metric for metric, about in study.metrics.items() if "better" not in about]
    undirected = {name for name, metric in METRICS.items() if metric.better == "neither"}
    neither = [metric for metric in without_direction if metric in undirected]
    primary, unused = {each.metric for each in study.questions.values()}, study.settings["unused"]
    left_out = {
        "Left out, because another row of the run is finished:": study.settings["replaced"],
        "Left out, not finished:": unfinished,
        "Not compared, because neither direction is better:": neither,
        "Not compared without --sesoi, because they are distances between sets of images:": [
            metric for metric in study.metrics if metric in SET_DISTANCES and metric not in primary
        ],
        "Not compared, because it is not known whether more or less is better (--better):": [
            metric for metric in without_direction if metric not in (*neither, *SET_DISTANCES)
        ],
        "Exploratory, because no question is about the metric that the column `secondary` names:": [
            f"{metric} ({named})" for metric, named in study.settings["exploratory"].items()
        ],
        "Not used: the columns": list(unused),
    }
    found = [f"{what} {few(names, 8)}." for what, names in left_out.items() if names]
    if unused:
        found[-1] += "".join(unused.values())
    return [*dict.fromkeys(_probable_mistakes(study)), *_copies(study), *found]


def further_lines(findings: Findings) -> list[str]:
    """Return a line for each metric without a question, with the cells of the page's table."""
    header, *rows = TABLES["further"].text(findings)
    lines = []
    for row in rows:
        arms, metric, *cells = (str(cell.value if isinstance(cell, TableCell) else cell) for cell in row)
        named = (f"{name.lower()} {cell}" for name, cell in zip(header[2:], cells, strict=True))
        lines.append(f"{arms}, {metric}: {', '.join(named)}")
    return lines
