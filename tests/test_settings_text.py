"""Settings from YAML: bounded input, and suggestions for misspelt names."""

import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from knowhue.config import Config
from knowhue.errors import ConfigError
from knowhue.plan import Plan
from knowhue.presets import load_config, merge
from knowhue.settings_text import (
    MAX_DEPTH,
    MAX_VALUES,
    describe_problem,
    meaning_of,
    number_advice,
    parse_json,
    parse_yaml,
    read_yaml,
)

NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
NESTED = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def settings(model: type[BaseModel], above: str = "") -> dict[str, Any]:
    """Every setting by its dotted name, collected independently of the package."""
    found = {}
    for name, field in model.model_fields.items():
        key = f"{above}{field.alias or name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= settings(field.annotation, f"{key}.")
        else:
            found[key] = field
    return found


SETTINGS = settings(Config)


@given(NESTED)
def test_what_yaml_can_say_reads_back(value):
    assert parse_yaml(yaml.safe_dump(value)) == value


@pytest.mark.parametrize(
    ("count", "refused"), [(MAX_VALUES - 2, False), (MAX_VALUES - 1, False), (MAX_VALUES, True)]
)
def test_values_are_counted_the_list_too(count, refused):
    text = f"[{', '.join(['1'] * count)}]"
    if refused:
        with pytest.raises(ValueError, match="more than 10,000 values"):
            parse_yaml(text)
    else:
        assert len(parse_yaml(text)) == count


@pytest.mark.parametrize(
    ("depth", "refused"), [(MAX_DEPTH - 1, False), (MAX_DEPTH, False), (MAX_DEPTH + 1, True)]
)
def test_lists_may_be_nested_as_deep_as_the_limit(depth, refused):
    text = "[" * depth + "1" + "]" * depth
    if refused:
        with pytest.raises(ValueError, match="nested too deeply"):
            parse_yaml(text)
    else:
        parse_yaml(text)


def test_references_may_be_used_in_measure():
    assert parse_yaml("a: &x [1, 2]\nb: *x") == {"a": [1, 2], "b": [1, 2]}
    with pytest.raises(ValueError, match="more than 10,000 values"):
        parse_yaml("a: &x [" + "1, " * 999 + "1]\nb: [" + "*x, " * 10 + "*x]")
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_yaml("&x {a: *x}")
    with pytest.raises(ValueError, match="a number of 65 bits"):
        parse_yaml(f"? {2**64}\n: 1")  # a key is a value, too


@pytest.mark.parametrize(
    ("text", "line"),
    [("seed: 1\nseed: 2", 1), ("arms:\n  a: {seed: 1}\n  a: {seed: 2}", 2), ("- {b: 1, c: 2, b: 3}", 1)],
)
def test_a_key_that_stands_twice_is_refused_with_its_line(text, line):
    with pytest.raises(ValueError, match=rf"^the key `(seed|a|b)` twice, in the block from line {line} on$"):
        parse_yaml(text)


def test_a_key_may_stand_in_two_places_and_override_what_is_merged():
    text = "a: &a {x: 1, y: 1}\nb: {<<: *a, y: 2}\nc: {<<: *a, y: 3}\n1: one\n'1': text"
    found = {"a": {"x": 1, "y": 1}, "b": {"x": 1, "y": 2}, "c": {"x": 1, "y": 3}, 1: "one", "1": "text"}
    assert parse_yaml(text) == found


@pytest.mark.parametrize("option", ["--config", "--plan"])
def test_what_cannot_be_read_is_said_with_the_option(tmp_path, option):
    (tmp_path / "folder").mkdir()
    (tmp_path / "list.yaml").write_text("- 1")
    (tmp_path / "text.txt").write_text("a photo")
    (tmp_path / "number.yaml").write_text("3")
    for name, reason in (
        ("none.yaml", "no such file or directory; "),
        ("folder", "is a directory; "),
        ("list.yaml", "holds a list, but "),
        ("text.txt", "holds text, but "),
        ("number.yaml", "holds one value, but "),
    ):
        with pytest.raises(ConfigError) as caught:
            read_yaml(tmp_path / name, option)
        assert str(caught.value).startswith(f"{tmp_path / name}: {reason}{option} takes ")


