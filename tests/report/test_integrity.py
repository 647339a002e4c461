"""The runs are compared with the frozen plan."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from synthetic_study import change, run_of, table_text, write_study

from knowhue.errors import ConfigError
from knowhue.report.integrity import cells_sentence, plan_sentence
from knowhue.report.reading import read_study


def test_an_untouched_plan_is_intact(one_seed: Path):
    study = read_study(one_seed)
    said = f"The plan is as it was frozen on 2026-11-23T01:00:00Z: its SHA-256 is {study.settings['hash']}."
    assert plan_sentence(study) == said


@pytest.mark.parametrize(
    "edit",
    [
        lambda plan: plan["questions"]["colour"].update(sesoi=0.01),
        lambda plan: plan["config"]["training"].update(batch_size=16),
        lambda plan: plan.update(seeds=[0, 1]),
        lambda plan: plan["arms"].update(more={"tasks": {"names": ["class"]}}),
        lambda plan: plan.update(alpha=0.1),
        lambda plan: plan.update(hash="00000000"),
        lambda plan: plan["config"]["evaluation"].update(networks=[]),
        lambda plan: plan["parts"].update(encoder_weights={}),
        lambda plan: plan["parts"].update(images="11111111"),
    ],
    ids=[
        "question",
        "setting",
        "seeds",
        "arm",
        "alpha",
        "hash",
        "evaluation",
        "weights",
        "images",
    ],
)
def test_a_change_after_freezing_is_said(tmp_path: Path, edit: Any):
    write_study(tmp_path)
    change(tmp_path / "study.json", edit)
    said = plan_sentence(read_study(tmp_path))
    assert said.startswith("study.json was changed after it was frozen: its plan has the hash ")


def test_the_description_and_the_disk_to_use_may_change(tmp_path: Path):
    write_study(tmp_path)
    change(tmp_path / "study.json", lambda plan: plan["config"]["training"].update(cache_gib=0))
    change(tmp_path / "study.json", lambda plan: plan.update(name="another"))
    assert plan_sentence(read_study(tmp_path)).startswith("The plan is as it was frozen")


def test_other_images_than_those_frozen_are_said(tmp_path: Path):
    write_study(tmp_path)
    change(tmp_path / "images" / "prepared.json", lambda prepared: prepared.update(fingerprint="11111111"))
    assert "not those that the plan was frozen with" in plan_sentence(read_study(tmp_path))


def test_what_cannot_be_checked_is_said(tmp_path: Path):
    write_study(tmp_path)
    change(tmp_path / "study.json", lambda plan: plan.pop("hash"))
    assert "has no hash" in plan_sentence(read_study(tmp_path))


def test_cells_are_counted_by_state(tmp_path: Path):
    write_study(tmp_path, seeds=(0, 1, 2))
    change(run_of(tmp_path, "multi", 0) / "status.json", lambda status: status.update(state="diverged"))
    (run_of(tmp_path, "multi", 1) / "status.json").unlink()
    shutil.rmtree(run_of(tmp_path, "multi", 2))
    data = read_study(tmp_path)
    said = "Planned: 9 runs (3 arms, 3 seeds); 6 finished, 1 diverged, 1 not finished, 1 not started."
    assert cells_sentence(data) == said


def test_runs_of_other_settings_are_no_finished_cells(tmp_path: Path):
    write_study(tmp_path)
    change(tmp_path / "study.json", lambda plan: plan["config"]["training"].update(batch_size=16))
    said = "Planned: 3 runs (3 arms, 1 seed); 0 finished, 3 run with other settings."
    assert cells_sentence(read_study(tmp_path)) == said


def test_a_study_as_planned_has_nothing_exploratory(one_seed: Path):
    assert read_study(one_seed).exploratory == ()
    assert len(table_text(read_study(one_seed), "exploratory")) == 1


def test_runs_nobody_planned_are_exploratory(tmp_path: Path):
    write_study(tmp_path)
    planned = run_of(tmp_path, "multi")
    for place in (
        "multi/seed-0-ffffffff",
        "multi/seed-5-ffffffff",
        "later/seed-0-ffffffff",
        "heads/seed-0-ffffffff",
    ):
        shutil.copytree(planned, tmp_path / place)
    (tmp_path / "later" / "seed-0-ffffffff" / "status.json").unlink()
    (tmp_path / "later" / "seed-0-ffffffff" / "scores.json").unlink()
    (tmp_path / "later" / "seed-notes").mkdir()
    data = read_study(tmp_path)
    found = data.exploratory
    assert [tuple(each.values())[:4] for each in found] == [
        ("later", 0, "seed-0-ffffffff", "running"),
        ("multi", 0, "seed-0-ffffffff", "finished"),
        ("multi", 5, "seed-5-ffffffff", "finished"),
    ]
    assert found[1]["metrics"]["ab_l1"] == data.runs["multi"][0].metric("ab_l1")
    first, second, _ = table_text(data, "exploratory")[1:]
    assert first[-1] == ""
    assert second[-1].startswith("Mean absolute error of a*b*, CIELAB units 11.")
    assert "; Balanced accuracy, % 82." in second[-1]


def test_a_plan_of_another_version_is_refused_in_one_line(tmp_path: Path):
    write_study(tmp_path)
    change(tmp_path / "study.json", lambda plan: plan["config"].update(of_another_version=1))
    with pytest.raises(ConfigError, match=r"`config\.of_another_version` is not a setting") as caught:
        read_study(tmp_path)
    assert "\n" not in str(caught.value)
