"""Middleware before every route: access, limits of size and time, headers of answers, content negotiation."""

import asyncio
import hashlib
import hmac
import json
import logging
import math
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit
from urllib.request import parse_http_list

from python_multipart.multipart import parse_options_header
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from knowhue.serving.monitoring import Monitor
from knowhue.serving.settings import MIB, ServerSettings, is_loopback

OPEN_PATHS = ("/healthz", "/readyz")
"""Paths of probes, which need no token."""
COOKIE = "knowhue"
_METHODS = "GET, HEAD, POST, OPTIONS"  # methods of all routes, and OPTIONS of the whole server
MAX_HEADERS = 64
MAX_HEADER_BYTES = 16_384
SLOWEST_UPLOAD = 128 * 1024  # bytes per second that extend `upload_seconds` of the settings
READING_SECONDS = 30.0
SLOWEST_READING = 16 * 1024
"""Bytes per second; a slower client is cut off after a delay of `READING_SECONDS` in total."""
_CHUNK_BYTES = 64 * 1024  # size of the parts in which answers are sent; smaller answers do not count as held
_LINGER_BYTES, LINGER_SECONDS = 256 * MIB, 5.0
"""Bytes and seconds of a refused upload that are discarded, for clients that read an answer only after sending all."""
_ONCE = ("host", "content-length", "transfer-encoding", "content-type", "authorization", "origin")
_HOST = re.compile(
    r"(?P<name>[a-z0-9._-]+|\[[0-9a-f]*:[0-9a-f:.]+\])(:[0-9]{0,5})?", re.IGNORECASE | re.ASCII
)
"""Host name or address, and port (RFC 9110, 7.2), without user, path or fragment."""
_WHOLE_URL = re.compile(rb"https?://(?P<host>[^/?#]+)(?P<path>/.*)?", re.IGNORECASE | re.DOTALL)
JSON = "application/json"
STOPPING = (503, "stopping", "The server is stopping. Try again when it runs again.")
"""Arguments of a `Refusal` while the server stops."""
_WEIGHT = re.compile(rb"0?\.\d+|0\.?|1(\.0*)?")  # many programs send `.5`, which RFC 9110 does not allow
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
"""Headers of every answer, unless it sets them itself."""
_NO_EMBEDDING = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_SELF_ONLY = "default-src 'none'; script-src 'self'; connect-src 'self'"
STRICT = f"default-src 'none'; {_NO_EMBEDDING}"
POLICIES = {
    "/": f"{_SELF_ONLY}; style-src 'self'; img-src 'self' blob:; {_NO_EMBEDDING}",
    "/docs": f"{_SELF_ONLY}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; {_NO_EMBEDDING}",  # for Swagger UI
}
"""Content-Security-Policy of the two pages; everything else gets `STRICT`."""


class Refusal(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, reason: str, message: str, headers: Mapping[str, str] = {}) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers
        self.reason = reason
        """a word for the metrics; empty if not counted"""

    @property
    def body(self) -> bytes:
        r"""The answer: one line of JSON.

        >>> Refusal(404, "", "Two\nlines.").body
        b'{"error": "Two lines."}'
        """
        return json.dumps({"error": " ".join(str(self).split())}).encode()


