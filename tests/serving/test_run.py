"""Starting a server: what is said when it cannot."""

import socket

import pytest
from stand import colorizer

from knowhue.errors import ConfigError
from knowhue.serving.run import serve
from knowhue.serving.settings import ServerSettings


def test_a_port_that_is_taken_is_said_with_the_remedy():
    with socket.create_server(("127.0.0.1", 0)) as other:
        settings = ServerSettings(port=other.getsockname()[1], workers=1)
        with pytest.raises(ConfigError, match="Name another with `--port`"):
            serve({"fake": colorizer()}, settings, with_page=False)
