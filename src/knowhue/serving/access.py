"""Who may call: names of the server, origins of pages, tokens; nothing here reads a body."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from knowhue.serving.refusals import Refusal
from knowhue.serving.settings import ServerSettings, is_loopback

OPEN_PATHS = ("/healthz", "/readyz")
"""What a probe may ask without a token."""
COOKIE = "knowhue"
MAX_HEADERS = 64
MAX_HEADER_BYTES = 16_384
_ONCE = ("host", "content-length", "transfer-encoding", "content-type", "authorization", "origin")
_HOST = re.compile(
    r"(?P<name>[a-z0-9._-]+|\[[0-9a-f]*:[0-9a-f:.]+\])(:[0-9]{0,5})?", re.IGNORECASE | re.ASCII
)
"""A name or an address, and a port (RFC 9110, 7.2); no user, path or fragment."""


class Access:
    """Who is let in.

    Args:
        settings: host, names and token.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self._cookie = "" if settings.token is None else _sealed(settings.token)

    def check(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> Mapping[str, str] | None:
        """Let a request in, or send a browser that showed the token on with a cookie: the headers of that answer.

        Raises:
            Refusal: it comes by another name, from another site's page, or without the token.
        """
        self._check_origin(scope, headers)
        token = self.settings.token
        if token is None or scope["path"] in OPEN_PATHS or self._shows_token(headers, token):
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if scope["method"] == "GET" and any(name == "token" and _same(value, token) for name, value in query):
            rest = urlencode([pair for pair in query if pair[0] != "token"])
            place = "/" + quote(scope["path"].lstrip("/")) + (f"?{rest}" if rest else "")
            return {
                "location": place,
                "set-cookie": f"{COOKIE}={self._cookie}; Path=/; HttpOnly; SameSite=Strict",
            }
        raise Refusal(
            401,
            "token",
            "`Authorization` should be `Bearer TOKEN` with the server's token. Found none, or another. A browser opens "
            "the page with `?token=TOKEN`.",
            {"www-authenticate": "Bearer"},
        )

    def _check_origin(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        """Pages of other sites must not use a server that trusts whoever can reach it.

        A name that an attacker turns to 127.0.0.1 (DNS rebinding) is told by Host, a forged request by Origin.
        """
        host = headers.get("host", "")
        if self.settings.is_loopback and not self._is_mine(host):
            names = ", ".join(("localhost", "127.0.0.1", *self.settings.hosts))
            raise Refusal(
                421, "host", f"`Host` should be one of {names}. Found another; see `--allowed-host`."
            )
        origin = headers.get("origin")
        if origin is not None and scope["method"] not in ("GET", "HEAD") and _place(origin) != host:
            raise Refusal(403, "origin", "`Origin` should be this server's own. Found another site's.")

    def _is_mine(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        name = "" if found is None else found["name"].strip("[]").lower()
        return is_loopback(name) or name in (each.lower() for each in self.settings.hosts)

    def _shows_token(self, headers: Mapping[str, str], token: str) -> bool:
        kind, _, shown = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and _same(shown.strip(), token):
            return True
        return any(_same(value, self._cookie) for value in _cookies(headers.get("cookie", "")))


def checked_headers(scope: Mapping[str, Any]) -> Mapping[str, str]:
    """Headers by name.

    Raises:
        Refusal: there are too many, too long ones, two of what must be one, or two lengths of the body, which somebody
            between client and server may read otherwise (RFC 9112, 6.1).
    """
    raw = scope["headers"]
    size = len(scope["query_string"]) + sum(len(name) + len(value) for name, value in raw)
    if len(raw) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        message = (
            f"The request should have at most {MAX_HEADERS} headers, {MAX_HEADER_BYTES} bytes. Found more."
        )
        raise Refusal(431, "headers", message)
    headers: dict[str, str] = {}
    for name, value in raw:
        key = name.decode("latin-1").lower()
        if key in headers and key in _ONCE:
            raise Refusal(400, "headers", f"`{key}` should be given once. Found it twice.")
        headers[key] = value.decode("latin-1")
    if "content-length" in headers and "transfer-encoding" in headers:
        message = "`Content-Length` and `Transfer-Encoding` should not be given together. Found both."
        raise Refusal(400, "headers", message, {"connection": "close"})
    return headers


def _place(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _sealed(token: str) -> str:
    """What a browser keeps instead of the token."""
    return hmac.new(token.encode(), b"knowhue page", hashlib.sha256).hexdigest()


def _same(shown: str, secret: str) -> bool:
    """In a time that does not tell how much of it was right."""
    return hmac.compare_digest(shown.encode("utf-8", "replace"), secret.encode())


def _cookies(header: str) -> list[str]:
    pairs = (part.strip().partition("=") for part in header.split(";"))
    return [value for name, _, value in pairs if name == COOKIE]
