"""Starting a server: what is said when it cannot."""

import builtins
import socket

import pytest
from stand import colorizer

from knowhue.errors import ConfigError, ExtraError
from knowhue.serving.run import serve
from knowhue.serving.settings import ServerSettings


def failing(monkeypatch: pytest.MonkeyPatch, module: str, error: ImportError) -> None:
    """Importing a module fails."""
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == module:
            raise error
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)


def start() -> None:
    serve({"fake": colorizer()}, ServerSettings(port=0, workers=1))


def test_a_missing_package_is_named_with_the_command_that_brings_it(monkeypatch):
    error = ModuleNotFoundError("No module named 'fastapi.routing'", name="fastapi.routing")
    failing(monkeypatch, "knowhue.serving.api", error)
    with pytest.raises(ExtraError, match=r"needs `fastapi`, .* not installed: pip install -e '\.\[serve\]'"):
        start()


def test_a_package_of_another_version_is_not_called_missing(monkeypatch):
    error = ImportError("cannot import name 'FastAPI' from 'fastapi'", name="fastapi")
    failing(monkeypatch, "knowhue.serving.api", error)
    with pytest.raises(ExtraError, match=r"another version .*cannot import name 'FastAPI'") as raised:
        start()
    assert "not installed" not in str(raised.value)


@pytest.mark.parametrize("name", ["knowhue.serving.other", "knowhue", None])
@pytest.mark.parametrize("kind", [ImportError, ModuleNotFoundError])
def test_a_fault_of_our_own_is_not_blamed_on_an_extra(monkeypatch, kind, name):
    failing(monkeypatch, "knowhue.serving.api", kind("cannot import name 'x'", name=name))
    with pytest.raises(kind, match="cannot import name 'x'") as raised:
        start()
    assert not isinstance(raised.value, ExtraError)


def test_a_port_that_is_taken_is_said_with_the_remedy():
    with socket.create_server(("127.0.0.1", 0)) as other:
        settings = ServerSettings(port=other.getsockname()[1], workers=1)
        with pytest.raises(ConfigError, match="Name another with `--port`"):
            serve({"fake": colorizer()}, settings, with_page=False)