class Access:
    """Checks of host, origin and token, by the headers alone."""

    def __init__(self, settings: ServerSettings) -> None:
        self._token = settings.token
        # names are checked only on loopback addresses; elsewhere the token protects the server
        self._names = ("localhost", "127.0.0.1", *settings.hosts) if is_loopback(settings.host) else None
        key = (settings.token or "").encode()
        self._cookie = hmac.new(key, b"knowhue page", hashlib.sha256).hexdigest()  # does not reveal the token

    def check(self, scope: Scope, headers: Mapping[str, str]) -> Mapping[str, str] | None:
        """Return None if a request is allowed, or the headers of a redirect that gives a browser the cookie.

        A `Refusal` for another host name, a request from another site's page, or no valid token.
        """
        self._check_origin(scope, headers)
        token = self._token
        if token is None or scope["path"] in OPEN_PATHS or self._has_token(headers, token):
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        has_token = any(name == "token" and _is_equal(value, token) for name, value in query)
        if has_token and scope["method"] == "GET":
            rest = urlencode([pair for pair in query if pair[0] != "token"])
            # one slash at the start, because `//name` would be another site's address
            place = "/" + quote(scope["path"].lstrip("/")) + (f"?{rest}" if rest else "")
            cookie = f"{COOKIE}={self._cookie}; Path=/; HttpOnly; SameSite=Strict"
            # without the token, which must not stay in the address bar and the history
            return {"location": place, "set-cookie": cookie}
        message = (
            "`Authorization` should be `Bearer TOKEN` with the server's token. Found none, or another. In a browser "
            "open the page with `?token=TOKEN`."
        )
        raise Refusal(401, "token", message, {"www-authenticate": "Bearer"})

    def _check_origin(self, scope: Scope, headers: Mapping[str, str]) -> None:
        """Refuse requests from pages of other sites: DNS rebinding by `Host`, forged requests (CSRF) by `Origin`."""
        host = headers.get("host", "")
        if self._names is not None and not self._is_own_name(host):
            names = ", ".join(self._names)
            remedy = "Start the server with `--allowed-host NAME` to allow it."
            raise Refusal(421, "host", f"`Host` should be one of {names}. Found another. {remedy}")
        origin = headers.get("origin")
        if origin is not None and scope["method"] not in ("GET", "HEAD") and _host_of(origin) != host:
            message = "`Origin` should be this server. Found another site. Use the server's own page."
            raise Refusal(403, "origin", message)

    def _is_own_name(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        name = match["name"].lower() if match else ""
        return is_loopback(name.strip("[]")) or name in (each.lower() for each in self._names or ())

    def _has_token(self, headers: Mapping[str, str], token: str) -> bool:
        kind, _, shown = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and _is_equal(shown.strip(), token):
            return True
        pairs = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
        return any(name == COOKIE and _is_equal(value, self._cookie) for name, _, value in pairs)


class Shield:
    """ASGI middleware that passes on a request within the limits, or answers it with an error."""

    def __init__(self, app: ASGIApp, settings: ServerSettings, monitor: Monitor) -> None:
        self.app, self.settings, self.monitor = app, settings, monitor
        self._access = Access(settings)
        self._held_bytes = 0
        monitor.held.set_function(lambda: self._held_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # the app's lifespan; websockets have no route and are closed
            await self.app(scope, receive, send)
            return
        scope = in_origin_form(scope)
        exchange = _Exchange(self, scope["path"], receive, send)
        with self.monitor.timing(scope, lambda: exchange.status):
            try:
                headers = checked_headers(scope)
                redirect = self._access.check(scope, headers)
                exchange.check_length(headers)
                if redirect is not None:
                    await exchange.answer(303, b"", redirect)
                elif scope["method"] == "OPTIONS" and scope["path"] == "*":
                    # of the whole server (RFC 9112, 3.2.4)
                    await exchange.answer(200, b"", {"allow": _METHODS})
                else:
                    # HEAD is GET without a body (RFC 9110, 9.3.2), which uvicorn leaves out
                    request_scope = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
                    await self.app(request_scope, exchange.receive, exchange.send)
            except Refusal as refusal:
                if refusal.reason:
                    self.monitor.refused.labels(refusal.reason).inc()
                await exchange.refuse(refusal)
            except asyncio.CancelledError:
                # uvicorn cancels requests that are not finished `stop_seconds` after it began to stop
                await exchange.refuse(Refusal(*STOPPING))
            except Exception:
                _LOG.exception("A request failed.")
                message = "The server failed on this request. Its log has the cause."
                await exchange.refuse(Refusal(500, "failure", message))
            finally:
                self.release(exchange.held)

    def hold(self, size: int) -> None:
        """Count bytes of uploads and unsent answers; refuses them if too many are held already."""
        if self._held_bytes + size > self.settings.max_held_mib * MIB:
            message = "The server holds too many uploads and unread answers. Try again in 5 s."
            raise Refusal(429, "held", message, {"retry-after": "5"})
        self._held_bytes += size

    def release(self, size: int) -> None:
        self._held_bytes -= size


class _Exchange:
    """A request and its answer, counting received bytes and adding headers."""

    def __init__(self, shield: Shield, path: str, receive: Receive, send: Send) -> None:
        self.held = 0
        """bytes currently counted as held"""
        self.status = 0
        """HTTP status; 0 before the answer begins"""
        self._shield, self._settings, self._path = shield, shield.settings, path
        self._receive, self._send = receive, send
        self._received = 0
        self._is_received = self._waits_to_send = False
        self._started: float | None = None
        self._patience_seconds = READING_SECONDS  # left for a slow client

    def check_length(self, headers: Mapping[str, str]) -> None:
        """Refuse a request by its announced length, before its body is received."""
        self._waits_to_send = "expect" in headers  # such a client sends its body only after status 100
        length = headers.get("content-length", "0")
        self._is_received = length == "0" and "transfer-encoding" not in headers
        size = int(length) if length.isdecimal() else math.inf
        # rounded up, so that a size just above the limit does not look allowed
        self._check_size(size, f"{math.ceil(size / MIB * 10) / 10:,.1f} MiB" if size < math.inf else "more")

    def _check_size(self, size: float, found: str) -> None:
        limit = self._settings.max_upload_mib
        if size > limit * MIB:
            allowed = f"The request should have at most {limit:g} MiB. Found {found}."
            raise Refusal(413, "size", f"{allowed} Send a smaller image, or save it as JPEG.")

    def _hold(self, size: int) -> None:
        self._shield.hold(size)
        self.held += size

    async def receive(self) -> Message:
        """Return the next message, within the limits of size and time; after the body, that the client left."""
        if self._is_received:
            return await self._receive()
        now = time.monotonic()
        self._started = now if self._started is None else self._started
        seconds = self._settings.upload_seconds
        allowed = seconds + self._received / SLOWEST_UPLOAD
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._started + allowed - now))
        except TimeoutError:
            text = f"The request should arrive within {seconds:g} s, or faster than 128 KiB/s. It did not; try again."
            raise Refusal(408, "slow", text, {"connection": "close"}) from None
        # The announced length may be wrong, and a chunked body announces none, so received bytes are counted.
        size = len(message.get("body", b""))
        self._check_size(self._received + size, "more")
        self._hold(size)
        self._received += size
        self._is_received = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Send an answer in parts; a `Refusal` if too many bytes are held already, or the client reads too slowly."""
        if message["type"] == "http.response.start":
            await self._send_start(message)
            return
        body, is_last = message.get("body", b""), not message.get("more_body", False)
        # the end of an early answer is sent after `_drain` has discarded the rest of the request
        is_early = is_last and not self._is_received and not self._waits_to_send
        for start in range(0, len(body) or 1, _CHUNK_BYTES):
            end = start + _CHUNK_BYTES
            more = end < len(body) or is_early or not is_last
            await self._send_in_time({**message, "body": body[start:end], "more_body": more})
        if is_early:
            await self._drain()
            await self._send({"type": "http.response.body", "body": b""})

    async def _send_start(self, message: Message) -> None:
        """Send status and headers; from now on the answer counts as held, not the upload."""
        own_headers = {bytes(name).lower(): bytes(value) for name, value in message.get("headers", [])}
        if self._is_received:
            self._shield.release(self.held)
            self.held = 0
        length = int(own_headers.get(b"content-length", b"0"))
        if length > _CHUNK_BYTES:
            self._hold(length)
        defaults = HEADERS | {"content-security-policy": POLICIES.get(self._path, STRICT)}
        if not self._is_received:
            defaults |= {"connection": "close"}  # without it, uvicorn would read what `_drain` leaves
        added = [(name.encode(), value.encode()) for name, value in defaults.items()]
        headers = [*message.get("headers", []), *(pair for pair in added if pair[0] not in own_headers)]
        self.status = message["status"]
        await self._send({**message, "headers": headers})

    async def _send_in_time(self, message: Message) -> None:
        started = time.monotonic()
        try:
            await asyncio.wait_for(self._send(message), self._patience_seconds)
        except TimeoutError:
            raise Refusal(408, "reader", "The answer should be read. It was read too slowly.") from None
        due = len(message["body"]) / SLOWEST_READING
        patience = self._patience_seconds + due - (time.monotonic() - started)
        self._patience_seconds = min(READING_SECONDS, patience)

    async def _drain(self) -> None:
        """Discard what still arrives for a moment; closing at once would reset the connection and lose the answer."""
        left, more = _LINGER_BYTES, True
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while more and left > 0:
                    message = await self._receive()
                    left -= len(message.get("body", b""))
                    more = message.get("more_body", False)

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with an error; if an answer has begun, leave it incomplete, so that the connection is closed."""
        if not self.status:
            await self.answer(refusal.status, refusal.body, {"content-type": JSON, **refusal.headers})

    async def answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        pairs.append((b"content-length", str(len(body)).encode()))
        await self.send({"type": "http.response.start", "status": status, "headers": pairs})
        await self.send({"type": "http.response.body", "body": body})


