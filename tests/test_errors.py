"""Messages: short, in one line, with the nearest known name and the command that helps."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowhue.errors import (
    ConfigError,
    DamagedError,
    ExtraError,
    ImageError,
    KnowhueError,
    RunError,
    WeightsError,
    did_you_mean,
    install_command,
    needing,
    one_of,
    shown,
)

KNOWN = ("colour", "class", "multi")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize("kind", [ConfigError, ImageError, WeightsError, RunError, DamagedError, ExtraError])
def test_there_is_one_root_of_errors_that_a_user_can_mend(kind):
    assert issubclass(kind, KnowhueError)
    assert not issubclass(kind, ValueError | OSError)  # which validators and readers would catch


def test_each_argument_is_a_line_of_its_own():
    assert str(ConfigError("one", "two")) == "one\ntwo"
    assert str(ConfigError()) == ""


def test_a_damaged_file_is_named_with_the_remedy():
    error = DamagedError("runs/a/status.json", "not JSON")
    assert str(error) == (
        "`runs/a/status.json` is damaged: not JSON. Remove it, and run the command that made it again."
    )


@pytest.mark.parametrize("raised", [ConfigError("one", "two"), DamagedError("a.json", "not JSON")])
def test_errors_come_through_from_worker_processes(raised):
    error = pickle.loads(pickle.dumps(raised))
    assert (type(error), error.args) == (type(raised), raised.args)


@given(VALUES)
def test_a_value_is_short_however_large_it_is(value):
    assert len(shown(value)) <= 600
    assert len(shown(value, 10)) <= 600


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (3, "3"),
        (0.5, "0.5"),
        ("a", "a"),
        ([1, "b"], "[1, 'b']"),
    ],
)
def test_a_value_is_shown_as_it_would_be_typed(value, text):
    assert shown(value) == text


def test_numbers_that_python_refuses_to_write_are_described():
    assert shown(1 << 20_000) == "a number of 20001 bits"
    assert shown([1 << 20_000]) == "[a number of 20001 bits]"
    assert shown("x" * 81) == "x" * 80 + "..."


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("place", range(4))
def test_a_name_with_one_letter_missing_is_recognised(name, place):
    assert did_you_mean(name[:place] + name[place + 1 :], KNOWN) == f" Did you mean `{name}`?"


@given(st.text(), st.lists(st.text(min_size=1), unique=True))
def test_what_is_meant_is_one_of_the_known_names_or_nothing(name, known):
    found = did_you_mean(name, known)
    assert found in ("", *(f" Did you mean `{each}`?" for each in known))
    assert one_of("arm", name, known).startswith(f"`arm` should be one of {', '.join(known)}. Found `arm = ")
    assert one_of("arm", name, iter(known)).endswith(found or ".")


def test_a_missing_package_is_named_with_the_command_that_installs_it():
    with pytest.raises(ExtraError) as found, needing("A video", "video"):
        raise ModuleNotFoundError("No module named 'av.video'", name="av.video")
    assert str(found.value) == f"A video needs `av`, which is not installed: {install_command('video')}"
    with (
        pytest.raises(ExtraError, match=r"of another version \(cannot import name 'x'\)"),
        needing("A video", "video"),
    ):
        raise ImportError("cannot import name 'x'", name="av")


@pytest.mark.parametrize("name", [None, "knowhue.inference.video"])
def test_an_import_that_fails_by_a_fault_of_ours_is_no_missing_package(name):
    with pytest.raises(ImportError, match="cannot import name 'x'"), needing("A video", "video"):
        raise ImportError("cannot import name 'x'", name=name)
