"""Starting a server: errors if it cannot start."""

import socket
import subprocess
import sys

import pytest
from fake_server import colorizer, running
from fastapi.testclient import TestClient

from knowhue.errors import ConfigError
from knowhue.inference import kernels, pixels
from knowhue.serving import run
from knowhue.serving.api import make_app
from knowhue.serving.run import address_of, listening, serve, warm
from knowhue.serving.settings import ServerSettings


def test_a_port_that_is_taken_is_said_with_the_remedy():
    with socket.create_server(("127.0.0.1", 0)) as other:
        settings = ServerSettings(port=other.getsockname()[1], workers=1)
        with pytest.raises(ConfigError, match="Name another with `--port`"):
            serve({"fake": colorizer()}, settings, with_page=False)


@pytest.mark.parametrize(
    "host", ["192.0.2.1", "fe80::1"]
)  # of the documentation's addresses; without a scope
def test_an_address_that_is_not_this_machines_is_said_with_the_remedy(host):
    with pytest.raises(ConfigError, match="Name an address of this machine with `--host`"):
        listening(ServerSettings(host=host, port=0, no_auth=True))


START = """
import sys
from knowhue.inference.colorizer import Colorizer
from knowhue.serving import run
from knowhue.serving.api import make_app
from knowhue.serving.settings import ServerSettings
app = make_app({"built-in": Colorizer.load("built-in")}, ServerSettings(workers=1), with_page=True)
run.warm(app.state.batchers)
print({"torch", "numba", "scipy", "matplotlib"} & {*sys.modules})
"""


def test_a_server_of_the_built_in_model_starts_without_what_takes_long_to_import():
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_server_lets_nobody_wait_for_a_compiler(monkeypatch):
    waits = []

    def note(batchers):
        waits.append(pixels._lazy_kernels.waits)
        for batcher in batchers.values():
            batcher.close(1)

    monkeypatch.setattr(pixels, "_lazy_kernels", kernels.LazyKernels())
    monkeypatch.setattr(run, "warm", note)
    monkeypatch.setattr(run.Server, "run", lambda *_, **__: None)
    serve({"fake": colorizer()}, ServerSettings(port=0, workers=1), with_page=False)
    # later work, such as a folder, must not depend on time
    assert [*waits, pixels._lazy_kernels.waits] == [False, True]


def test_who_stops_a_server_is_told_so_before_it_waits_for_what_was_accepted_and_may_be_gone():
    told = []

    def stopping():
        told.extend(each.is_open for each in server._batchers.values())
        raise BrokenPipeError

    with running(stopping=stopping) as (*_, server):
        pass
    assert told == [True]
    assert not any(each.is_open for each in server._batchers.values())


WHILE_IT_COMPILES = """
import threading
import numpy as np
from knowhue.inference import kernels
begun = threading.Event()
def compiling(*_):
    begun.set()
    threading.Event().wait()
kernels.build_kernels = lambda: kernels.CompiledKernels(compiling, compiling)
work = kernels.LazyKernels()
work.waits = False
work.compiled(kernels.COMPILED_FROM + 1, np.dtype(np.uint8))
begun.wait()
"""


def test_an_ending_process_waits_for_no_compiler():
    subprocess.run([sys.executable, "-c", WHILE_IT_COMPILES], timeout=120, check=True)


def test_addresses_are_what_a_browser_opens():
    with listening(ServerSettings(port=0)) as opened:
        port = opened.getsockname()[1]
        assert address_of(opened, ServerSettings()) == f"http://127.0.0.1:{port}"
        assert address_of(opened, ServerSettings(host="::1")) == f"http://[::1]:{port}"


def test_every_kind_of_model_is_warmed_so_that_nobody_waits_for_what_is_compiled():
    models = {"both": colorizer(), "class": colorizer(tasks=("class",))}
    app = make_app(models, ServerSettings(workers=1, batch_wait_ms=0))
    with TestClient(app):
        warm(app.state.batchers)
        for model in models.values():
            assert model.network.batches == [1, 1]  # type: ignore[attr-defined]
