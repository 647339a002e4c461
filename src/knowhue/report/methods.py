"""A comparison of methods: at equal images and at equal wall-clock, what each gives and what it costs."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from knowhue.plan import CLOCK, QUESTIONS, Epochs, plan_of
from knowhue.presets import ALL_METHODS, Method
from knowhue.report.contrasts import BOTH, FamilyTest, contrast, family_tests
from knowhue.report.findings import Judged, judged
from knowhue.report.study import Row, Run, Score, ScoreTable, Study, flat_scores, floors
from knowhue.report.text import MISSING, difference, ends_text, number, spaced
from knowhue.statistics import ALPHA
from knowhue.statistics.paired import mean
from knowhue.statistics.verdicts import Word, question_alpha

_METRICS = {name: {"better": "lower", "unit": ""} for name in ("fd_lite0", "fid")}
"""Which direction is better, of distances between sets, which are no metrics of single images."""
ERROR = QUESTIONS["colour"]
"""What a method is judged by: the metric, the smallest effect of interest and what a diverged run is given."""
QUALITY = {
    "ab_l1": "a*b* error ↓",
    "ciede2000": "CIEDE2000 ↓",
    "colourfulness_difference_of_means": "Δ colourfulness ↓",
    "chroma_ratio": "chroma, of true",
    "fd_lite0": "FD lite0 ↓",
    "fid": "FID ↓",
    "recognition": "recognised, % ↑",
}
"""Metrics of the tables with their heads, in this order; each only where some run has it."""
COST_NAMES = ("train_s", "train_s_per_image", "predict_s_per_image", "images_seen", "parameters")
_COST_HEADS = (
    "", "epochs", "images seen", "seconds trained", "ms an image trained", "ms an image predicted",
    "million parameters",
)  # fmt: skip
_BASELINES = {
    "gray": "left gray",
    "mean_colour": "mean colour everywhere",
    "median_colour": "median colour everywhere",
    "real": "true colours",
}


class Regime(NamedTuple):
    """What is equal for all methods.

    Attributes:
        name: `images` or `clock`.
        title: in words.
        arms: of each method.
        epochs: of each method, on the frozen encoder and of fine-tuning.
        budget_s: seconds at equal wall-clock.
    """

    name: str
    title: str
    arms: Mapping[str, str]
    epochs: Mapping[str, Epochs]
    budget_s: float | None = None


class MethodScore(NamedTuple):
    """A metric of a method in a regime.

    Attributes:
        mean: over the finished seeds.
        by_seed: of each.
        test: the method after the reference, over the seeds that both have, adjusted over all methods and metrics of
            the regime; a diverged run has in the error the score declared for it. None of the reference itself.
    """

    mean: float | None
    by_seed: dict[int, float]
    test: FamilyTest | None = None


class TableCell(NamedTuple):
    """A value and, below it, its paired difference to the reference; `clear` if test and interval tell it from 0."""

    value: str
    below: str = ""
    clear: bool = False


def methods(study: Study) -> dict[str, Method]:
    """The methods of a comparison, in the order of its tables."""
    return {arm: ALL_METHODS[arm] for arm in study.runs if not arm.endswith(CLOCK)}


def regimes(study: Study) -> dict[str, Regime]:
    """`images`, and `clock` once it is known how long an epoch of each method takes."""
    plan, names = plan_of(study.settings), methods(study)
    usual = {name: plan.epochs(name) for name in names}
    found = [Regime("images", "equal images", {name: name for name in names}, usual)]
    if clock := study.settings.get("wall_clock"):
        # a method whose epochs did not change is the run that is there
        arms = {name: name + CLOCK if name + CLOCK in study.runs else name for name in names}
        found.append(Regime("clock", "equal wall-clock", arms, clock["epochs"], clock["budget_s"]))
    return {each.name: each for each in found}


# a table goes with its study
_tables: WeakKeyDictionary[Study, ScoreTable] = WeakKeyDictionary()


def quality_scores(study: Study) -> ScoreTable:
    """Return the tidy table of a comparison: distances, recognition and diversity are among its metrics."""
    if study not in _tables:
        _tables[study] = _make_table(study)
    return _tables[study]


def _make_table(study: Study) -> ScoreTable:
    runs = [run for arm in study.runs for run in study.finished(arm)]
    rows = chain(*(_quality_rows(run) for run in runs), *(run.image_scores() for run in runs))
    value = study.baselines.get(ERROR.if_diverged, {}).get(ERROR.metric)
    lost = (
        run for arm in study.runs for run in study.of(arm) if run.state == "diverged" and value is not None
    )
    declared = (Score(run.arm, run.seed, ERROR.metric, value or 0.0) for run in lost)
    # what the study's own table says of a metric counts more
    return ScoreTable(rows, _METRICS | dict(study.metrics), declared)


def _quality_rows(run: Run) -> Iterator[Score]:
    spread = run.samples.get("diversity")
    values = flat_scores(run.scores) | ({} if spread is None else {"diversity": float(spread.mean())})
    yield from (Score(run.arm, run.seed, name, value) for name, value in values.items() if value is not None)


def scores(study: Study, regime: Regime) -> dict[tuple[str, str], MethodScore]:
    """Return every metric of every method in a regime, by (method, metric)."""
    table, reference = quality_scores(study), study.settings["reference"]
    shown = shown_metrics(study)
    # adjusted over the whole table, for a reader looks for the bold numbers in all of it
    tests = family_tests({
        (method, metric): contrast(table, metric, regime.arms[reference], regime.arms[method])
        for method in methods(study)
        for metric in shown
        if method != reference
    })  # fmt: skip
    found = {}
    for method in methods(study):
        for metric in (*shown, "diversity"):
            own = table.finished(regime.arms[method], metric)
            found[method, metric] = MethodScore(mean(list(own.values())), own, tests.get((method, metric)))
    return found


def shown_metrics(study: Study) -> list[str]:
    """Return those of `QUALITY` that some finished run has."""
    table = quality_scores(study)
    return [name for name in QUALITY if any(table.finished(arm, name) for arm in study.runs)]


def verdict(study: Study, regime: Regime, method: str) -> Judged | None:
    """Judge a method's error against the reference's, by the rule of a study's questions; None of the reference."""
    reference = study.settings["reference"]
    if method == reference:
        return None
    table = quality_scores(study)
    found = contrast(table, ERROR.metric, regime.arms[reference], regime.arms[method])
    trivial = floors(study.baselines, ERROR.metric).values()
    arms = {arm for each in regimes(study).values() for arm in each.arms.values()}
    complete = all(len(table.scores(arm, ERROR.metric)) == len(study.of(arm)) for arm in arms)
    return judged(found, ERROR.sesoi, method_alpha(study), trivial, complete)


