"""A plan can name its arms freely: the whole report follows its questions."""

import dataclasses
from pathlib import Path

import pytest
from synthetic_study import results_of, table_text, write_study

from knowhue.report.figures import FIGURES
from knowhue.report.integrity import warnings
from knowhue.report.page import write_report
from knowhue.report.reading import read_study
from knowhue.report.results import time_table
from knowhue.storage import read_json, write_json

NAMES = {"colour": "paint", "class": "name", "multi": "together"}


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("usual") / "demo", seeds=(0, 1, 2), gain=0.5)


@pytest.fixture(scope="module")
def renamed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same study, its three arms under other names."""
    folder = write_study(tmp_path_factory.mktemp("renamed") / "demo", seeds=(0, 1, 2), gain=0.5)
    for old, new in NAMES.items():
        (folder / old).rename(folder / new)
    plan = read_json(folder / "study.json")
    plan["arms"] = {NAMES[arm]: edits for arm, edits in plan["arms"].items()}
    for asked in plan["questions"].values():
        asked.update(single=NAMES[asked["single"]], multi=NAMES[asked["multi"]])
    write_json(folder / "study.json", plan)
    return folder


def test_answers_and_tests_are_the_same(usual: Path, renamed: Path):
    first, second = (results_of(read_study(folder)) for folder in (usual, renamed))
    assert second["answers"] == first["answers"]
    assert second["verdicts"] == first["verdicts"]
    assert second["secondary"] == first["secondary"]
    assert second["tests"]["colour"]["single"] == "paint"
    for name in ("differences", "quoted", "standard_deviations", "headroom", "needed_seeds"):
        assert second["tests"]["colour"][name] == first["tests"]["colour"][name]


def test_tables_are_the_same(usual: Path, renamed: Path):
    first, second = (read_study(folder) for folder in (usual, renamed))
    for name in ("colour_scores", "class_scores", "classes"):
        assert table_text(second, name) == table_text(first, name)
    assert time_table(second) == time_table(first)
    assert warnings(second) == warnings(first)


@pytest.mark.parametrize("name", [name for name, figure in FIGURES.items() if figure.rows])
def test_figures_have_the_same_numbers(name: str, usual: Path, renamed: Path):
    first, second = (FIGURES[name].rows(read_study(folder)) for folder in (usual, renamed))
    back = {new: old for old, new in NAMES.items()}
    if name == "forest":  # names in words: an arm that a user has named keeps its name
        first = [row | {"name": row["arm"]} for row in first]
    again = [{key: back.get(cell, cell) for key, cell in row.items()} for row in second]
    assert sorted(map(str, again)) == sorted(map(str, first))


def test_the_page_misses_nothing_that_the_usual_one_has(usual: Path, renamed: Path):
    first, second = (write_report(folder).read_text(encoding="utf-8") for folder in (usual, renamed))
    for missing in (
        "No finished run of this arm",
        "not\ntrained",
        "No run with this quantity",
        "No sample",
        "not stored",
    ):
        assert second.count(missing) == first.count(missing)
    assert "is not part of this study" not in second


def test_two_questions_may_have_multi_task_arms_of_their_own(usual: Path):
    study = read_study(usual)
    plan = {name: {**each} for name, each in study.settings["questions"].items()}
    plan["class"]["multi"] = "multi-class100"
    runs = {**study.runs, "multi-class100": study.runs["class"]}
    other = dataclasses.replace(study, settings={**study.settings, "questions": plan}, runs=runs)
    tests = results_of(other)["tests"]
    assert tests["class"]["differences"] == [0.0] * 3
    assert tests["colour"]["differences"] == results_of(study)["tests"]["colour"]["differences"]
