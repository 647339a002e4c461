"""Plans: filled in from a preset, read back from YAML, and hashed over everything that matters."""

import itertools
import shutil

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from knowhue import plan as plan_module
from knowhue.apps.planning import commented_yaml
from knowhue.config import Config
from knowhue.errors import ConfigError, RunError
from knowhue.metric_table import LOWER_IS_BETTER, METRIC_NAMES, METRICS, RUN_METRICS, SHARES
from knowhue.plan import (
    CLOCK,
    QUESTIONS,
    Plan,
    check_new_plan,
    make_comparison,
    make_plan,
    plan_of,
    read_cells,
    read_plan,
)
from knowhue.presets import ARMS, METHODS, checked, edit, load_config, read_yaml
from knowhue.runs import OTHER_SETTINGS, run_folder, write_config, write_log
from knowhue.storage import write_json
from knowhue.study import freeze

PARTS = {"images": "0a1b2c3d", "encoder_weights": {"resnet18 pretrained": "0123abcd"}}
SMOOTHED = {"label_smoothing": 0.1}


def test_explained_plan_reads_back_to_the_same(tmp_path):
    plan = make_plan(edit(Config(), {"images": {"path": "p"}}), tuple(ARMS), range(3), [1, 100])
    (tmp_path / "study.yaml").write_text("\n".join(commented_yaml(plan)), encoding="utf-8")
    again = checked(Plan, read_yaml(tmp_path / "study.yaml"))
    assert again.hash(PARTS) == plan.hash(PARTS)
    assert list(again.arms) == list(plan.arms)


def test_short_study_file_takes_the_rest_from_the_defaults():
    plan = checked(Plan, yaml.safe_load("seeds: [4, 5]\nconfig: {images: {size_px: 32}}"))
    assert (plan.seeds, list(plan.arms), plan.config.images.size_px) == (
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
        {"arms": {"colour": {"tasks": {"names": ["colour"]}}}},
        {"config": {"evaluation": {"networks": []}}},
        {"questions": {"colour": {"metric": "ab_l1", "single": "colour", "sesoi": 1, "if_diverged": "gray"}}},
    ],
)
def test_hash_covers_what_runs_and_verdicts_depend_on(change):
    assert checked(Plan, change).hash(PARTS) != Plan().hash(PARTS)
    assert len(Plan().hash(PARTS)) == 64


@pytest.mark.parametrize("part", PARTS)
def test_hash_covers_what_is_asked_of(part):
    assert Plan().hash(PARTS | {part: "other"}) != Plan().hash(PARTS)


def test_hash_leaves_out_how_much_disk_is_used():
    assert checked(Plan, {"config": {"training": {"cache_gib": 0}}}).hash(PARTS) == Plan().hash(PARTS)


def test_hash_covers_what_an_arm_comes_to(monkeypatch):
    """If the same edits give other runs in a later version, it is another study."""
    before = Plan().hash(PARTS)
    monkeypatch.setattr(
        plan_module.presets, "edit", lambda config, changes: edit(edit(config, changes), {"class": SMOOTHED})
    )
    assert Plan().hash(PARTS) != before


COLOUR = {"metric": "ab_l1", "single": "colour", "sesoi": 0.25, "if_diverged": "gray"}
CLASS = {"metric": "balanced_accuracy", "single": "class", "sesoi": 0.01, "if_diverged": "majority_class"}


