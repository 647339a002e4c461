"""A plan: filled in from a preset, read back from its own YAML, and hashed over all that matters."""

import json

import pytest
import yaml

from knowhue.apps.settings import explain
from knowhue.config import Config
from knowhue.errors import ConfigError, RunError
from knowhue.plan import QUESTIONS, Plan, make_plan
from knowhue.presets import ARMS, STUDY_ARMS, checked, edit, read_yaml
from knowhue.study import _refuse_another_plan


def test_explained_plan_reads_back_to_the_same(tmp_path):
    plan = make_plan(edit(Config(), {"pictures": {"path": "p"}}), tuple(ARMS), range(3), [1, 100])
    (tmp_path / "study.yaml").write_text(explain(plan), encoding="utf-8")
    again = checked(Plan, read_yaml(tmp_path / "study.yaml"))
    assert again.hash == plan.hash
    assert list(again.arms) == list(plan.arms)


def test_short_study_file_takes_the_rest_from_the_defaults():
    plan = checked(Plan, yaml.safe_load("seeds: [4, 5]\nconfig: {pictures: {size_px: 32}}"))
    assert (plan.seeds, list(plan.arms), plan.config.pictures.size_px) == (
        (4, 5),
        ["colour", "class", "multi"],
        32,
    )
    assert plan.questions == QUESTIONS


@pytest.mark.parametrize(
    "change",
    [
        {"alpha": 0.01},
        {"seeds": [0, 1]},
        {"config": {"training": {"batch_size": 8}}},
        {"arms": {"colour": {"tasks": ["colour"]}}},
        {"questions": {"colour": {"metric": "ab_l1", "single": "colour", "sesoi": 1, "if_diverged": "gray"}}},
    ],
)
def test_hash_covers_what_runs_and_verdicts_depend_on(change):
    assert checked(Plan, change).hash != Plan().hash


def test_hash_leaves_the_evaluation_out():
    assert checked(Plan, {"config": {"evaluation": {"networks": []}}}).hash == Plan().hash


def test_grid_adds_an_arm_a_weight():
    plan = make_plan(Config(), task_weight_grid=[0.5, 100])
    assert list(plan.arms)[-2:] == ["multi-class0.5", "multi-class100"]
    config = plan.run_config("multi-class100", 7)
    assert (config.tasks.weights.class_, config.seed, config.tasks.names) == (100.0, 7, ("colour", "class"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seeds": []}, "`seeds` should be different whole numbers"),
        ({"alpha": 0.7}, "`alpha` should be less than 0.5"),
        ({"power": 0.8}, "`power` is not a setting"),
        ({"arms": {}}, "`arms` should have at least 1 item"),
        ({"arms": {"colour": {"tasks": ["colour"]}, "odd": {"batch": 3}}}, "`batch` is not a setting"),
        ({"arms": {"../x": {"tasks": ["colour"]}}}, "`arms` should be named"),
        ({"arms": {"heads": {"tasks": ["colour"]}}}, "`arms` should be named"),
    ],
)
def test_bad_plans_are_refused_by_name(values, message):
    with pytest.raises(ConfigError, match=message):
        checked(Plan, values)


@pytest.mark.parametrize("preset", STUDY_ARMS)
def test_arms_of_a_preset_are_arms(preset):
    plan = make_plan(Config(), STUDY_ARMS[preset])
    shares = {plan.run_config(arm, 0).supervision.labelled_share for arm in plan.arms}
    assert shares == {0.01, 0.05, 0.25, 1.0}


def test_gate_arm_has_both_tasks():
    assert make_plan(Config()).gate_arm == "multi"
    assert make_plan(Config(), ["colour"]).gate_arm is None


def test_arms_of_earlier_versions_are_read_in_todays_form():
    before = {"arms": {"multi": {"tasks": ["colour", "class"], "task_weights": {"class": 3.0}}}}
    now = {"arms": {"multi": {"tasks": {"names": ["colour", "class"], "weights": {"class": 3.0}}}}}
    assert checked(Plan, before) == checked(Plan, now)
    assert checked(Plan, before).hash == checked(Plan, now).hash


def test_a_study_frozen_by_an_earlier_version_goes_on(tmp_path):
    plan = make_plan(Config())
    frozen = plan.model_dump(mode="json") | {"created": "2026-01-01"}
    tasks = frozen["config"].pop("tasks")
    frozen["config"] |= {"tasks": tasks["names"], "task_weights": tasks["weights"]}
    frozen["config"]["training"]["aggregator"] = "sum"
    frozen["config"]["colour"] |= {"method": "gan", "decoder": "unet"}
    frozen["arms"] = {name: {"tasks": edits["tasks"]["names"]} for name, edits in frozen["arms"].items()}
    (tmp_path / "study.json").write_text(json.dumps(frozen))
    (tmp_path / "multi").mkdir()
    (tmp_path / "multi" / "environment.json").write_text("{}")
    _refuse_another_plan(plan, tmp_path)
    with pytest.raises(RunError, match=r"config\.tasks\.weights\.class would differ"):
        _refuse_another_plan(make_plan(edit(Config(), {"tasks": {"weights": {"class": 4.0}}})), tmp_path)
