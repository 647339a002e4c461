"""Studies of older versions are read too."""

from synthetic_study import change, write_study

from knowhue.report.reading import read_study


def test_arms_may_be_a_list(tmp_path):
    write_study(tmp_path)
    whole = read_study(tmp_path)
    change(tmp_path / "study.json", lambda study: study.update(arms=list(study["arms"])))
    again = read_study(tmp_path)
    assert list(again.runs) == list(whole.runs)
    assert all(run.finished for arm in again.runs for run in again.of(arm))