def method_alpha(study: Study) -> float:
    """Return the level of one verdict: alpha, shared out among all methods at both regimes."""
    return question_alpha(ALPHA, 2 * (len(methods(study)) - 1))  # before the second has begun, too


def unfinished(study: Study, regime: Regime) -> list[str]:
    """Every run that did not end well or whose sample images are damaged, as text."""
    given = ""
    if study.baselines.get(ERROR.if_diverged, {}).get(ERROR.metric) is not None:
        given = f", and given the score of “{spaced(ERROR.if_diverged)}” as declared"
    found = []
    for method, arm in regime.arms.items():
        for run in study.of(arm):
            if run.state != "finished":
                found.append(f"{method}, seed {run.seed}: {run.state}{given * (run.state == 'diverged')}")
            if "samples.npz" in run.damaged:
                found.append(f"{method}, seed {run.seed}: its images are damaged")
    return found + ["the true images: damaged"] * bool(study.damaged)


def costs(study: Study, regime: Regime, method: str) -> dict[str, float | None]:
    """What a method took, means over its finished seeds; `COST_NAMES` are the keys."""
    runs = study.finished(regime.arms[method])
    own = [{**run_costs(run), **study.costs.get(method, {})} for run in runs]
    return {name: mean([each[name] for each in own if each.get(name) is not None]) for name in COST_NAMES}


def run_costs(run: Run) -> dict[str, float]:
    """What one run took: seconds of training, its heads included, its evaluation not."""
    seconds = sum(entry["train_seconds"] for entry in run.log)
    count = sum(entry["images"] for entry in run.log)
    return {"train_s": round(seconds, 2), "images_seen": count, "train_s_per_image": seconds / max(count, 1)}


def comparison_results(study: Study) -> dict[str, Any]:
    """Every number of the comparison, as `results.json` holds it at `comparison`.

    Paths: `reference`, `regimes.<images|clock>.<title|budget_s|unfinished>`, and of each method
    `regimes.<regime>.methods.<method>.<epochs|verdict|scores.<metric>|cost.<name>>`.
    """
    return {
        "reference": study.settings["reference"],
        "regimes": {
            name: {
                "title": regime.title,
                "budget_s": regime.budget_s,
                "unfinished": unfinished(study, regime),
                "methods": _method_results(study, regime),
            }
            for name, regime in regimes(study).items()
        },
    }


