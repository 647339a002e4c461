"""A fixture that runs commands in this process."""

import signal
import sys

import pytest

from knowhue.apps import program


@pytest.fixture
def knowhue(monkeypatch, capsys):
    """A function that runs a command; returns its exit code, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["knowhue", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            program.main()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        written = capsys.readouterr()
        return ended.value.code, written.out, written.err

    return run
