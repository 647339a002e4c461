"""What an arm of the plan is taught: its tasks, its share of labels, its placebo."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from knowhue.report.contrasts import questions
from knowhue.report.records import Study


def tasks(study: Study, arm: str) -> set[str]:
    """Return what an arm is trained on, by its edits, or the study's configuration where they do not say."""
    edited = (edits(study, arm).get("tasks") or {}).get("names")
    return set(edited or study.config("tasks", "names") or ("colour", "class"))


def labelled_share(study: Study, arm: str) -> float:
    """Return the share of class labels that an arm is trained with."""
    return float(_supervision(study, arm, "labelled_share") or 1.0)


def placebo(study: Study, arm: str) -> str | None:
    """Return which targets of an arm are a placebo, `labels` or `colours`; None for true ones."""
    found = _supervision(study, arm, "placebo")
    return None if found in (None, "none") else str(found)


def asked_of(study: Study, question: str, **arms: str) -> Study:
    """Return the study with a question asked of other arms: what is declared for diverged runs holds for them too.

    Args:
        study: as it was planned.
        question: one of its questions.
        arms: `single`, `multi` or both.
    """
    asked = {name: each.model_dump() for name, each in questions(study).items()}
    return replace(
        study, settings={**study.settings, "questions": asked | {question: asked[question] | arms}}
    )


def edits(study: Study, arm: str) -> Mapping[str, Any]:
    """Return the changes that make an arm from the study's configuration."""
    return study.settings.get("arms", {}).get(arm) or {}


def _supervision(study: Study, arm: str, key: str) -> Any:
    return (edits(study, arm).get("supervision") or {}).get(key, study.config("supervision", key))
