"""A study of another version or with missing files is refused in one line."""

import shutil

import pytest
from synthetic_study import change, write_study

from knowhue.errors import DamagedError, RunError
from knowhue.report.reading import read_study
from knowhue.storage import write_json


@pytest.mark.parametrize(
    "edit", [lambda study: study.pop("schema"), lambda study: study["schema"].update(version=1)]
)
def test_a_study_of_another_version_is_refused(tmp_path, edit):
    write_study(tmp_path)
    change(tmp_path / "study.json", edit)
    with pytest.raises(
        RunError, match=r"study\.json: written by another version of knowhue.*Name another folder"
    ) as caught:
        read_study(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["baselines.json", "metrics.json", "images/prepared.json"])
def test_what_was_written_before_the_first_run_is_missed_where_there_is_one(tmp_path, name):
    write_study(tmp_path)
    (tmp_path / name).unlink()
    for lose in (lambda path: None, lambda path: write_json(path, {})):
        lose(tmp_path / name)
        with pytest.raises(DamagedError, match=rf"{name}` is damaged: it is missing, or empty"):
            read_study(tmp_path)
    for arm in ("class", "colour", "multi"):
        shutil.rmtree(tmp_path / arm)
    assert not read_study(tmp_path).finished("multi")
