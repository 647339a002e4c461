"""What is logged of a run: all that its folder says, once, by epoch."""

import pytest
from logged_study import HASH, entry, write_logged_study, write_run

from knowhue.errors import DamagedError, RunError
from knowhue.report.trackers import LoggedNumber, read_logged
from knowhue.runs import read_config, read_log, write_log


def test_all_of_a_study_or_a_single_run_with_what_it_is(tmp_path):
    runs = read_logged(write_logged_study(tmp_path / "study"))
    assert [each.name for each in runs] == ["colour/seed-0-0011aabb", "multi/seed-0-0011aabb"]
    (alone,) = read_logged(tmp_path / "study" / "multi" / "seed-0-0011aabb")
    assert alone == runs[1]
    assert alone.study == "photos"
    assert alone.tags == {"arm": "multi", "seed": "0", "state": "finished", "plan": HASH, "split": "test"}
    assert len({each.key for each in runs}) == 2


def test_every_setting_is_a_parameter_by_the_name_that_set_takes(tmp_path):
    folder = write_run(tmp_path, "colour", 3)
    (run,) = read_logged(folder)
    assert run.parameters["training.batch_size"] == 64
    assert run.parameters["seed"] == 3
    assert run.parameters["tasks.names"] == "['colour']"
    assert run.parameters["colour.width"] == read_config(folder).colour.width
    assert "training.cache_gib" not in run.parameters  # how much disk it may use is no part of a run


def test_numbers_stand_at_their_epoch_and_diagnostics_at_their_step(tmp_path):
    folder = write_run(tmp_path, "multi", 0, epochs=2)
    (run,) = read_logged(folder)
    assert [each for each in run.points if each.metric == "validation/ab_l1"] == [
        LoggedNumber("validation/ab_l1", 1, 5.0, 19.0),
        LoggedNumber("validation/ab_l1", 2, 10.0, 18.0),
    ]
    assert [each for each in run.points if each.metric.startswith("diagnostics/")] == [
        LoggedNumber("diagnostics/cosine_colour", 10, 5.0, 0.5),
        LoggedNumber("diagnostics/cosine_colour", 15, 7.0, -0.5),
    ]
    assert {each.metric for each in run.points} == {
        "train/l1", "validation/ab_l1", "speed/seconds", "speed/images_per_second", "diagnostics/cosine_colour",
    }  # fmt: skip
    assert (run.scores, run.last_step) == ({"ab_l1": 12.25}, 2)
    assert run.began == pytest.approx((folder / "log.jsonl").stat().st_mtime - 10)


def test_a_run_that_goes_on_keeps_its_key_and_has_other_content(tmp_path):
    folder = write_run(tmp_path, "colour", 0, epochs=1, state="running")
    (before,) = read_logged(folder)
    assert before.tags["state"] == "running"
    assert before.scores == {}
    write_log(folder, [*read_log(folder), entry(2)])
    (after,) = read_logged(folder)
    assert (before.key, before.content != after.content) == (after.key, True)


def test_dates_are_no_content(tmp_path):
    folder = write_run(tmp_path, "colour", 0)
    (before,) = read_logged(folder)
    (folder / "log.jsonl").touch()
    (after,) = read_logged(folder)
    assert before.content == after.content


def test_what_is_no_run_or_damaged_is_refused(tmp_path):
    with pytest.raises(RunError, match="Found no run that has begun"):
        read_logged(tmp_path / "nowhere")
    folder = write_run(tmp_path, "colour", 0)
    (folder / "log.jsonl").write_text("{}\n")
    with pytest.raises(DamagedError, match=r"log\.jsonl"):
        read_logged(tmp_path)
