"""Distances by pretrained networks, with all that they must be quoted with, and what was not computed."""

from collections.abc import Iterator, Mapping
from typing import Any

from knowhue.report.records import Study, spaced
from knowhue.report.tables import BASELINE_LABELS, number, with_spread
from knowhue.report.taught import sides

Entries = Mapping[str, Mapping[str, Any]]


def distance_table(study: Study) -> dict[str, Any]:
    """Return the distances of both arms beside the baselines, small-sample warnings, and provenance as text."""
    entries = _all(study)
    names = list(dict.fromkeys(name for each in entries for name, entry in each.items() if _has(entry)))
    baselines = {name: found for name, found in _of_baselines(study) if found}
    return {
        "baselines": [BASELINE_LABELS.get(name, spaced(name)) for name in baselines],
        "rows": [_row(study, name, entries, list(baselines.values())) for name in names],
        "warnings": _texts(entries, lambda entry: _sentence(entry.get("warning", ""))),
        "provenance": _texts(entries, _provenance),
    }


def not_computed(study: Study) -> list[tuple[str, str]]:
    """Return (title, reason) of what is in no run and no baseline."""
    entries = [*_all(study), *_perceptual(study)]
    found = {
        entry["title"]: str(entry.get("reason", "")).removeprefix("not computed: ")
        for each in entries
        for entry in each.values()
        if not _has(entry)
    }
    return list(found.items())


def perceptual_provenance(study: Study) -> list[str]:
    """Return what the perceptual distances of the score table must be quoted with, a sentence a network."""
    return _texts(_perceptual(study), _provenance)


def has_fid(study: Study) -> bool:
    """Whether an Inception distance is among the scores."""
    return "fid" in study.metrics or any(_has(each.get("fid", {})) for each in _all(study))


def _row(study: Study, name: str, entries: list[Entries], baselines: list[Entries]) -> dict[str, Any]:
    values = [
        [run.scores.get("distribution", {}).get(name, {}).get("value") for run in study.finished(arm)]
        for arm in sides(study, "colour")
    ]
    return {
        "title": next(each[name]["title"] for each in entries if name in each),
        "scores": [with_spread(side) for side in values],
        "baselines": [number(each.get(name, {}).get("value")) for each in baselines],
    }


def _all(study: Study) -> list[Entries]:
    """Return the distances of every finished run and of every baseline."""
    runs = [run.scores.get("distribution", {}) for arm in study.runs for run in study.finished(arm)]
    return [each for each in (*runs, *(found for _, found in _of_baselines(study))) if each]


def _perceptual(study: Study) -> list[Entries]:
    return [run.scores.get("perceptual", {}) for arm in study.runs for run in study.finished(arm)]


def _of_baselines(study: Study) -> Iterator[tuple[str, Any]]:
    for name, values in study.baselines.items():
        yield name, values.get("distribution") or {}


def _has(entry: Mapping[str, Any]) -> bool:
    return entry.get("value") is not None


def _texts(entries: list[Entries], say: Any) -> list[str]:
    """Return what an entry says, each text once, the entries without a value left out."""
    texts = [say(entry) for each in entries for entry in each.values() if _has(entry)]
    return [text for text in dict.fromkeys(texts) if text]


def _provenance(entry: Mapping[str, Any]) -> str:
    file = f", from {entry['file']}" if entry.get("file") else ""
    side = f" of {entry['size_px']} pixels a side" if entry.get("size_px") else ""
    against = f" against {entry['reference_images']}" if entry.get("reference_images") else ""
    return (
        f"{entry['network']}: weights {entry['weights']}{file}; {entry['resize']}; {entry['tool']}; "
        f"{entry['images']} images{side}{against}."
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""
