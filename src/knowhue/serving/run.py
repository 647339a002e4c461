"""Start a server, and run it until it is told to stop."""

import os
import socket
from collections.abc import Callable, Mapping

import numpy as np

from knowhue.errors import ConfigError, ExtraError, install_command
from knowhue.images.image import Image
from knowhue.inference.colorizer import Colorizer
from knowhue.inference.requests import Batcher, ImageRequest
from knowhue.serving.settings import ServerSettings

BACKLOG = 256
SEND_BUFFER_BYTES = 256 * 1024
"""Of each connection, in the system, which would else take several MiB of an answer that is not read."""
Announce = Callable[[str], None]


def serve(
    models: Mapping[str, Colorizer],
    settings: ServerSettings,
    announce: Announce = lambda address: None,
    with_page: bool = True,
) -> None:
    """Serve some models until SIGINT or SIGTERM, then finish what was accepted.

    Args:
        models: by the names that requests use; the first is the usual one.
        settings: where, for whom, and how much.
        announce: told the address once it is known.
        with_page: whether there is a page beside the API.

    Raises:
        ConfigError: others could reach it without a token, or the port is taken.
        ExtraError: a package for serving is missing.
    """
    settings.check()
    try:
        from knowhue.serving.api import make_app
        from knowhue.serving.connection import Server

        app = make_app(models, settings, with_page)
    except ImportError as error:
        raise (without_extra(error) or error) from None
    with listening(settings) as opened:
        warm(app.state.batchers)
        announce(address_of(opened, settings))
        try:
            Server(app, settings).run(sockets=[opened])
        except KeyboardInterrupt:
            return  # uvicorn has stopped in order and tells it again


def without_extra(error: ImportError) -> ExtraError | None:
    """How an import that failed is mended; None if it is not for want of another's package.

    >>> without_extra(ImportError("cannot import name 'x'", name="knowhue.serving.api")) is None
    True
    """
    package = (error.name or "knowhue").partition(".")[0]
    if package == "knowhue":
        return None
    found = "not installed" if isinstance(error, ModuleNotFoundError) else f"of another version ({error})"
    return ExtraError(f"`knowhue serve` needs `{package}`, which is {found}: {install_command('serve')}")


def warm(batchers: Mapping[str, Batcher]) -> None:
    """Colour a gray and an RGB image by every model, so that nobody waits for what is compiled on first use."""
    for batcher in batchers.values():
        colours = "colour" in batcher.colorizer.network.description.tasks
        for bands in (1, 3):
            small = Image.of(np.full((64, 64, bands), 128, np.uint8))
            batcher.submit(ImageRequest(small, colour=colours)).result()


def listening(settings: ServerSettings) -> socket.socket:
    """The socket that a server accepts connections from.

    Raises:
        ConfigError: the address is not this machine's, or taken.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio sends at once (TCP_NODELAY) only where the protocol is named; else each answer waits 40 ms for an ACK
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)  # connections inherit it
        opened.bind((settings.host, settings.port))
        opened.listen(BACKLOG)
        return opened
    except OSError as error:
        opened.close()
        raise ConfigError(
            f"`host` and `port` should be free and this machine's own. Found {settings.host} port {settings.port}: "
            f"{error.strerror or error}. Name another with `--port`, or 0 for any."
        ) from None


def address_of(opened: socket.socket, settings: ServerSettings) -> str:
    """What a browser opens.

    >>> with listening(ServerSettings(port=0)) as opened:
    ...     address_of(opened, ServerSettings()).rsplit(":", 1)[0]
    'http://127.0.0.1'
    """
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{opened.getsockname()[1]}"
