"""Start a server, and run it until it is stopped."""

import asyncio
import errno
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import h11
import numpy as np
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from knowhue.errors import ConfigError
from knowhue.images.image import Image
from knowhue.images.writing import encode_image
from knowhue.inference.colorizer import Colorizer
from knowhue.inference.pixels import compiling_meanwhile
from knowhue.inference.requests import Batcher, ImageRequest
from knowhue.serving.api import make_app
from knowhue.serving.limits import HEADERS, JSON, LINGER_SECONDS, MAX_HEADER_BYTES, STRICT, Refusal
from knowhue.serving.settings import ServerSettings

BACKLOG = 256
SEND_BUFFER_BYTES = 256 * 1024
"""Of each connection, in the system, which would else take several MiB of an answer that is not read."""
MAX_CONNECTIONS = 512
"""At once; each takes a file of the system, of which there are not many more."""
_INCOMPLETE_BYTES = 2 * MAX_HEADER_BYTES
"""Of headers that have not ended; whole ones above half of it are answered by `limits`."""
_KEEP_ALIVE_SECONDS = 5
_POLL_SECONDS = 0.05
Announce = Callable[[str], None]


def _no_http_answer() -> bytes:
    """An answer to what is no HTTP, or not sound, with the line and the headers that every refusal has."""
    body = Refusal(
        400,
        "",
        "The request should be sound HTTP/1.1: a `Host`, a valid length of its body, chunks as they are announced, "
        f"at most {MAX_HEADER_BYTES:,} bytes of headers. Found something else.",
    ).body
    own = {"content-type": JSON, "content-length": len(body), "connection": "close"}
    headers = HEADERS | {"content-security-policy": STRICT} | own
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 400 Bad Request\r\n{lines}\r\n".encode() + body


def serve(
    models: Mapping[str, Colorizer],
    settings: ServerSettings,
    announce: Announce = lambda address: None,
    with_page: bool = True,
    stopping: Callable[[], object] = lambda: None,
) -> None:
    """Serve some models until SIGINT or SIGTERM, then finish what was accepted.

    Args:
        models: by the names that requests use; the first is the usual one.
        settings: where, for whom, and how much; a `ConfigError` if the port is taken.
        announce: called with the address once it is known.
        with_page: whether there is a page beside the API.
        stopping: called when it is told to stop, before what was accepted is finished.
    """
    app = make_app(models, settings, with_page)
    with listening(settings) as opened, compiling_meanwhile():
        warm(app.state.batchers)
        announce(address_of(opened, settings))
        try:
            Server(app, settings, stopping).run(sockets=[opened])
        except KeyboardInterrupt:
            return  # uvicorn has stopped in order, and raises the signal again


class _Connection(H11Protocol):
    """One of at most `MAX_CONNECTIONS`; where one comes that is too many, the oldest without a request makes room.

    `limit_concurrency` of uvicorn would keep them all, and refuse the requests of those who come later.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = time.monotonic()
        connected = [each for each in self.connections if isinstance(each, _Connection)]
        connected = [each for each in connected if not each.transport.is_closing()]
        if len(connected) > MAX_CONNECTIONS:
            silent = [each for each in connected if each.cycle is None or each.cycle.response_complete]
            min(silent, key=lambda each: each._since).transport.abort()  # this one, if all others are busy
        self._is_refused = False

    def eof_received(self) -> None:
        """Answer who ends before a request is whole; who has sent all of it and ends has left."""
        began, _ = self.conn.trailing_data
        if self.conn.their_state is h11.SEND_BODY or (self.conn.their_state is h11.IDLE and began):
            self.send_400_response("")

    def data_received(self, data: bytes) -> None:
        if not self._is_refused:
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP as any other mistake; what still comes is thrown away for a moment.

        Closing at once, as uvicorn does, would reset the connection of whoever is still sending, and lose the answer.
        """
        self._is_refused = True
        self.loop.call_later(LINGER_SECONDS, self.transport.close)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(_no_http_answer())
        self.transport.write_eof()


class Server(uvicorn.Server):
    """Stops in three steps: no new work, then the answers to what was accepted, then the connections."""

    def __init__(
        self, app: FastAPI, settings: ServerSettings, stopping: Callable[[], object] = lambda: None
    ) -> None:
        logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # as uvicorn's below
        super().__init__(
            uvicorn.Config(
                app,
                http=_Connection,  # uvicorn bounds headers that do not end with h11 alone
                ws="none",
                loop="asyncio",
                lifespan="on",
                log_level="critical",  # callers can cause warnings and errors, as many as they like
                access_log=False,
                proxy_headers=False,  # X-Forwarded-* may be anybody's
                server_header=False,
                h11_max_incomplete_event_size=_INCOMPLETE_BYTES,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=math.ceil(settings.stop_seconds),
            )
        )
        self._batchers: Mapping[str, Batcher] = app.state.batchers
        self._settings = settings
        self._stopping = stopping

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what was accepted; what comes meanwhile is answered 503."""
        with suppress(OSError):  # nobody may be there to be told; what was accepted is finished all the same
            self._stopping()
        for batcher in self._batchers.values():
            batcher.stop()
        until = time.monotonic() + self._settings.request_seconds
        while any(batcher.length for batcher in self._batchers.values()):
            if self.force_exit or time.monotonic() > until:
                break
            await asyncio.sleep(_POLL_SECONDS)
        await super().shutdown(sockets)


def warm(batchers: Mapping[str, Batcher]) -> None:
    """Colour a gray and an RGB image by every model, so that nobody waits for what is loaded on first use."""
    for batcher in batchers.values():
        colours = "colour" in batcher.colorizer.network.description.tasks
        for bands in (1, 3):
            small = encode_image(Image.of(np.full((64, 64, bands), 128, np.uint8)), ".png")
            batcher.submit(ImageRequest(small, colour=colours)).result()


def listening(settings: ServerSettings) -> socket.socket:
    """The socket that a server listens on; a `ConfigError` if the address is not this machine's, or taken."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio sends at once (TCP_NODELAY) only where the protocol is named; else each answer waits 40 ms for an ACK
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # a restart need not wait for old connections; on Windows two servers could take one port
        if os.name == "posix":
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)  # connections inherit it
        opened.bind((settings.host, settings.port))
        opened.listen(BACKLOG)
        return opened
    except OSError as error:
        opened.close()
        remedy = (
            "Name another with `--port`, or 0 for any."
            if error.errno in (errno.EADDRINUSE, errno.EACCES)
            else "Name an address of this machine with `--host`."
        )
        raise ConfigError(
            f"Cannot listen on {settings.host} port {settings.port}: {error.strerror or error}. {remedy}"
        ) from None


def address_of(opened: socket.socket, settings: ServerSettings) -> str:
    """What a browser opens.

    >>> with listening(ServerSettings(port=0)) as opened:
    ...     address_of(opened, ServerSettings()).rsplit(":", 1)[0]
    'http://127.0.0.1'
    """
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{opened.getsockname()[1]}"
