"""Presets, merging of settings, and arms as edits of one configuration."""

import copy

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from knowhue.apps.planning import commented_yaml
from knowhue.config import Config
from knowhue.errors import ConfigError
from knowhue.models.multitask import build_model
from knowhue.plan import QUESTIONS, Plan, make_comparison, make_plan
from knowhue.presets import ARMS, PRESETS, arm_config, checked, edit, load_config, merge
from knowhue.settings_text import read_yaml


@pytest.mark.parametrize("preset", PRESETS)
def test_explained_settings_read_back_to_the_same(preset, tmp_path):
    config = load_config(preset)
    (tmp_path / "settings.yaml").write_text("\n".join(commented_yaml(config)), encoding="utf-8")
    assert load_config("unet", [tmp_path / "settings.yaml"]) == config
    assert load_config(preset, [tmp_path / "settings.yaml"]) == config


@pytest.mark.parametrize("preset", ["poster", "poster-imagenet"])
def test_the_poster_has_its_own_head_and_loss(preset):
    poster, usual = load_config(preset), load_config()
    assert poster.tasks.names == ("colour", "class")
    assert (poster.colour.method, usual.colour.method) == ("gan", "unet")
    assert poster.colour.is_adversarial
    unread = edit(poster, {"encoder": {"weights": "none"}})
    assert build_model(unread, classes=3).taps == (4,)  # the coarsest of the ResNet's five maps
    assert edit(poster, {"colour": {"method": "unet"}, "images": usual.images.model_dump()}) == usual


def test_without_a_preset_settings_are_the_defaults_and_arms_have_their_tasks():
    assert load_config() == load_config("unet") == Config()
    plan = make_plan(load_config("poster"))
    assert plan.run_config("multi", 0).colour.method == "gan"
    assert plan.run_config("multi", 0).tasks.names == ("colour", "class")


def test_awkward_values_are_explained_too(tmp_path):
    awkward = {"path": "/my photos: 100% #1", "wordnet_ids": {"sea slug": "n1", "no": "n2"}}
    config = edit(Config(), {"images": awkward, "training": {"heads": {"learning_rate": 1e-7}}})
    (tmp_path / "settings.yaml").write_text("\n".join(commented_yaml(config)), encoding="utf-8")
    assert load_config(files=[tmp_path / "settings.yaml"]) == config


def test_every_setting_is_explained():
    lines = "\n".join(commented_yaml(Config())).splitlines()
    settings = [line for line in lines if not line.rstrip().endswith(":")]
    assert [line for line in settings if "  # " not in line] == []
    assert yaml.safe_load("\n".join(commented_yaml(Config())))["training"]["heads"]["epochs"] == 30


def test_settings_lie_over_files_over_the_preset(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("training: {batch_size: 8, shift_px: 1}\nimages: {size_px: 32}")
    second.write_text("training: {batch_size: 16}")
    config = load_config("demo", [first, second], ["images.size_px=48", "training.shift_px=3"])
    assert (config.training.batch_size, config.training.shift_px, config.images.size_px) == (16, 3, 48)
    assert config.training.heads.epochs == PRESETS["demo"]["training"]["heads"]["epochs"]
    assert load_config("demo", [second, first]).training.batch_size == 8


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E-4", 1e-4),
        (".5", 0.5),
        ("0.5", 0.5),
        ("2", 2.0),
        ("+1.5e-3", 1.5e-3),
        ("1.e-3", 1e-3),
    ],
)
def test_numbers_are_read_as_numbers(text, value):
    assert (
        load_config(settings=[f"training.heads.learning_rate={text}"]).training.heads.learning_rate == value
    )


def test_later_settings_win_and_equal_signs_may_follow():
    config = load_config(settings=["seed=1", "seed=2", "images.path=a=b"])
    assert (config.seed, config.images.path) == (2, "a=b")


