"""A comparison of methods: at equal images and at equal wall-clock, what each gives and what it costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from knowhue.metric_table import METRICS
from knowhue.plan import CLOCK, QUESTIONS, Epochs, Plan, plan_of
from knowhue.presets import ALL_METHODS, Method, edit
from knowhue.report.contrasts import BOTH, FamilyTest, contrast, family_tests
from knowhue.report.findings import Judged, judged
from knowhue.report.study import Run, Study, flat_scores, floors
from knowhue.report.text import MISSING, TableCell, difference, ends_text, number, spaced
from knowhue.statistics import ALPHA
from knowhue.statistics.paired import mean
from knowhue.statistics.verdicts import Word, question_alpha

ERROR = QUESTIONS["colour"]
"""What a method is judged by: the metric, the smallest effect of interest and what a diverged run is given."""
QUALITY = (
    "ab_l1", "ciede2000", "colourfulness_difference_of_means", "chroma_ratio", "fd_lite0", "fid", "recognition",
)  # fmt: skip
"""Metrics of the tables; those with a better side are drawn. Only where some run has them."""
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


@dataclass(frozen=True, eq=False)
class Comparison:
    """A study whose arms are methods, seen method by method and regime by regime."""

    study: Study

    @cached_property
    def methods(self) -> dict[str, Method]:
        """By name, in the order of the tables; one that has settings of its own is titled by its name in the plan."""
        return {arm: self._method(arm) for arm in self.plan.planned_arms}

    def _method(self, arm: str) -> Method:
        known = ALL_METHODS.get(arm)
        if known and edit(self.plan.config, known.edits) == self.plan.arm_settings(arm):
            return known
        return Method(arm, "", self.plan.arms[arm])

    @cached_property
    def plan(self) -> Plan:
        """What was asked."""
        return plan_of(self.study.settings)

    @property
    def reference(self) -> str:
        """The method that the others are held against."""
        return self.study.settings["reference"]

    @cached_property
    def regimes(self) -> dict[str, Regime]:
        """`images`, and `clock` once it is known how long an epoch of each method takes."""
        runs = self.study.runs
        usual = {name: self.plan.epochs(name) for name in self.methods}
        found = [Regime("images", "equal images", {name: name for name in self.methods}, usual)]
        if clock := self.study.settings.get("wall_clock"):
            # a method whose epochs did not change is the run that is there
            arms = {name: name + CLOCK if name + CLOCK in runs else name for name in self.methods}
            found.append(Regime("clock", "equal wall-clock", arms, clock["epochs"], clock["budget_s"]))
        return {each.name: each for each in found}

    @cached_property
    def metrics(self) -> list[str]:
        """Those of `QUALITY` that some finished run has."""
        return [
            name for name in QUALITY if any(self.study.table.finished(arm, name) for arm in self.study.runs)
        ]

    @cached_property
    def scores(self) -> dict[str, dict[tuple[str, str], MethodScore]]:
        """Every metric of every method by regime, then by (method, metric)."""
        return {name: self._scores(regime) for name, regime in self.regimes.items()}

    def _scores(self, regime: Regime) -> dict[tuple[str, str], MethodScore]:
        table = self.study.table
        # adjusted over the whole table, for a reader looks for the bold numbers in all of it
        tests = family_tests({
            (method, metric): contrast(table, metric, regime.arms[self.reference], regime.arms[method])
            for method in self.methods
            for metric in self.metrics
            if method != self.reference
        })  # fmt: skip
        found = {}
        for method in self.methods:
            for metric in (*self.metrics, "diversity"):
                own = table.finished(regime.arms[method], metric)
                found[method, metric] = MethodScore(
                    mean(list(own.values())), own, tests.get((method, metric))
                )
        return found

    @property
    def alpha(self) -> float:
        """The level of one verdict: alpha, shared out among all methods at both regimes."""
        return question_alpha(ALPHA, 2 * (len(self.methods) - 1))  # before the second has begun, too

    def verdict(self, regime: Regime, method: str) -> Judged | None:
        """Judge a method's error against the reference's as a study's questions are; None of the reference."""
        if method == self.reference:
            return None
        table = self.study.table
        found = contrast(table, ERROR.metric, regime.arms[self.reference], regime.arms[method])
        trivial = floors(self.study.baselines, ERROR.metric).values()
        arms = {arm for each in self.regimes.values() for arm in each.arms.values()}
        complete = all(len(table.scores(arm, ERROR.metric)) == len(self.study.of(arm)) for arm in arms)
        return judged(found, ERROR.sesoi, self.alpha, trivial, complete)

    def unfinished(self, regime: Regime) -> list[str]:
        """Every run that did not end well or whose sample images are damaged, as text."""
        given = ""
        if self.study.baselines.get(ERROR.if_diverged, {}).get(ERROR.metric) is not None:
            given = f", and given the score of “{spaced(ERROR.if_diverged)}” as declared"
        found = []
        for method, arm in regime.arms.items():
            for run in self.study.of(arm):
                if run.state != "finished":
                    found.append(f"{method}, seed {run.seed}: {run.state}{given * (run.state == 'diverged')}")
                if "samples.npz" in run.damaged:
                    found.append(f"{method}, seed {run.seed}: its images are damaged")
        return found + ["the true images: damaged"] * bool(self.study.damaged)

    def costs(self, regime: Regime, method: str) -> dict[str, float | None]:
        """What a method took, means over its finished seeds; `COST_NAMES` are the keys."""
        runs = self.study.finished(regime.arms[method])
        own = [{**run_costs(run), **self.study.costs.get(method, {})} for run in runs]
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
    compared = Comparison(study)
    return {
        "reference": compared.reference,
        "regimes": {
            name: {
                "title": regime.title,
                "budget_s": regime.budget_s,
                "unfinished": compared.unfinished(regime),
                "methods": {method: _results(compared, regime, method) for method in compared.methods},
            }
            for name, regime in compared.regimes.items()
        },
    }