def test_a_file_may_be_as_large_as_the_limit(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_text("seed: 1 #" + "x" * ((1 << 20) - 9))
    assert read_yaml(path) == {"seed": 1}
    path.write_text(path.read_text() + "x")
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        read_yaml(path)


def problem(model: type[BaseModel], name: str, value: object = None) -> str:
    """The error of a value under a dotted name, merged into the defaults."""
    nested: Any = value
    for part in reversed(name.split(".")):
        nested = {part: nested}
    with pytest.raises(ValidationError) as caught:
        model.model_validate(merge(model().model_dump(by_alias=True), nested))
    return describe_problem(caught.value.errors()[0], model)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_recognised_with_a_letter_too_many(name):
    section, dot, key = name.rpartition(".")
    message = problem(Config, f"{section}{dot}{key}x")
    assert message == f"`{name}x` is not a setting. `knowhue config` lists them all. Did you mean `{name}`?"


@pytest.mark.parametrize("name", [name for name in SETTINGS if name.count(".") == 1])
def test_every_setting_is_recognised_without_its_section(name):
    key = name.rpartition(".")[2]
    if key not in [field.alias or each for each, field in Config.model_fields.items()]:
        assert f".{key}`?" in problem(Config, key)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_one_line_of_meaning(name):
    text = meaning_of(SETTINGS[name])
    assert len(text) > 10
    assert text == " ".join(text.split())
    assert not text.endswith(".")


@pytest.mark.parametrize(
    "name", [name for name, field in SETTINGS.items() if field.annotation in (int, bool, float)]
)
def test_a_value_of_another_kind_is_said_with_what_is_expected(name):
    message = problem(Config, name, "perhaps so")
    kind = {int: "a whole number", bool: "true or false", float: "a number"}[SETTINGS[name].annotation]
    assert message == f"`{name}` should be {kind}. Found `{name} = perhaps so`."


MEANT = " Write a point for a decimal comma, nothing between thousands, and 0.015 for 1.5 %."


@pytest.mark.parametrize(
    "written", ["1,024", "1.024,5", "1 024", "1'024", "1_024", "0,001", "84.8 %", "84,8%"]
)
@pytest.mark.parametrize("name", ["training.batch_size", "training.finetune.learning_rate"])
def test_how_to_write_a_number_is_said_of_one_that_is_written_otherwise(name, written):
    assert problem(Config, name, written).endswith(f"Found `{name} = {written}`.{MEANT}")


@pytest.mark.parametrize("written", ["1.5", "1e-3", "12", "%", "-", "", "a 1", "1,a"])
def test_how_to_write_a_number_is_not_said_of_numbers_nor_of_what_is_none(written):
    assert not number_advice(written)


def test_a_missing_part_of_a_question_is_explained():
    question = {"metric": "ab_l1", "single": "colour", "if_diverged": "gray"}
    with pytest.raises(ValidationError) as caught:
        Plan.model_validate({"questions": {"colour": question}})
    message = describe_problem(caught.value.errors()[0], Plan)
    assert message.startswith(
        "`questions.colour.sesoi` is missing. Meaning: smallest effect of interest, in the "
    )


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("012", "10"),
        ("-012", "-10"),
        ("1:30", "90"),
        ("1:30.5", "90.5"),
        ("1_0", "10"),
        ("0.1_5", "0.15"),
        ("0x1F", "31"),
        ("0b11", "3"),
    ],
)
def test_a_number_that_yaml_takes_for_another_one_is_refused(text, taken):
    for written in (text, f"a: {text}", f"- {text}", f"{text}: a"):
        with pytest.raises(
            ValueError,
            match=rf"^`{re.escape(text)}`, which YAML reads as {taken}; write the number that is meant",
        ):
            parse_yaml(written)
    assert parse_yaml(f"'{text}'") == text
    with pytest.raises(
        ConfigError, match=rf"`seed` should be a value in YAML. Found `{text}`: .* reads as {taken}"
    ):
        load_config(settings=[f"seed={text}"])


@pytest.mark.parametrize("text", ["0", "-0", "10", "+5", "0.5", ".5", "1.", "-1.5e-3", "007.5", ".inf"])
def test_decimal_numbers_are_what_they_are(text):
    assert parse_yaml(text) == float(text.replace(".inf", "inf"))


def test_json_with_a_key_twice_is_refused():
    assert parse_json('[{"a": 1}, {"a": 2, "b": {"a": 3}}]') == [{"a": 1}, {"a": 2, "b": {"a": 3}}]
    with pytest.raises(ValueError, match="the key `seed` twice in one object"):
        parse_json('{"arm": {"seed": 1, "x": 2, "seed": 3}}')