def test_table_of_ids_is_replaced_whole():
    config = load_config("poster-imagenet", settings=["images.wordnet_ids={cat: n1, dog: n2}"])
    assert config.images.wordnet_ids == {"cat": "n1", "dog": "n2"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "training.heads.epochs",
            "should look like `training.heads.epochs=3`. Found `--set training.heads.epochs`",
        ),
        ("=3", "should look like"),
        ("training..epochs=3", "should look like"),
        ("seeed=3", "`seeed` is not a setting"),
        ("seed.a=3", "Found `seed = {'a': 3}`"),
        ("training.heads.learning_rate=fast", "`training.heads.learning_rate` should be a number"),
    ],
)
def test_setting_that_cannot_be_read(setting, message):
    with pytest.raises(ConfigError) as caught:
        load_config(settings=[setting])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seed: 1\ntraining: [", r"takes valid YAML. Found: line 2, `training: \[`: expected"),
        (
            b"seed: 1\n heads: 2",
            "takes valid YAML. Found: line 2, `heads: 2`: mapping values are not allowed here$",
        ),
        (b"\x01", "unacceptable character #x0001: special characters are not allowed$"),
        (b"- 1\n- 2", "takes `key: value` lines"),
        (b"\xff\xfe\x00", "not text in UTF-8; --config takes a YAML file"),
        (b"seeed: 3", "`seeed` is not a setting"),
    ],
)
def test_file_that_cannot_be_read(tmp_path, content, message):
    (tmp_path / "settings.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_config(files=[tmp_path / "settings.yaml"])


NESTED = "&a [1, 1, 1, 1, 1, 1, 1, 1, 1]"
BOMB = f"a: {NESTED}\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "billion laughs": BOMB,
    "billion laughs under a setting": BOMB + "images: *i",
    "billion laughs in a table": BOMB + "images: {wordnet_ids: {cat: *i}}",
    "5,000 digits": "seed: " + "9" * 5000,
    "20,000 bits": "images: {split_seed: 0x" + "f" * 5000 + "}",
    "a number in encoder 60": "seed: " + ":".join(["59"] * 400),
    "an open nest": "[" * 1500,
    "a deep nest": "images: " + "[" * 400 + "]" * 400,
    "itself": "images: &p {size_px: *p}",
    "itself in a list": "seed: &s [*s]",
    "no date": "seed: 2024-99-99",
    "no number": "seed: !!int ''",
    "no truth": "seed: !!bool perhaps",
    "no time": "seed: !!timestamp never",
    "a program": "seed: !!python/object/apply:os.system [ls]",
    "large": "seed: 1 #" + "x" * (1 << 20),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("option", ["--config", "--plan"])
def test_a_hostile_file_is_refused_in_one_short_line(tmp_path, name, option):
    (tmp_path / "settings.yaml").write_text(HOSTILE[name])
    with pytest.raises(ConfigError, match=rf"settings\.yaml: .*{option} takes") as caught:
        read_yaml(tmp_path / "settings.yaml", option)
    assert len(caught.value.args) == 1
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)
    assert "sys." not in str(caught.value)  # advice for programmers of Python


@pytest.mark.parametrize(
    "value", ["9" * 5000, "0x" + "f" * 5000, "[" * 400 + "]" * 400, "!!int ''", "2024-99-99"]
)
def test_a_hostile_setting_is_refused_in_one_short_line(value):
    with pytest.raises(ConfigError, match="`seed` should be") as caught:
        load_config(settings=[f"seed={value}"])
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("value", ["x" * 100_000, f"[{', '.join(['x'] * 5000)}]", "{a: {b: {c: {d: e}}}}"])
def test_a_message_never_prints_a_huge_value(value):
    with pytest.raises(ConfigError) as caught:
        load_config(settings=[f"training.batch_size={value}"])
    assert len(str(caught.value)) < 300


def test_of_many_problems_the_first_are_told():
    with pytest.raises(ConfigError) as caught:
        load_config(settings=[f"tasks.names=[{', '.join(['x'] * 5000)}]"])
    assert len(caught.value.args) == 9
    assert caught.value.args[-1] == "and 4,992 more"


@pytest.mark.parametrize(
    ("setting", "meant"),
    [
        ("images.size=64", "images.size_px"),
        ("training.heads.epoch=3", "training.heads.epochs"),
        ("trainin.batch_size=3", "training"),
        ("images.batch_size=3", "training.batch_size"),
        ("training.finetune.epoch=3", "training.finetune.epochs"),
        ("heads.epochs=3", "training.heads"),
        ("class.hed=linear", "class.head"),
        ("colour.method=gann", "gan"),
        ("tasks.names=[color]", "colour"),
    ],
)
def test_a_misspelt_setting_names_the_one_that_is_meant(setting, meant):
    with pytest.raises(ConfigError, match=f"Did you mean `{meant}`"):
        load_config(settings=[setting])