@pytest.mark.parametrize(
    ("question", "change", "message"),
    [
        (
            "colour",
            {"metric": "nonsense"},
            r"`questions\.colour\.metric` should be one of ab_l1, .*`.* = nonsense`",
        ),
        ("colour", {"metric": "balanced_accuracy"}, r"`questions\.colour\.metric` should be one of ab_l1, "),
        ("colour", {"metric": "chroma_ratio"}, r"`questions\.colour\.metric` should be one of"),
        (
            "class",
            {"secondary": ["cross_entropy", "psnr"]},
            r"`questions\.class\.secondary` should be .* = psnr`",
        ),
        (
            "class",
            {"secondary": ["cross_entropy", "cross_entropy"]},
            r"`questions\.class\.secondary` should be other metrics than `questions\.class\.metric`, each once",
        ),
        ("colour", {"secondary": ["ab_l1"]}, r"`questions\.colour\.secondary` should be other metrics"),
        (
            "colour",
            {"if_diverged": "nope"},
            r"should be one of gray, mean_colour, median_colour\. Found `.* = nope`",
        ),
        (
            "class",
            {"if_diverged": "gray"},
            r"`questions\.class\.if_diverged` should be one of majority_class",
        ),
        (
            "colour",
            {"single": "colours"},
            r"`questions\.colour\.single` should be one of colour, multi\. ",
        ),
        ("colour", {"multi": "both"}, r"`questions\.colour\.multi` should be one of colour, multi\. "),
        ("colour", {"single": "multi"}, r"`questions\.colour\.multi` should be another arm than `single`"),
        (
            "colour",
            {"single": "class"},
            r"`questions\.colour\.single` should be one of colour, multi\. Found .* = class",
        ),
        (
            "class",
            {"multi": "colour"},
            r"`questions\.class\.multi` should be one of class, multi\. Found .* = colour",
        ),
        ("class", {"sesoi": 1}, r"`questions\.class\.sesoi` should be a share, such as 0\.01 for one point"),
        ("colour", {"sesoi": 0}, r"`questions\.colour\.sesoi` should be greater than 0"),
        ("colour", {"sesoi": float("nan")}, r"`questions\.colour\.sesoi` should be"),
    ],
)
def test_questions_that_cannot_be_answered_are_refused_before_anything_trains(question, change, message):
    asked = {"colour": COLOUR, "class": CLASS}
    with pytest.raises(ConfigError, match=message):
        checked(Plan, {"questions": asked | {question: asked[question] | change}})


def test_a_plan_asks_by_default_what_its_arms_can_answer():
    assert set(make_plan(Config(), ["colour", "multi"]).questions) == {"colour"}
    assert make_plan(Config(), ["colour"]).questions == {}
    assert make_plan(Config()).questions == QUESTIONS


def test_arms_of_questions_may_have_any_name():
    arms = {"paint": {"tasks": {"names": ["colour"]}}, "together": {"tasks": {"names": ["colour", "class"]}}}
    plan = checked(
        Plan, {"arms": arms, "questions": {"colour": COLOUR | {"single": "paint", "multi": "together"}}}
    )
    assert plan.questions["colour"].multi == "together"


def test_the_names_that_questions_may_use_are_those_of_the_evaluation():
    for task, names in METRIC_NAMES.items():
        known = {name for name, each in RUN_METRICS.items() if each.task == task and each.better != "neither"}
        assert set(names) - {"recognition"} == known
        assert {name for name in known if METRICS[name].better == "lower"} == known & set(LOWER_IS_BETTER)
    assert {name for name in METRICS if METRICS[name].unit == "share"} == set(SHARES)


def test_grid_adds_an_arm_a_weight():
    plan = make_plan(Config(), task_weight_grid=[0.5, 100])
    assert list(plan.arms)[-2:] == ["multi-class0.5", "multi-class100"]
    config = plan.run_config("multi-class100", 7)
    assert (config.tasks.weights.class_, config.seed, config.tasks.names) == (100.0, 7, ("colour", "class"))


@pytest.mark.parametrize(
    ("grid", "found"), [([5, 5.0], "5,5"), ([1, 1.0000001], "1,1.0000001"), ([10.0], "10")]
)
def test_weights_of_a_grid_that_would_be_one_arm_are_refused(grid, found):
    with pytest.raises(
        ConfigError, match=rf"`task_weight_grid` should be weights that differ .*`task_weight_grid = {found}`"
    ):
        make_plan(Config(), task_weight_grid=grid)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seeds": []}, r"`seeds` should be one whole number at least. Found `seeds = \[\]`"),
        ({"seeds": [1, 1]}, r"`seeds` should be different whole numbers. Found `seeds = \[1, 1\]`"),
        ({"alpha": 0.7}, "`alpha` should be less than 0.5"),
        ({"power": 0.8}, "`power` is not a setting. `knowhue plan` prints them all."),
        ({"arms": {}}, "`arms` should have at least 1 item"),
        (
            {"arms": {"colour": {"tasks": {"names": ["colour"]}}, "odd": {"batch": 3}}},
            "`batch` is not a setting",
        ),
        ({"arms": {"../x": {"tasks": {"names": ["colour"]}}}}, "`arms` should be named"),
        ({"arms": {"heads": {"tasks": {"names": ["colour"]}}}}, "`arms` should be named"),
        ({"arms": {"multi": {"images": {"size_px": 32}}}}, "arm `multi` should leave images"),
        ({"arms": {"multi": {"training": {"precision": "float32"}}}}, "arm `multi` should leave images"),
        (
            {"arms": {"multi": {"evaluation": {"split": "validation"}}}},
            "should leave images, precision and",
        ),
        ({"config": {"arms": ["colour"]}}, "`config.arms` should be left out of a study file"),
    ],
)
def test_bad_plans_are_refused_by_name(values, message):
    with pytest.raises(ConfigError, match=message):
        checked(Plan, values)


