"""The arms of a plan: which of them a question compares, what they are taught, and what they are called."""

import re
from dataclasses import replace
from typing import Any, NamedTuple

from knowhue.report.study import Study

TASK_TITLES = {"colour": "Colouring", "class": "Classification"}
_NAMES = {
    "multi": "multi-task",
    "placebo-labels": "placebo: shuffled labels",
    "placebo-colours": "placebo: another image's colours",
    "multi-pcgrad": "multi-task, PCGrad",
    "oracle": "oracle: true class given",
}
_PATTERNS = {
    r"multi-class(.+)": r"multi-task, class weight \1",
    r"multi-labels(.+)": r"multi-task, \1 % of the labels",
}


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


def multi_arms(study: Study) -> list[str]:
    """Return the arms that the questions ask about, each once."""
    return list(dict.fromkeys(asked.multi for asked in study.questions.values()))


def arm_label(study: Study, arm: str) -> str:
    """Return an arm by its part in the questions, or else in words."""
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
    found = (re.sub(pattern, text, arm) for pattern, text in _PATTERNS.items() if re.fullmatch(pattern, arm))
    return _NAMES.get(arm) or next(found, arm)


def tasks(study: Study, arm: str) -> set[str]:
    """Return what an arm is trained on, by its edits, or the study's configuration where they do not say."""
    return set(_setting(study, arm, "tasks", "names") or ("colour", "class"))


def labelled_share(study: Study, arm: str) -> float:
    """Return the share of class labels that an arm is trained with."""
    return float(_setting(study, arm, "supervision", "labelled_share") or 1.0)


def placebo(study: Study, arm: str) -> str | None:
    """Return which targets of an arm are a placebo, `labels` or `colours`; None for true ones."""
    found = _setting(study, arm, "supervision", "placebo")
    return None if found in (None, "none") else str(found)


def is_oracle(study: Study, arm: str) -> bool:
    """Return whether an arm colours with the true class given."""
    return bool(_setting(study, arm, "colour", "oracle")) and "colour" in tasks(study, arm)


def asked_of(study: Study, question: str, **arms: str) -> Study:
    """Return the study with a question asked of other arms: what is declared for diverged runs holds for them too.

    Args:
        study: as it was planned.
        question: one of its questions.
        arms: `single`, `multi` or both.
    """
    # in a copy, so that whoever reads the study sees the same question
    asked = {name: each.model_dump() for name, each in study.questions.items()}
    return replace(
        study, settings={**study.settings, "questions": asked | {question: asked[question] | arms}}
    )


def _setting(study: Study, arm: str, section: str, key: str) -> Any:
    """Return a setting as an arm changes it, or the study's own where it does not."""
    edits = study.arms.get(arm) or {}
    return (edits.get(section) or {}).get(key, study.config(section, key))
