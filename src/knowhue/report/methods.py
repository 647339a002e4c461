"""A comparison of methods: at equal images and at equal wall-clock, what each gives and what it costs."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from knowhue.plan import CLOCK, QUESTIONS, Epochs, plan_of
from knowhue.presets import ALL_METHODS, Method
from knowhue.report.contrasts import BOTH, Bounds, Contrast, paired
from knowhue.report.findings import Judged, judged
from knowhue.report.study import Row, Run, Study, flat_scores, floors
from knowhue.report.text import MISSING, difference, ends_text, number, spaced
from knowhue.statistics import ALPHA, LEVEL
from knowhue.statistics import verdicts as rules
from knowhue.statistics.paired import benjamini_hochberg
from knowhue.statistics.verdicts import Word

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


class Score(NamedTuple):
    """A metric of a method in a regime.

    Attributes:
        mean: over the finished seeds.
        by_seed: of each.
        found: the method after the reference, over the seeds that both have; a diverged run has in the error the score
            declared for it. None of the reference itself.
        bounds: the 95 % interval of their difference: over seeds and images where images have scores.
        p_adjusted: exact sign-flip p, adjusted over all methods and metrics of the regime (Benjamini-Hochberg).
    """

    mean: float | None
    by_seed: dict[int, float]
    found: Contrast | None = None
    bounds: Bounds | None = None
    p_adjusted: float | None = None

    @property
    def is_clear(self) -> bool:
        """Whether a difference may be called one: by the test and by the interval over seeds and images."""
        return bool(
            self.found and self.bounds and self.bounds.is_clear(len(self.found.seeds), self.p_adjusted)
        )


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


def scores(study: Study, regime: Regime) -> dict[tuple[str, str], Score]:
    """Every metric of every method in a regime, by (method, metric)."""
    found = {
        (method, metric): _score(study, regime, method, metric)
        for method in methods(study)
        for metric in (*shown_metrics(study), "diversity")
    }
    p = {
        " ".join(key): each.found.p for key, each in found.items() if each.found and len(each.found.seeds) > 1
    }
    # over the whole table, for a reader looks for the bold numbers in all of it
    adjusted = benjamini_hochberg(p)
    return {key: each._replace(p_adjusted=adjusted.get(" ".join(key))) for key, each in found.items()}


def shown_metrics(study: Study) -> list[str]:
    """Those of `QUALITY` that some finished run has."""
    runs = [run for arm in study.runs for run in study.finished(arm)]
    return [name for name in QUALITY if any(_own_score(run, name) is not None for run in runs)]


def verdict(study: Study, regime: Regime, method: str) -> Judged | None:
    """Judge a method's error against the reference's, by the rule of a study's questions; None of the reference."""
    if method == study.settings["reference"]:
        return None
    trivial = floors(study.baselines, ERROR.metric).values()
    found = _contrast(study, regime, method, ERROR.metric)
    return judged(found, ERROR.sesoi, method_alpha(study), trivial, _is_complete(study))


def method_alpha(study: Study) -> float:
    """The level of one verdict: alpha, shared out among all methods at both regimes."""
    return rules.question_alpha(ALPHA, 2 * (len(methods(study)) - 1))  # before the second has begun, too


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
    known = {name: [each[name] for each in own if each.get(name) is not None] for name in COST_NAMES}
    return {name: float(np.mean(values)) if values else None for name, values in known.items()}


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


def _own_score(run: Run, metric: str) -> float | None:
    if metric == "diversity":
        spread = run.samples.get("diversity")
        return None if spread is None else float(spread.mean())
    return flat_scores(run.scores).get(metric)


def _declared_score(study: Study, run: Run, metric: str) -> float | None:
    """A run's score; of a diverged one, in the error, that of the baseline declared for it, as in a study."""
    if run.finished:
        return _own_score(run, metric)
    declared = study.baselines.get(ERROR.if_diverged, {})
    return declared.get(metric) if run.state == "diverged" and metric == ERROR.metric else None


def _score(study: Study, regime: Regime, method: str, metric: str) -> Score:
    known = {run.seed: _own_score(run, metric) for run in study.finished(regime.arms[method])}
    own = {seed: value for seed, value in known.items() if value is not None}
    found = _contrast(study, regime, method, metric)
    mean = float(np.mean(list(own.values()))) if own else None
    return Score(mean, own, found, found and found.bounds(LEVEL))


def _contrast(study: Study, regime: Regime, method: str, metric: str) -> Contrast | None:
    """The method after the reference, over the seeds of which both have a score."""
    reference = study.settings["reference"]
    if method == reference or metric not in QUALITY:
        return None
    sides = [{run.seed: run for run in study.of(regime.arms[arm])} for arm in (reference, method)]
    # what the study's own table says of a metric counts more
    about = _METRICS | dict(study.metrics)
    return paired(about, metric, (reference, method), sides, lambda run: _declared_score(study, run, metric))


def _is_complete(study: Study) -> bool:
    """Whether every method has a score of its error with every seed in every regime."""
    runs = [
        run for regime in regimes(study).values() for arm in regime.arms.values() for run in study.of(arm)
    ]
    return all(_declared_score(study, run, ERROR.metric) is not None for run in runs)


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
                metric: {"mean": each.mean, "by_seed": each.by_seed, "difference": _difference(each)}
                for metric, each in own.items()
            },
            "cost": costs(study, regime, method),
        }
    return table


def _difference(score: Score) -> Row | None:
    if score.found is None or score.bounds is None:
        return None
    return {
        "mean": score.found.estimate, "seeds": list(score.found.seeds), "interval": score.bounds.interval,
        "level": score.bounds.level, "over": score.bounds.over,
        "p": score.found.p if len(score.found.seeds) > 1 else None, "p_adjusted": score.p_adjusted,
    }  # fmt: skip


def _quality_cell(score: Score, metric: str) -> TableCell:
    if score.found is None or score.bounds is None:
        return _plain(score.mean, metric)
    unit = _unit(metric)
    return TableCell(
        number(score.mean, unit), _between(score.found, score.bounds, score.mean, unit), score.is_clear
    )


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


def _between(found: Contrast, bounds: Bounds, mean: float | None, unit: str) -> str:
    """Signed mean and its interval, with as many places as the value that they stand below; `†`: over seeds alone."""
    like = 0.0 if mean is None else mean
    signed = difference(like, like + found.estimate, unit)
    if bounds.interval is None:
        return f"{signed} (no interval)"
    return f"{signed} ({ends_text(like, bounds.interval, unit)}){'' if bounds.over == BOTH else '†'}"


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