def test_a_preset_brings_its_arms_to_python_too():
    few = make_plan(edit(load_config("label-fraction"), {"images": {"path": "p"}}))
    shares = {few.run_config(arm, 0).supervision.labelled_share for arm in few.arms}
    assert (len(few.arms), shares) == (9, {0.01, 0.05, 0.25, 1.0})
    assert few.config.arms == Config().arms
    assert list(make_plan(load_config("label-fraction"), ["colour"]).arms) == ["colour"]
    assert list(make_plan(load_config("poster")).arms) == ["colour", "class", "multi"]


def test_a_plan_holds_the_precision_that_was_resolved():
    assert Plan().computed_in("bfloat16").config.training.precision == "bfloat16"
    assert Plan().computed_in("bfloat16").hash(PARTS) != Plan().computed_in("float32").hash(PARTS)


def test_gate_arm_has_both_tasks():
    assert make_plan(Config()).gate_arm == "multi"
    assert make_plan(Config(), ["colour"]).gate_arm is None


def test_seeds_that_tuned_do_not_report():
    with pytest.raises(
        ConfigError, match=r"should not include `tuned_on_seeds`.*\. Found 2, 3 in both\. .*seed=4"
    ):
        make_plan(Config(), seeds=(2, 3, 9), tuned_on_seeds=(1, 2, 3))
    assert make_plan(Config(), seeds=(4, 5), tuned_on_seeds=(1, 2, 3)).tuned_on_seeds == (1, 2, 3)


def test_tuning_study_scores_the_validation_split():
    plan = make_plan(Config(), is_tuning=True)
    assert (plan.purpose, plan.config.evaluation.split) == ("tuning", "validation")
    assert plan.run_config("multi", 0).evaluation.split == "validation"


def test_study_that_reports_cannot_leave_the_test_split_out():
    config = edit(Config(), {"evaluation": {"split": "validation"}})
    with pytest.raises(
        ConfigError, match=r"evaluation\.split` should be auto where `purpose = report`.*--tuning"
    ):
        make_plan(config)


@pytest.fixture
def plan(tiny):
    return make_plan(tiny(), ["colour", "multi"], [0, 3])


def begin(root, plan, arm, seed, state, epochs):
    folder = run_folder(root, arm, plan.run_config(arm, seed))
    write_json(folder / "status.json", {"state": state, "seconds": {"evaluate": 1.5}})
    write_log(folder, [{"phase": "finetune", "epoch": 3 + n, "seconds": 2.0} for n in range(epochs)])


def test_cells_say_how_far_they_are(plan, tmp_path):
    freeze(plan, tmp_path, {}, {"images": "0a1b2c3d", "encoder_weights": {}})
    begin(tmp_path, plan, "colour", 0, "finished", 2)
    begin(tmp_path, plan, "multi", 3, "running", 1)
    cells = {(cell.arm, cell.seed): cell for cell in read_cells(tmp_path, read_plan(tmp_path))}
    assert list(cells) == [("colour", 0), ("multi", 0), ("colour", 3), ("multi", 3)]
    assert cells["colour", 0][2:] == ("finished", 4, 4, 5.5)
    assert cells["multi", 3][2:5] == ("running", 3, 4)
    assert cells["multi", 0][2:] == ("missing", 0, 4, 0)