def test_a_far_fetched_setting_gets_no_guess():
    with pytest.raises(ConfigError, match=r"lists them all\.$"):
        load_config(settings=["weather=fine"])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"questions": {"colour": {"metric": "ab_l1", "single": "colour", "if_diverged": "gray"}}},
            "`questions.colour.sesoi` is missing. Meaning: smallest effect of interest, in the unit of the metric",
        ),
        (
            {"questions": {"colour": QUESTIONS["colour"].model_dump() | {"sesoy": 1}}},
            "Did you mean `questions.colour.sesoi`?",
        ),
        (
            {"questions": {"color": QUESTIONS["colour"].model_dump()}},
            "`questions` should be one of colour, class. Found `questions = color`. Did you mean `colour`?",
        ),
        ({"config": {"training": {"batch": 3}}}, "Did you mean `config.training.batch_size`?"),
        (
            {"questions": {"colour": QUESTIONS["colour"].model_dump() | {"metric": "ciede200"}}},
            "Found `questions.colour.metric = ciede200`. Did you mean `ciede2000`?",
        ),
        ({"seeds": ["a"]}, "`seeds.0` should be a whole number. Found `seeds.0 = a`."),
        ({"arms": {}}, "`arms` should have at least 1 item, not 0."),
        ({"alpha": None}, "`alpha` should be a number. Found `alpha = null`."),
        ({"seeds": [0, True]}, "`seeds` should be a whole number. Found `seeds = [0, True]`."),
        ({"alpha": 1e-300}, "`alpha` should be greater than or equal to 0.000001. Found `alpha = 1e-300`."),
        ({"arms": {"a" * 61: {}}}, "`arms` should be named by at most 60 letters"),
        ({"budget_s": 5}, "`budget_s` should be left out of a study without a `reference`"),
        ({3: 4}, "`3` should be text, as every key."),
    ],
)
def test_what_is_wrong_with_a_plan_is_readable(values, said):
    with pytest.raises(ConfigError) as caught:
        checked(Plan, values)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: load_config("postr"),
        lambda: arm_config(Config(), "mulit"),
        lambda: make_plan(Config(), ["colour", "clas"]),
        lambda: make_comparison(Config(), ["l1", "pallete-rgb"]),
        lambda: checked(Config, {"encoder": {"name": "resnet-18"}}),
    ],
)
def test_misspelt_presets_arms_methods_and_bases_name_the_one_that_is_meant(ask):
    with pytest.raises(ConfigError, match=r"Did you mean `(poster|multi|class|palette-rgb|resnet18)`\?"):
        ask()


def test_missing_file_and_empty_file(tmp_path):
    with pytest.raises(ConfigError, match="takes a YAML file"):
        load_config(files=[tmp_path / "nothing.yaml"])
    (tmp_path / "empty.yaml").touch()
    assert load_config(files=[tmp_path / "empty.yaml"]) == Config()


def test_unknown_names_list_the_known():
    with pytest.raises(
        ConfigError, match=r"one of unet, poster, .*demo, .*palette-ab-paper\. Found `preset = paper`"
    ):
        load_config("paper")
    with pytest.raises(ConfigError, match=r"one of .*multi, .*\. Found `arm = both`"):
        arm_config(Config(), "both")


@pytest.mark.parametrize("arm", ARMS)
def test_arms_differ_in_their_edits_alone(arm):
    config = load_config("demo")
    changed = edit(arm_config(config, arm), {"seed": 7})
    assert {name: getattr(changed.tasks, name) for name in ARMS[arm]["tasks"]} == ARMS[arm]["tasks"]
    assert not set(ARMS[arm]) - {"tasks", "supervision", "training", "colour"}
    kept = {name: getattr(config, name) for name in (*ARMS[arm], "seed")}
    assert changed.model_copy(update=kept) == config
    assert changed.seed == 7
    assert arm_config(config, arm).seed == config.seed


NESTED = st.recursive(
    st.integers() | st.text(max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
VALUES = st.dictionaries(st.sampled_from("abc"), NESTED, max_size=3)


@given(VALUES, VALUES)
def test_settings_laid_over_others_win_and_what_they_do_not_name_stays(values, changes):
    before = copy.deepcopy((values, changes))
    merged = merge(values, changes)
    assert (values, changes) == before
    assert merge(values, {}) == values
    assert merge({}, changes) == changes
    assert merge(merged, changes) == merged
    assert set(merged) == set(values) | set(changes)
    for name, value in merged.items():
        if name not in changes:
            assert value == values[name]
        elif not isinstance(changes[name], dict):
            assert value == changes[name]


def test_a_table_of_the_users_own_is_replaced_and_not_merged():
    merged = merge({"images": {"wordnet_ids": {"cat": "n1"}}}, {"images": {"wordnet_ids": {"dog": "n2"}}})
    assert merged == {"images": {"wordnet_ids": {"dog": "n2"}}}


@pytest.mark.parametrize("preset", PRESETS)
def test_an_edit_of_nothing_or_of_what_is_there_changes_nothing(preset):
    config = load_config(preset)
    assert edit(config, {}) == config
    assert edit(config, config.model_dump(by_alias=True)) == config
    assert load_config(preset, settings=["seed=3", "seed=5"]).seed == 5


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("+1E3", 1e3), (".5", 0.5), ("2", 2.0), ("0.25", 0.25), (" 1e-4 ", 1e-4)],
)
def test_numbers_are_read_as_people_write_them(text, value):
    assert (
        load_config(settings=[f"training.heads.learning_rate={text}"]).training.heads.learning_rate == value
    )


@pytest.mark.parametrize("text", ["1e", "-", "+.e", "e4", "1_e4x"])
def test_what_is_no_number_is_not_made_one(text):
    with pytest.raises(ConfigError, match="should be a number"):
        load_config(settings=[f"training.heads.learning_rate={text}"])