def quality_table(study: Study, regime: Regime) -> list[list[TableCell]]:
    """One row a method, one column a metric, then the baselines; the header first."""
    names, found = shown_metrics(study), scores(study, regime)
    spread = ["spread of samples"] * any(found[method, "diversity"].by_seed for method in methods(study))
    rows = [[TableCell(head) for head in ("", "error: verdict", *(QUALITY[name] for name in names), *spread)]]
    for name, method in methods(study).items():
        note = "reference" if name == study.settings["reference"] else ""
        cells = [_quality_cell(found[name, metric], metric) for metric in names]
        drawn = [_plain(found[name, "diversity"].mean) for _ in spread]
        rows.append([TableCell(method.title, note), _judged(verdict(study, regime, name)), *cells, *drawn])
    for name, title in _BASELINES.items():
        if (row := study.baselines.get(name)) is not None:
            known = flat_scores(row)
            cells = [_plain(known.get(metric), metric) for metric in names]
            rows.append([TableCell(title), TableCell(MISSING), *cells, *(TableCell(MISSING) for _ in spread)])
    return rows


def cost_table(study: Study, regime: Regime) -> list[list[TableCell]]:
    """What each method took; ratios are to the reference, of the same table."""
    rows = [[TableCell(head) for head in _COST_HEADS]]
    known = {name: costs(study, regime, name) for name in methods(study)}
    usual = known[study.settings["reference"]]
    for name, method in methods(study).items():
        own, epochs = known[name], regime.epochs.get(name)
        count, seconds, parameters = own["images_seen"], own["train_s"], own["parameters"]
        rows.append(
            [
                TableCell(method.title),
                TableCell(MISSING if epochs is None else " + ".join(f"{each}" for each in epochs if each)),
                TableCell(MISSING if count is None else f"{count:,.0f}"),
                TableCell(
                    MISSING if seconds is None else f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.1f}"
                ),
                *(_timed(own[each], usual[each]) for each in ("train_s_per_image", "predict_s_per_image")),
                TableCell(MISSING if parameters is None else f"{parameters / 1e6:.1f}"),
            ]
        )
    return rows


def markdown_tables(study: Study) -> str:
    """All tables as GitHub's Markdown, a heading before each regime's two."""
    parts = []
    for regime in regimes(study).values():
        budget = f" ({regime.budget_s:.0f} s)" if regime.budget_s else ""
        parts.append(f"### {regime.title.capitalize()}{budget}")
        parts += [_markdown(table(study, regime)) for table in (quality_table, cost_table)]
        parts += [f"Not finished: {'; '.join(lost)}" for lost in [unfinished(study, regime)] if lost]
    return "\n\n".join(parts) + "\n"


def _method_results(study: Study, regime: Regime) -> dict[str, Any]:
    found = scores(study, regime)
    table = {}
    for method in methods(study):
        word = verdict(study, regime, method)
        own = {metric: each for (name, metric), each in found.items() if name == method and each.by_seed}
        table[method] = {
            "epochs": regime.epochs.get(method),
            "verdict": word and word.word.value,
            "scores": {
                metric: {"mean": each.mean, "by_seed": each.by_seed, "difference": _difference(each.test)}
                for metric, each in own.items()
            },
            "cost": costs(study, regime, method),
        }
    return table


def _difference(test: FamilyTest | None) -> Row | None:
    if test is None:
        return None
    return {
        "mean": test.found.estimate, "seeds": list(test.found.seeds), "interval": test.bounds.interval,
        "level": test.bounds.level, "over": test.bounds.over, "p": test.p, "p_adjusted": test.p_adjusted,
    }  # fmt: skip


def _quality_cell(score: MethodScore, metric: str) -> TableCell:
    """A mean and below it its difference, with as many places, and its interval; `†`: over seeds alone."""
    unit = _unit(metric)
    if score.test is None:
        return _plain(score.mean, metric)
    found, bounds, like = score.test.found, score.test.bounds, score.mean or 0.0
    ends = "no interval" if bounds.interval is None else ends_text(like, bounds.interval, unit)
    mark = "" if bounds.over == BOTH or bounds.interval is None else "†"
    below = f"{difference(like, like + found.estimate, unit)} ({ends}){mark}"
    return TableCell(number(score.mean, unit), below, score.test.is_clear)


def _judged(found: Judged | None) -> TableCell:
    """A verdict; by the seeds alone it speaks of these test images and not of the method."""
    if found is None:
        return TableCell(MISSING)
    here = found.word != Word.NO_VERDICT and found.quoted is not None and found.quoted.over != BOTH
    return TableCell(found.word.value, "on these test images" if here else "")


def _plain(value: float | None, metric: str = "") -> TableCell:
    return TableCell(number(value, _unit(metric)))


def _unit(metric: str) -> str:
    return "share" if metric == "recognition" else ""


def _timed(own: float | None, reference: float | None) -> TableCell:
    if own is None:
        return TableCell(MISSING)
    return TableCell(f"{1000 * own:.2f}", f"× {own / reference:.2f}" if reference else "")


def _markdown(rows: Sequence[Sequence[TableCell]]) -> str:
    lines = ["| " + " | ".join(map(_markdown_cell, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _markdown_cell(cell: TableCell) -> str:
    below = f"**{cell.below}**" if cell.clear else cell.below
    return f"{cell.value}<br>{below}" if below else cell.value
