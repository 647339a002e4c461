"""A study of another version is refused in one line."""

import pytest
from synthetic_study import change, write_study

from knowhue.errors import RunError
from knowhue.report.reading import read_study


@pytest.mark.parametrize(
    "edit", [lambda study: study.pop("schema"), lambda study: study["schema"].update(version=1)]
)
def test_a_study_of_another_version_is_refused(tmp_path, edit):
    write_study(tmp_path)
    change(tmp_path / "study.json", edit)
    with pytest.raises(
        RunError, match=r"study\.json: written by another version of knowhue.*--out"
    ) as caught:
        read_study(tmp_path)
    assert "\n" not in str(caught.value)
