"""uvicorn with what it lacks: limits of time for headers and readers, of connections, and a stop that finishes work."""

import asyncio
import math
import time
from asyncio import TimerHandle, Transport
from collections.abc import Mapping
from socket import socket

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from knowhue.inference.requests import Batcher
from knowhue.serving.settings import ServerSettings

HEADER_SECONDS = 10.0
READING_SECONDS = 30.0
SLOWEST_READING = 16 * 1024
"""Bytes a second; who reads more slowly is cut off once that has cost `READING_SECONDS`."""
MOST_CONNECTIONS = 512
MAX_HEADER_BYTES = 32_768
_KEEP_ALIVE_SECONDS = 5
_POLL_SECONDS = 0.05


class Connection(H11Protocol):
    """A connection whose client must end the headers of a request in `HEADER_SECONDS`, and read what it asked for."""

    header_seconds = HEADER_SECONDS
    reading_seconds = READING_SECONDS
    _timer: TimerHandle | None = None
    _reading: TimerHandle | None = None
    _paused_at = 0.0

    def connection_made(self, transport: Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Start the clock; refuse a connection too many."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
            return
        transport.set_write_buffer_limits(0)  # so that each part is waited for, the last one too
        self._patience = self.reading_seconds
        self._start_clock()

    def pause_writing(self) -> None:
        """Something waits to be read: start the reader's clock."""
        super().pause_writing()
        self._paused_at = self.loop.time()
        self._waiting_bytes = self.transport.get_write_buffer_size()
        self._reading = self.loop.call_later(self._patience, self.transport.abort)

    def resume_writing(self) -> None:
        """It was read: what that took beyond its due is gone from the reader's time."""
        super().resume_writing()
        self._stop_reading_clock()
        late = self.loop.time() - self._paused_at - self._waiting_bytes / SLOWEST_READING
        self._patience = min(self.reading_seconds, self._patience - late)

    def data_received(self, data: bytes) -> None:
        """Stop the clock once a request's headers are whole; start it with the next one's first byte."""
        if self._timer is None and not self._is_answering:
            self._start_clock()
        super().data_received(data)
        if self._is_answering:
            self._stop_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the clocks."""
        self._stop_clock()
        self._stop_reading_clock()
        super().connection_lost(exc)

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start_clock(self) -> None:
        self._timer = self.loop.call_later(self.header_seconds, self._too_late)

    def _stop_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_reading_clock(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _too_late(self) -> None:
        if not self._is_answering:
            self.transport.abort()


class Server(uvicorn.Server):
    """Stops in three steps: no new work, then the answers to what was accepted, then the connections."""

    def __init__(self, app: FastAPI, settings: ServerSettings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                loop="asyncio",
                lifespan="on",
                log_level="error",  # callers can cause warnings, as many as they like
                access_log=False,
                proxy_headers=False,
                server_header=False,
                h11_max_incomplete_event_size=MAX_HEADER_BYTES,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=math.ceil(settings.stop_seconds),
            )
        )
        self._batchers: Mapping[str, Batcher] = app.state.batchers
        self._settings = settings

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Finish what was accepted; what comes meanwhile is answered 503."""
        for batcher in self._batchers.values():
            batcher.stop()
        until = time.monotonic() + self._settings.request_seconds
        while any(batcher.length for batcher in self._batchers.values()):
            if self.force_exit or time.monotonic() > until:
                break
            await asyncio.sleep(_POLL_SECONDS)
        await super().shutdown(sockets)
