"""Settings are validated when they are made, and errors name the key."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from knowhue.config import Config, Section, fingerprint
from knowhue.errors import ConfigError
from knowhue.presets import edit


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainning": {}}, "`trainning` is not a setting. `knowhue config` lists them all."),
        ({"training": {"epochs": 3}}, "`training.epochs` is not a setting. `knowhue config` lists them all."),
        ({"training": {"heads": {"epochs": "many"}}}, "`training.heads.epochs` should be a whole number"),
        ({"training": {"heads": {"epochs": 2.5}}}, "Found `training.heads.epochs = 2.5`."),
        (
            {"training": {"heads": {"epochs": -1}}},
            "`training.heads.epochs` should be greater than or equal to 0",
        ),
        ({"training": {"precision": "float8"}}, "Found `training.precision = float8`."),
        ({"colour": {"gan_loss": "wgan"}}, "`colour.gan_loss` should be one of bce, lsgan, hinge"),
        ({"class": {"label_smoothing": 1}}, "`class.label_smoothing` should be less than 1. Found"),
        ({"images": {"size_px": 8}}, "`images.size_px` should be greater than or equal to 16. Found"),
        (
            {"images": {"validation_share": 0}},
            "`images.validation_share` should be greater than 0. Found",
        ),
        (
            {"training": {"heads": {"learning_rate": float("nan")}}},
            "`training.heads.learning_rate` should be a finite number",
        ),
        ({"tasks": {"names": ()}}, "`tasks.names` should be colour, class or both, each once"),
        (
            {"tasks": {"names": ("class", "class")}},
            "`tasks.names` should be colour, class or both, each once",
        ),
        ({"tasks": {"names": ("segment",)}}, "Found `tasks.names.0 = segment`."),
        (
            {"training": {"heads": {"encoder_learning_rate": 1e-4}}},
            "`training.heads.encoder_learning_rate` should be 0: the encoder is frozen",
        ),
        ({"training": {"heads": {"epochs": 0}, "finetune": {"epochs": 0}}}, "should not both be 0"),
        ({"training": 3}, "Found `training = 3`."),
        ({"training": {"batch_size": True}}, "`training.batch_size` should be a whole number. Found"),
        ({"training": {"batch_size": "1_0"}}, "`training.batch_size` should be a whole number. Found"),
        ({"images": {"validation_share": "0.2_5"}}, "`images.validation_share` should be a number. Found"),
        (
            {"colour": {"palette": {"multipliers": ["1_0"]}}},
            "`colour.palette.multipliers` should be a whole number",
        ),
        ({"tasks": {"weights": {"class": True}}}, "`tasks.weights.class` should be a number. Found"),
        ({"training": {"cache_gib": False}}, "`training.cache_gib` should be a number. Found"),
    ],
)
def test_what_is_wrong_is_named(changes, message):
    with pytest.raises(ConfigError) as caught:
        edit(Config(), changes)
    assert message in str(caught.value)


def test_all_problems_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        edit(Config(), {"seed": -1, "images": {"size_px": "big"}})
    assert len(str(caught.value).splitlines()) == 2


def test_a_default_changes_on_purpose():
    """Defaults are part of every run's name and every plan's hash, and docs quote them: write them here anew."""
    pinned = Path(__file__).with_name("defaults.json")
    assert Config().model_dump(mode="json") == json.loads(pinned.read_text())


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Config().seed = 3


def test_a_dump_reads_back_to_an_equal_configuration():
    for by_alias in (True, False):
        assert Config.model_validate(Config().model_dump(mode="json", by_alias=by_alias)) == Config()
    assert "class" in Config().model_dump()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=4), values, max_size=5))
def test_fingerprint_does_not_depend_on_order(value):
    assert fingerprint(value) == fingerprint(dict(reversed(value.items())))
    assert len(fingerprint(value)) == 8


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"tasks": {"names": ("class",)}}, {"class": {"label_smoothing": 0.1}}]
)
def test_every_setting_counts_in_the_fingerprint(changes):
    assert fingerprint(edit(Config(), changes)) != fingerprint(Config())
    assert fingerprint(edit(Config(), changes)) == fingerprint(edit(Config(), changes))


def test_fingerprint_is_the_same_in_every_version():
    # A changed value here means that every finished run would be trained again.
    assert fingerprint({"b": [1, 2.5, None], "a": "x"}) == "ce74053d"


def test_text_beside_numbers_may_have_an_underscore_and_no_number_may():
    class Counts(Section):
        found: dict[str, int | str]
        only: dict[str, int]

    assert Counts(found={"source": "my_set", "a_b": 3}, only={"a_b": 1}).found["source"] == "my_set"
    for found, only in (({}, {"a": "1_0"}), ({"a": True}, {})):
        with pytest.raises(ValidationError, match="valid integer"):
            Counts.model_validate({"found": found, "only": only})
