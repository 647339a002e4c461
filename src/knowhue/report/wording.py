"""How a question is asked and its sides are called: by the tasks of a study, or by the arms of anybody's table."""

from collections.abc import Mapping
from dataclasses import dataclass

from knowhue.report.study import TASK_TITLES, Study
from knowhue.report.text import spaced


@dataclass(frozen=True)
class Wording:
    """What sentences and figures call the two sides of a question, and what they claim of them.

    Attributes:
        question: as it is asked.
        title: of the question, short.
        single: the arm before, short, and `multi` the one that is held against it.
        single_model: the arm before as the subject of a sentence, and `multi_model`.
        claims: what is said of the method, by direction (`helps`, `hurts`).
        same: what is said of the method where no difference matters.
        claims_here: what is said of these models, without scores of single images; `same_here` likewise.
    """

    question: str
    title: str
    single: str
    multi: str
    single_model: str
    multi_model: str
    claims: Mapping[str, str]
    same: str
    claims_here: Mapping[str, str]
    same_here: str


_SIDES = {"helps": "better", "hurts": "worse"}


def _of_task(task: str, question: str, does: str, doing: str) -> Wording:
    return Wording(
        question,
        TASK_TITLES[task],
        "single-task",
        "multi-task",
        "the single-task model",
        "the multi-task model",
        {direction: f"Multi-task training {direction} {does}" for direction in _SIDES},
        f"Multi-task training makes no difference that matters to {does}",
        {direction: f"the multi-task models are {side} {doing}" for direction, side in _SIDES.items()},
        f"the arms differ {doing} by less than what matters",
    )


WORDINGS = {
    "colour": _of_task(
        "colour", "Is colouring easier for a model that also learns to classify?", "colouring", "at colouring"
    ),
    "class": _of_task(
        "class",
        "Is classifying easier for a model that also learns to colour?",
        "classification",
        "at classifying",
    ),
}


def wording(study: Study, question: str) -> Wording:
    """How a question of a study is worded; of a table by the names of its arms and of the metric."""
    if not study.is_table:
        return WORDINGS[question]
    asked = study.questions[question]
    before, after = f"“{asked.single}”", f"“{asked.multi}”"
    title = str(study.metrics.get(asked.metric, {}).get("title") or spaced(asked.metric))
    # PSNR stays as it is
    metric = title if title[1:2].isupper() else title[:1].lower() + title[1:]
    return Wording(
        f"Is {after} better than {before} in {metric}?",
        f"{title}: {asked.multi} against {asked.single}",
        asked.single,
        asked.multi,
        before,
        after,
        {direction: f"{after} is {side} than {before} in {metric}" for direction, side in _SIDES.items()},
        f"Between {after} and {before} there is no difference in {metric} that matters",
        {
            direction: f"the models of {after} are {side} in {metric} than those of {before}"
            for direction, side in _SIDES.items()
        },
        f"the models of {after} and of {before} differ in {metric} by less than what matters",
    )