def checked_headers(scope: Scope) -> Mapping[str, str]:
    """Return the headers by name in lower case; a `Refusal` if they are too many, too long, repeated or ambiguous."""
    # ASGI gives pairs, with repeated headers
    raw = scope["headers"]
    size = len(scope["query_string"]) + sum(len(name) + len(value) for name, value in raw)
    if len(raw) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        limit = f"{MAX_HEADERS} headers, {MAX_HEADER_BYTES:,} bytes"
        raise Refusal(431, "headers", f"The request should have at most {limit}. Found more.")
    headers: dict[str, str] = {}
    for name, value in raw:
        key = name.decode("latin-1").lower()
        if key in headers and key in _ONCE:
            raise Refusal(400, "headers", f"`{key}` should be given once. Found it twice.")
        headers[key] = value.decode("latin-1")
    # proxies may understand them differently (RFC 9112, 6.1)
    if "content-length" in headers and "transfer-encoding" in headers:
        message = "`Content-Length` and `Transfer-Encoding` should not be given together. Found both."
        raise Refusal(400, "headers", message, {"connection": "close"})
    return headers


def in_origin_form(scope: Scope) -> Scope:
    """Return a request for a whole URL, as sent to a proxy, as a request for the path with that URL's host.

    Every server has to accept it (RFC 9112, 3.2.2). Repeated `Host` headers are kept, to be refused.
    """
    url = _WHOLE_URL.fullmatch(scope.get("raw_path") or b"")
    if url is None:
        return scope
    others = [(name, value) for name, value in scope["headers"] if name != b"host"]
    is_one = len(scope["headers"]) - len(others) <= 1
    raw_path = url["path"] or b"/"
    return {
        **scope,
        "path": unquote(raw_path.decode("latin-1")),
        "raw_path": raw_path,
        "headers": [(b"host", url["host"]), *(others if is_one else scope["headers"])],
    }


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _is_equal(shown: str, secret: str) -> bool:
    """Whether two texts are equal, compared in constant time."""
    return hmac.compare_digest(shown.encode("utf-8", "replace"), secret.encode())


def prefers_json(accept: str, image: str) -> bool:
    """Whether a client prefers JSON to a media type; `application/json, */*`, which many clients send, does."""
    return quality(accept, JSON) > quality(accept, image)


def quality(accept: str, kind: str) -> tuple[float, int]:
    """Return the weight of a media type in `Accept`, 0 to 1, and its specificity: `*/*` 0, `image/*` 1, `image/png` 2.

    The most specific entry counts, whatever its weight. Malformed entries are ignored.

    >>> quality("image/*;q=0.5, */*;q=0.1", "image/png")
    (0.5, 1)
    """
    names = {b"*/*": 0, f"{kind.partition('/')[0]}/*".encode(): 1, kind.encode(): 2}
    weights: dict[int, float] = {}
    for element in parse_http_list(accept):
        name, parameters = parse_options_header(element.encode())
        weight = parameters.get(b"q", b"1")
        if name in names and _WEIGHT.fullmatch(weight):
            weights[names[name]] = float(weight)
    exact = max(weights, default=0)
    weight = weights.get(exact, 0.0)
    return weight, exact if weight else 0
