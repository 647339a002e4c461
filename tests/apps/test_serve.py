"""`knowhue serve` as it is typed."""

import pytest


def test_a_line_comes_before_the_work(knowhue, monkeypatch):
    """The first seconds are torch's and the model's: a line says so at once."""
    opened = []

    def load(path):
        opened.append(path)
        raise KeyboardInterrupt

    monkeypatch.setattr("knowhue.apps.use.load", load)
    _, _, err = knowhue("serve", "--model", "built-in", "--model", "old=there.onnx")
    assert err.splitlines()[0] == "Opening built-in, old ..."
    assert opened == ["built-in"]


@pytest.mark.parametrize("option", [("--host", "0.0.0.0"), ("--study", "nowhere"), ("--model", "=x")])
def test_what_cannot_be_served_is_said_alone(knowhue, option):
    code, _, err = knowhue("serve", *option)
    assert code == 2
    assert len(err.splitlines()) == 1
