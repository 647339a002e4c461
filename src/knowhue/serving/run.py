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
"""Bytes that the system buffers for each connection; by default it buffers several MiB of an answer nobody reads."""
MAX_CONNECTIONS = 512  # open connections at once; each takes a file descriptor, often limited to 1,024
_INCOMPLETE_BYTES = 2 * MAX_HEADER_BYTES
"""Bytes of headers received without their end; complete headers above half of this are refused by `limits`."""
_KEEP_ALIVE_SECONDS = 5
_POLL_SECONDS = 0.05
Announce = Callable[[str], None]


def _malformed_answer() -> bytes:
    """Return the answer to malformed HTTP, with the body and headers of every refusal."""
    wanted = "valid HTTP/1.1, with a `Host`, a valid length of the body or valid chunks, and at most"
    message = f"The request should be {wanted} {MAX_HEADER_BYTES:,} bytes of headers. Found something else."
    body = Refusal(400, "", message).body
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
    """Serve models until SIGINT or SIGTERM, then finish the accepted requests.

    Args:
        models: by the names that requests use; the first is the default.
        settings: address, access and limits.
        announce: called with the URL once the server listens.
        with_page: whether the web page is served, not the API alone.
        stopping: called when the server begins to stop.
    """
    app = make_app(models, settings, with_page)
    with listening(settings) as listener, compiling_meanwhile():
        warm(app.state.batchers)
        announce(address_of(listener, settings))
        try:
            Server(app, settings, stopping).run(sockets=[listener])
        except KeyboardInterrupt:
            return  # uvicorn has stopped properly and raises the signal again


class _Connection(H11Protocol):
    """A connection, one of at most `MAX_CONNECTIONS`; if one too many comes, the oldest without a request is closed.

    uvicorn's `limit_concurrency` would keep idle connections and refuse the requests of new ones.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = time.monotonic()
        connected = [each for each in self.connections if isinstance(each, _Connection)]
        connected = [each for each in connected if not each.transport.is_closing()]
        if len(connected) > MAX_CONNECTIONS:
            silent = [each for each in connected if each.cycle is None or each.cycle.response_complete]
            min(silent, key=lambda each: each._since).transport.abort()  # this one if all others are busy
        self._is_refused = False

    def eof_received(self) -> None:
        """Answer a client that stops sending before its request is complete; later, it means that the client left."""
        began, _ = self.conn.trailing_data
        if self.conn.their_state is h11.SEND_BODY or (self.conn.their_state is h11.IDLE and began):
            self.send_400_response("")

    def data_received(self, data: bytes) -> None:
        if not self._is_refused:
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        """Answer malformed HTTP like any other error, then discard what still arrives for a moment.

        Closing at once, as uvicorn does, resets the connection while the client is sending, and loses the answer.
        """
        self._is_refused = True
        self.loop.call_later(LINGER_SECONDS, self.transport.close)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(_malformed_answer())
        self.transport.write_eof()


class Server(uvicorn.Server):
    """A uvicorn server that first refuses new work, then finishes accepted requests, then closes connections."""

    def __init__(
        self, app: FastAPI, settings: ServerSettings, stopping: Callable[[], object] = lambda: None
    ) -> None:
        # for the same reason as uvicorn's below
        logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
        super().__init__(
            uvicorn.Config(
                app,
                http=_Connection,  # only with h11 does uvicorn limit headers without an end
                ws="none",
                loop="asyncio",
                lifespan="on",
                log_level="critical",  # clients could fill the log with warnings and errors
                access_log=False,
                proxy_headers=False,  # anyone can send X-Forwarded-*
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
        """Finish accepted requests; new ones are answered with 503 meanwhile."""
        with suppress(OSError):  # nobody may read standard error any more
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
    """Run every model on a gray and an RGB image, so that no request waits for what is loaded on first use."""
    for batcher in batchers.values():
        colours = "colour" in batcher.colorizer.network.description.tasks
        for bands in (1, 3):
            small = encode_image(Image.of(np.full((64, 64, bands), 128, np.uint8)), ".png")
            batcher.submit(ImageRequest(small, colour=colours)).result()


def listening(settings: ServerSettings) -> socket.socket:
    """Return a listening socket; raises a `ConfigError` if the address is not this machine's or the port is taken."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio sets TCP_NODELAY only if the protocol is given; without it each answer waits 40 ms for an ACK
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # allows a restart while old connections close; on Windows it would let two servers share a port
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # inherited by connections
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)
        return listener
    except OSError as error:
        listener.close()
        is_port = error.errno in (errno.EADDRINUSE, errno.EACCES)
        remedy = (
            "another with `--port`, or 0 for any" if is_port else "an address of this machine with `--host`"
        )
        place = f"{settings.host} port {settings.port}"
        raise ConfigError(f"Cannot listen on {place}: {error.strerror or error}. Name {remedy}.") from None


def address_of(listener: socket.socket, settings: ServerSettings) -> str:
    """Return the URL that a browser opens.

    >>> with listening(ServerSettings(port=0)) as listener:
    ...     address_of(listener, ServerSettings()).rsplit(":", 1)[0]
    'http://127.0.0.1'
    """
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{listener.getsockname()[1]}"