def test_a_run_in_the_folder_of_another_has_not_ended(plan, tmp_path):
    freeze(plan, tmp_path, {}, {"images": "0a1b2c3d", "encoder_weights": {}})
    for seed in plan.seeds:
        begin(tmp_path, plan, "colour", seed, "finished", 2)
        config = plan.run_config("colour", seed)
        write_config(run_folder(tmp_path, "colour", config), config)
    first, second = (run_folder(tmp_path, "colour", plan.run_config("colour", seed)) for seed in plan.seeds)
    shutil.copyfile(first / "config.json", second / "config.json")
    states = {(cell.arm, cell.seed): cell.state for cell in read_cells(tmp_path, plan)}
    assert (states["colour", 0], states["colour", 3]) == ("finished", OTHER_SETTINGS)


def test_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"should be the folder of a study.* Found no study\.json there\.$"):
        read_plan(tmp_path)


SEEDS = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=3, unique=True)


@settings(max_examples=8)
@given(
    arms=st.lists(st.sampled_from(sorted(ARMS)), min_size=1, max_size=4, unique=True),
    seeds=SEEDS,
    grid=st.lists(st.floats(0.001, 1e6), max_size=2, unique_by=lambda weight: f"{weight:g}"),
    is_tuning=st.booleans(),
)
def test_any_design_is_a_plan_that_reads_back(arms, seeds, grid, is_tuning):
    plan = make_plan(Config(), arms, seeds, grid, is_tuning)
    assert plan.cells == [(arm, seed) for seed, arm in itertools.product(seeds, plan.arms)]
    assert list(plan.arms)[: len(arms)] == arms
    assert len(plan.arms) == len(arms) + len(grid)
    assert {task for task, asked in QUESTIONS.items() if {asked.single, asked.multi} <= set(arms)} == set(
        plan.questions
    )
    again = plan_of({**plan.model_dump(mode="json"), "hash": "of what else stands in study.json"})
    assert again.model_dump(mode="json") == plan.model_dump(mode="json")
    assert again.hash(PARTS) == plan.hash(PARTS)
    for arm, seed in plan.cells[:3]:
        assert plan.run_config(arm, seed) == edit(plan.arm_settings(arm), {"seed": seed})


@settings(max_examples=5)
@given(seeds=SEEDS, other=SEEDS)
def test_other_seeds_or_another_order_of_them_are_another_plan(seeds, other):
    one, two = (make_plan(Config(), ["colour"], each).hash(PARTS) for each in (seeds, other))
    assert (one == two) is (seeds == other)


@settings(max_examples=5)
@given(
    methods=st.lists(st.sampled_from(sorted(METHODS)), min_size=2, max_size=3, unique=True),
    epochs=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=3, max_size=3),
)
def test_arms_at_equal_wall_clock_are_no_part_of_the_frozen_plan(methods, epochs):
    plan = make_comparison(Config(), methods, seeds=[0])
    assert plan.reference == ("gan" if "gan" in methods else methods[0])
    longer = plan.at_equal_wall_clock(dict(zip(methods, epochs, strict=False)))
    assert longer.planned_arms == plan.planned_arms == methods
    assert (longer.frozen, longer.hash(PARTS)) == (plan.frozen, plan.hash(PARTS))
    for method, (heads, tuned) in zip(methods, epochs, strict=False):
        is_other = (heads, tuned) != plan.epochs(method)
        assert (method + CLOCK in longer.arms) is is_other
        if is_other:
            scratch = not plan.arm_settings(method).has_encoder
            assert longer.epochs(method + CLOCK) == ((0, heads + tuned) if scratch else (heads, tuned))
    assert (
        plan.at_equal_wall_clock(
            {method: plan.epochs(method) for method in methods if plan.epochs(method)[0]}
        )
        == plan
    )


def test_a_method_that_is_called_as_equal_wall_clock_calls_them_is_refused():
    """Such an arm would be trained, but left out of the hash and the report."""
    values = make_comparison(Config(), ["gan", "unet"]).model_dump(mode="json")
    values["arms"]["fast-clock"] = values["arms"]["unet"]
    with pytest.raises(ConfigError, match=r"should not end in `-clock`.* Found `fast-clock`\."):
        check_new_plan(checked(Plan, values))
    assert check_new_plan(
        Plan(arms={"colour-clock": {"tasks": {"names": ["colour"]}}})
    ).arms  # of a study it is a name
