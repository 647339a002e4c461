"""What stands before every route: who may call, how much they may send and how slowly, and what answers carry."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from knowhue.serving.access import Access, checked_headers
from knowhue.serving.monitoring import Monitor
from knowhue.serving.refusals import Refusal, one_line
from knowhue.serving.settings import MIB, ServerSettings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

SLOWEST_BYTES_A_SECOND = 128 * 1024
_CHUNK_BYTES = 64 * 1024
"""In which answers are handed on; smaller ones are not counted."""
_LINGER_BYTES, _LINGER_SECONDS = 8 * MIB, 2.0
_LOG = logging.getLogger(__name__)

HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
"""Of every answer that does not say otherwise."""

STRICT = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
DOCS = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
POLICIES = {
    "/v1/": STRICT,
    "/healthz": STRICT,
    "/readyz": STRICT,
    "/metrics": STRICT,
    "/openapi.json": STRICT,
    "/docs": DOCS,
    "/": PAGE,
}
"""Content-Security-Policy by the start of a path; the longest that fits."""


class Shield:
    """ASGI middleware; wraps everything.

    Args:
        app: what it wraps.
        settings: limits and token.
        monitor: told of requests and refusals.
    """

    def __init__(self, app: App, settings: ServerSettings, monitor: Monitor) -> None:
        self.app = app
        self.settings = settings
        self.monitor = monitor
        self._access = Access(settings)
        self._held_bytes = 0
        monitor.watch_held(lambda: self._held_bytes)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(self, scope, receive, send)
        try:
            with self.monitor.timing(scope, lambda: exchange.status):
                await self._answer(scope, exchange)
        finally:
            self.release(exchange.held)

    async def _answer(self, scope: MutableMapping[str, Any], exchange: "_Exchange") -> None:
        try:
            headers = checked_headers(scope)
            elsewhere = self._access.check(scope, headers)
            if elsewhere is not None:
                await exchange.answer(303, b"", elsewhere)
                return
            exchange.check_length(headers)
            await self.app(scope, exchange.receive, exchange.send)
        except Refusal as refusal:
            self.monitor.refused(refusal.reason)
            await exchange.refuse(refusal)
        except Exception:
            if exchange.refusal is not None:  # what the app made of it does not matter
                self.monitor.refused(exchange.refusal.reason)
                await exchange.refuse(exchange.refusal)
                return
            _LOG.exception("A request failed.")
            failure = Refusal(500, "failure", "The server failed on this request. Its log says why.")
            await exchange.refuse(failure)

    def hold(self, size: int) -> None:
        """Count bytes that have been received, or that wait to be read.

        Raises:
            Refusal: too much is held already.
        """
        if self._held_bytes + size > self.settings.max_held_mib * MIB:
            message = "The server holds too many uploads and answers that are not read yet. Try again in 5 s."
            raise Refusal(429, "held", message, {"retry-after": "5"})
        self._held_bytes += size

    def release(self, size: int) -> None:
        """Count bytes no more."""
        self._held_bytes -= size


class _Exchange:
    """One request and its answer: counts what comes, adds headers to what goes."""

    def __init__(self, shield: Shield, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        self.shield = shield
        self.path: str = scope["path"]
        self.received = 0
        self.held = 0
        self.status = 0
        self.refusal: Refusal | None = None
        self._receive, self._send = receive, send
        self._ended = False
        self._expects = False
        self._started: float | None = None

    def check_length(self, headers: Mapping[str, str]) -> None:
        """Refuse by the announced length, before anything is received."""
        self._expects = "expect" in headers
        length = headers.get("content-length", "0")
        self._ended = length == "0" and "transfer-encoding" not in headers
        if not length.isdecimal() or int(length) > self._limit:
            raise self._too_large()

    @property
    def _limit(self) -> float:
        return self.shield.settings.max_upload_mib * MIB

    def _too_large(self) -> Refusal:
        limit = self.shield.settings.max_upload_mib
        return Refusal(413, "size", f"The request should have at most {limit:g} MiB. Found more.")

    async def receive(self) -> Message:
        """The next message, within the limits of size and time; after the body, of the client's leaving."""
        if self._ended:
            return await self._receive()
        message = await self._in_time()
        if message["type"] == "http.request":
            size = len(message.get("body", b""))
            if self.received + size > self._limit:
                raise self._refused(self._too_large())
            self._hold(size)
            self.received += size
        self._ended = not message.get("more_body", False)
        return message

    async def _in_time(self) -> Message:
        now = time.monotonic()
        self._started = now if self._started is None else self._started
        allowed = self.shield.settings.upload_seconds + self.received / SLOWEST_BYTES_A_SECOND
        try:
            return await asyncio.wait_for(self._receive(), max(0.0, self._started + allowed - now))
        except TimeoutError:
            seconds = self.shield.settings.upload_seconds
            message = f"The request should arrive within {seconds:g} s, or faster than 128 KiB/s. It did not."
            raise self._refused(Refusal(408, "slow", message, {"connection": "close"})) from None

    def _hold(self, size: int) -> None:
        try:
            self.shield.hold(size)
        except Refusal as refusal:
            raise self._refused(refusal) from None
        self.held += size

    def _release(self) -> None:
        self.shield.release(self.held)
        self.held = 0

    def _refused(self, refusal: Refusal) -> Refusal:
        self.refusal = refusal
        return refusal

    async def send(self, message: Message) -> None:
        """Pass an answer on as fast as it is read, with the headers that every answer has.

        Raises:
            Refusal: too much is held already for a large answer to wait beside it.
        """
        if message["type"] == "http.response.start":
            headers = self._with_headers(message.get("headers", []))
            self._begin(dict(headers))
            self.status = message["status"]
            await self._send({**message, "headers": headers})
            return
        body, is_last = message.get("body", b""), not message.get("more_body", False)
        is_early = is_last and not self._ended and not self._expects
        for start in range(0, len(body) or 1, _CHUNK_BYTES):
            part, more = body[start : start + _CHUNK_BYTES], start + _CHUNK_BYTES < len(body)
            await self._send({**message, "body": part, "more_body": more or is_early or not is_last})
        if is_early:
            await self._drain()
            await self._send({"type": "http.response.body", "body": b""})

    def _begin(self, headers: Mapping[bytes, bytes]) -> None:
        """Count the answer instead of the upload, which has served its purpose."""
        if self._ended:
            self._release()
        length = int(headers.get(b"content-length", b"0"))
        if length > _CHUNK_BYTES:
            self._hold(length)

    def _with_headers(self, headers: Any) -> list[tuple[bytes, bytes]]:
        given = [(bytes(name).lower(), bytes(value)) for name, value in headers]
        names = {name for name, _ in given}
        policy = max((start for start in POLICIES if self.path.startswith(start)), key=len, default="/v1/")
        added = HEADERS | {"content-security-policy": POLICIES[policy]}
        more = [(name.encode(), value.encode()) for name, value in added.items()]
        return given + [pair for pair in more if pair[0] not in names]

    async def _drain(self) -> None:
        """Take what is still coming, for a moment: closing at once would reset the connection and lose the answer."""
        until, left = time.monotonic() + _LINGER_SECONDS, _LINGER_BYTES
        while left > 0:
            try:
                message = await asyncio.wait_for(self._receive(), max(0.0, until - time.monotonic()))
            except TimeoutError:
                return
            left -= len(message.get("body", b""))
            if not message.get("more_body", False):
                return

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with one line of JSON; or, once an answer has begun, break off."""
        if self.status:
            raise refusal
        headers = {"content-type": "application/json", **refusal.headers}
        await self.answer(refusal.status, one_line(str(refusal)), headers)

    async def answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """A whole answer."""
        pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        pairs.append((b"content-length", str(len(body)).encode()))
        await self.send({"type": "http.response.start", "status": status, "headers": pairs})
        await self.send({"type": "http.response.body", "body": body})
