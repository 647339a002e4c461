"""Settings of the server: addresses, tokens and contradictions."""

import pytest
from pydantic import ValidationError

from knowhue.errors import ConfigError
from knowhue.serving.settings import ServerSettings, is_loopback

TOKEN = "0123456789abcdef"


def test_listens_to_this_machine_alone_unless_told_otherwise():
    assert is_loopback(ServerSettings().host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org", "127.0.0.1.example.org"])
def test_others_are_let_near_only_with_a_token_or_when_said_so(host: str):
    with pytest.raises(ConfigError, match=r"`export KNOWHUE_TOKEN=\.\.\.`.*--no-auth"):
        ServerSettings(host=host)
    assert ServerSettings(host=host, token=TOKEN).token == TOKEN
    assert ServerSettings(host=host, no_auth=True).no_auth


@pytest.mark.parametrize(
    "token", ["", "short", "with spaces in it it is none", "not-ascii-äöü-xxxxxxx", "x" * 15 + "\n"]
)
def test_a_token_that_can_be_guessed_or_not_sent_is_refused(token: str):
    with pytest.raises(ConfigError, match="`token` should have 16"):
        ServerSettings(token=token)


def test_a_token_and_no_token_contradict():
    with pytest.raises(ConfigError, match="Found both"):
        ServerSettings(token=TOKEN, no_auth=True)


def test_the_token_is_never_printed():
    assert TOKEN not in repr(ServerSettings(token=TOKEN))


@pytest.mark.parametrize(
    "wrong", [{"port": 65536}, {"max_upload_mib": 0}, {"batch_size": 0}, {"batch_wait_ms": -1}, {"colour": 1}]
)
def test_what_makes_no_sense_is_refused_when_made(wrong: dict):
    with pytest.raises(ValidationError):
        ServerSettings(**wrong)


def test_all_of_127_is_loopback():
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))
