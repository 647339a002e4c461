"""What a reader must know before trusting a number: runs that are not whole, and what training warned of."""

from collections.abc import Sequence

from knowhue.report.blocks import seeds_text, span
from knowhue.report.contrasts import questions
from knowhue.report.gradients import gradient_warnings
from knowhue.report.matched import metric_label
from knowhue.report.records import Run, Study, spaced
from knowhue.report.secondary import metric_names
from knowhue.report.tables import number
from knowhue.report.taught import arm_label, sides
from knowhue.report.verdicts import beaten, levels


def warnings(study: Study) -> list[tuple[str, str]]:
    """Return (who, what), the most serious first: what is damaged or not whole, then what was not learnt."""
    return (
        [(f"Seed {seed}", f"is not compared: {why}.") for seed, why in study.faults.items()]
        + [(name, _DAMAGED) for name in study.damaged]
        + [each for arm in study.runs for run in study.of(arm) for each in _not_whole(study, run)]
        + _worse_than_trivial(study)
        + [(f"{arm_label(study, arm)}, {who}", what)
           for arm in study.runs for who, what in _log_warnings(study.of(arm))]
        + gradient_warnings(study)
        + [(title, "is not asked: its arms are not part of this study.")
           for name, title in _TASKS.items() if name not in questions(study)]
    )  # fmt: skip


def _not_whole(study: Study, run: Run) -> list[tuple[str, str]]:
    label = f"{arm_label(study, run.arm)}, seed {run.seed}"
    found = [(label, _OTHER_SETTINGS)] if not run.same_settings else []
    found += [(label, _STATES.get(run.state, run.state))] if not run.finished else []
    return found + [(f"{label}, {name}", _DAMAGED) for name in run.damaged]


def _worse_than_trivial(study: Study) -> list[tuple[str, str]]:
    """Name every metric in which an arm of a question is no better than what is had without a model, once each."""
    rows = []
    for question in questions(study):
        arms = sides(study, question)
        for metric in dict.fromkeys(name for arm in arms for name in metric_names(study, arm)):
            about = study.metrics.get(metric, {})
            if about.get("better") not in ("lower", "higher") or about.get("task", question) != question:
                continue
            scores, unit = levels(study, metric, arms), about.get("unit", "")
            losers = beaten(study, metric, scores)
            if losers:
                names = " and ".join(
                    f"{('single-task', 'multi-task')[place]} {number(scores[place], unit)}"
                    for place in losers
                )
                floors = dict.fromkeys(name for each in losers.values() for name in each)
                trivial = ", ".join(
                    f"{spaced(name)} {number(study.baselines[name].get(metric), unit)}" for name in floors
                )
                rows.append(
                    (metric_label(study, metric), f"{names} no better than a trivial baseline ({trivial}).")
                )
    return rows


_TASKS = {"colour": "The question about colouring", "class": "The question about classification"}
_OTHER_SETTINGS = "was made with other settings than this study's; train it again."
_DAMAGED = "is damaged: what is drawn from it is left out. The study's command makes it anew."
_STATES = {
    "running": "is not finished: its curves are shown, its scores are not used.",
    "missing": "was not started.",
    "unpaired": "is not used: its block is not compared.",
    "diverged": "diverged: its losses ceased to be numbers; its scores are not used.",
}


def _log_warnings(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Join a warning that comes back epoch by epoch and seed by seed into one, in its last words."""
    found: dict[str, list[tuple[int, int, str]]] = {}
    for run in runs:
        for line in run.log:
            for text in line.get("warnings") or ():
                found.setdefault(text.split(":")[0], []).append((run.seed, line.get("epoch", 0), text))
    return [
        (
            seeds_text([seed for seed, _, _ in each]),
            f"{span([at for _, at, _ in each], 'epoch ', 'epochs ')}: {each[-1][2]}",
        )
        for each in found.values()
    ]