def _results(compared: Comparison, regime: Regime, method: str) -> dict[str, Any]:
    judgement = compared.verdict(regime, method)
    return {
        "epochs": regime.epochs.get(method),
        "verdict": judgement and judgement.word.value,
        "scores": {
            metric: {
                "mean": each.mean,
                "by_seed": each.by_seed,
                "difference": each.test and each.test.numbers(),
            }
            for (name, metric), each in compared.scores[regime.name].items()
            if name == method and each.by_seed
        },
        "cost": compared.costs(regime, method),
    }


def quality_table(compared: Comparison, regime: Regime) -> list[list[TableCell]]:
    """One row a method, one column a metric, then the baselines; the header first."""
    found = compared.scores[regime.name]
    names = list(compared.metrics)
    names += ["diversity"] * any(found[method, "diversity"].by_seed for method in compared.methods)
    rows = [[TableCell(head) for head in ("", "error: verdict", *(column_head(name) for name in names))]]
    for name, method in compared.methods.items():
        title = TableCell(method.title, "reference" if name == compared.reference else "")
        cells = [_quality_cell(found[name, metric], metric) for metric in names]
        rows.append([title, verdict_cell(compared.verdict(regime, name)), *cells])
    for name, title in _BASELINES.items():
        if (row := compared.study.baselines.get(name)) is not None:
            known = flat_scores(row)
            cells = [TableCell(number(known.get(metric), _unit(metric))) for metric in names]
            rows.append([TableCell(title), TableCell(MISSING), *cells])
    return rows


def cost_table(compared: Comparison, regime: Regime) -> list[list[TableCell]]:
    """What each method took; ratios are to the reference, of the same table."""
    rows = [[TableCell(head) for head in _COST_HEADS]]
    known = {name: compared.costs(regime, name) for name in compared.methods}
    usual = known[compared.reference]
    for name, method in compared.methods.items():
        own, epochs = known[name], regime.epochs.get(name)
        count, seconds, parameters = own["images_seen"], own["train_s"], own["parameters"]
        rows.append([
            TableCell(method.title),
            TableCell(MISSING if epochs is None else " + ".join(f"{each}" for each in epochs if each)),
            TableCell(MISSING if count is None else f"{count:,.0f}"),
            TableCell(MISSING if seconds is None else f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.1f}"),
            *(_timed(own[each], usual[each]) for each in ("train_s_per_image", "predict_s_per_image")),
            TableCell(MISSING if parameters is None else f"{parameters / 1e6:.1f}"),
        ])  # fmt: skip
    return rows


def markdown_tables(study: Study) -> str:
    """All tables as GitHub's Markdown, a heading before each regime's two."""
    compared, parts = Comparison(study), []
    for regime in compared.regimes.values():
        budget = f" ({regime.budget_s:.0f} s)" if regime.budget_s else ""
        parts.append(f"### {regime.title.capitalize()}{budget}")
        parts += [_markdown(table(compared, regime)) for table in (quality_table, cost_table)]
        parts += [f"Not finished: {'; '.join(lost)}" for lost in [compared.unfinished(regime)] if lost]
    return "\n\n".join(parts) + "\n"


def _quality_cell(score: MethodScore, metric: str) -> TableCell:
    """A mean and below it its difference, with as many places, and its interval; `†`: over seeds alone."""
    unit = _unit(metric)
    if score.test is None:
        return TableCell(number(score.mean, unit))
    found, bounds, like = score.test.found, score.test.bounds, score.mean or 0.0
    ends = "no interval" if bounds.interval is None else ends_text(like, bounds.interval, unit)
    mark = "" if bounds.over == BOTH or bounds.interval is None else "†"
    below = f"{difference(like, like + found.estimate, unit)} ({ends}){mark}"
    return TableCell(number(score.mean, unit), below, score.test.is_clear)


def column_head(metric: str) -> str:
    """What stands over a metric's column or panel, where shares are shown in per cent."""
    own = METRICS[metric]
    return own.head.replace(own.short, f"{own.short}, %") if own.unit == "share" else own.head


def verdict_cell(found: Judged | None) -> TableCell:
    """A verdict; by the seeds alone it speaks of these test images and not of the method."""
    if found is None:
        return TableCell(MISSING)
    here = found.word != Word.NO_VERDICT and found.quoted is not None and found.quoted.over != BOTH
    return TableCell(found.word.value, "on these test images" if here else "")


def _unit(metric: str) -> str:
    return "share" if METRICS[metric].unit == "share" else ""


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
