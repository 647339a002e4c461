"""Commands are run in this process."""

import signal
import sys

import pytest

from knowhue.apps import program


@pytest.fixture
def knowhue(monkeypatch, capsys):
    """Run a command in this process: exit code, standard output, standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["knowhue", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            program.main()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        written = capsys.readouterr()
        return ended.value.code, written.out, written.err

    return run
