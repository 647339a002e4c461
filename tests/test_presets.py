"""Ready settings, their layers, and the arms as edits of one configuration."""

import pytest
import yaml

from knowhue.apps.settings import explain
from knowhue.config import Config
from knowhue.errors import ConfigError
from knowhue.presets import ARMS, PRESETS, arm_config, edit, load_config


@pytest.mark.parametrize("preset", PRESETS)
def test_explained_settings_read_back_to_the_same(preset, tmp_path):
    config = load_config(preset)
    (tmp_path / "settings.yaml").write_text(explain(config), encoding="utf-8")
    assert load_config("poster", [tmp_path / "settings.yaml"]) == config
    assert load_config(preset, [tmp_path / "settings.yaml"]) == config


def test_awkward_values_are_explained_too(tmp_path):
    awkward = {"path": "/my photos: 100% #1", "wordnet_ids": {"sea slug": "n1", "no": "n2"}}
    config = edit(Config(), {"pictures": awkward, "training": {"heads": {"rate": 1e-7}}})
    (tmp_path / "settings.yaml").write_text(explain(config), encoding="utf-8")
    assert load_config(files=[tmp_path / "settings.yaml"]) == config


def test_every_setting_is_explained():
    lines = explain(Config()).splitlines()
    settings = [line for line in lines if not line.rstrip().endswith(":")]
    assert [line for line in settings if "  # " not in line] == []
    assert yaml.safe_load(explain(Config()))["training"]["heads"]["epochs"] == 30


def test_settings_lie_over_files_over_the_preset(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("training: {batch_size: 8, shift_px: 1}\npictures: {size_px: 32}")
    second.write_text("training: {batch_size: 16}")
    config = load_config("demo", [first, second], ["pictures.size_px=48", "training.shift_px=3"])
    assert (config.training.batch_size, config.training.shift_px, config.pictures.size_px) == (16, 3, 48)
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
    assert load_config(settings=[f"training.heads.rate={text}"]).training.heads.rate == value


def test_later_settings_win_and_equal_signs_may_follow():
    config = load_config(settings=["seed=1", "seed=2", "pictures.path=a=b"])
    assert (config.seed, config.pictures.path) == (2, "a=b")


def test_table_of_ids_is_replaced_whole():
    config = load_config("poster-imagenet", settings=["pictures.wordnet_ids={cat: n1, dog: n2}"])
    assert config.pictures.wordnet_ids == {"cat": "n1", "dog": "n2"}


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
        ("training.heads.rate=fast", "`training.heads.rate` should be a valid number"),
    ],
)
def test_setting_that_cannot_be_read(setting, message):
    with pytest.raises(ConfigError) as caught:
        load_config(settings=[setting])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"training: [", "should be valid YAML"),
        (b"- 1\n- 2", "should hold `key: value` lines"),
        (b"\xff\xfe\x00", "`--config` should be"),
        (b"seeed: 3", "`seeed` is not a setting"),
    ],
)
def test_file_that_cannot_be_read(tmp_path, content, message):
    (tmp_path / "settings.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_config(files=[tmp_path / "settings.yaml"])


def test_missing_file_and_empty_file(tmp_path):
    with pytest.raises(ConfigError, match="readable YAML file"):
        load_config(files=[tmp_path / "nothing.yaml"])
    (tmp_path / "empty.yaml").touch()
    assert load_config(files=[tmp_path / "empty.yaml"]) == Config()


def test_unknown_names_list_the_known():
    with pytest.raises(
        ConfigError, match=r"one of poster, .*demo, .*palette-ab-paper\. Found `preset = paper`"
    ):
        load_config("paper")
    with pytest.raises(ConfigError, match=r"one of .*multi, .*\. Found `arm = both`"):
        arm_config(Config(), "both")


@pytest.mark.parametrize("arm", ARMS)
def test_arms_differ_in_their_edits_alone(arm):
    config = load_config("demo")
    changed = arm_config(config, arm, seed=7)
    assert {name: getattr(changed.tasks, name) for name in ARMS[arm]["tasks"]} == ARMS[arm]["tasks"]
    assert not set(ARMS[arm]) - {"tasks", "supervision", "training"}
    kept = {name: getattr(config, name) for name in ("tasks", "supervision", "training", "seed")}
    assert changed.model_copy(update=kept) == config
    assert changed.seed == 7
    assert arm_config(config, arm).seed == config.seed
