"""What stands before gradio: no more of its routes than the page needs, and nothing of its own errors or paths."""

import asyncio
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.routing import Match, Mount

from knowhue.serving.limits import App, Message, Receive, Send
from knowhue.serving.page_intake import Intake
from knowhue.serving.refusals import Refusal

GRADIO_READS = (
    "/config",
    "/theme.css",
    "/assets/",
    "/static/",
    "/gradio_api/heartbeat/",
    "/gradio_api/queue/data",
    "/gradio_api/startup-events",
    "/gradio_api/upload_progress",
)
UPLOAD = "/gradio_api/upload"
GRADIO_TAKES = ("/gradio_api/queue/join", UPLOAD, "/gradio_api/cancel", "/gradio_api/reset")
"""Of gradio's routes, those that the page needs; its file server, proxy and API are not reachable."""
_LENGTHS = (b"content-length", b"transfer-encoding")
LARGEST_EVENT = 256 * 1024
_UNREADABLE = "The request should be one that the page sends."
_FOREIGN = re.compile(rb"<meta\s+(?:property|name)=\"(?:og|twitter):[^>]*>\s*")
"""Other sites' addresses, which gradio puts into the page for link previews."""


class Gate:
    """ASGI app before gradio's: lets through what the page needs.

    Args:
        app: gradio's.
        outer: the app that it is mounted in, which knows the other routes.
        intake: where gradio puts uploads.
    """

    def __init__(self, app: App, outer: FastAPI, intake: Intake) -> None:
        self.app = app
        self.outer = outer
        self.intake = intake

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Let a request through, or answer 404, 405, or in gradio's place what it cannot read."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        reads = method in ("GET", "HEAD")
        allowed = GRADIO_TAKES if method == "POST" else GRADIO_READS if reads else ()
        is_page = path == "/" and reads
        if not is_page and (".." in path or not any(_fits(path, each) for each in allowed)):
            raise HTTPException(404 if self._is_unknown(scope) else 405)
        if is_page:
            held = _Held()
            await self.app(scope, receive, held)
            await held.pass_on(send, _FOREIGN.sub(b"", held.body))
        elif method == "POST":
            await self._take(scope, receive, send)
        else:
            await self.app(scope, receive, _unless_refused(send))

    async def _take(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """What the page sends; an answer of gradio's that is an error says more than it should, or nothing."""
        is_upload, held = scope["path"] == UPLOAD, _Held()
        if is_upload:
            await asyncio.to_thread(self.intake.admit)
        else:
            receive, scope = await _received(scope, receive, self.intake.with_place)
        try:
            await self.app(scope, receive, held)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Refusal(400, "page", f"{_UNREADABLE} Found another.") from error
        if held.status >= 400:
            raise _refused(held.status)
        await held.pass_on(send, self.intake.without_place(held.body) if is_upload else held.body)

    def _is_unknown(self, scope: dict[str, Any]) -> bool:
        others = (route for route in self.outer.routes if not isinstance(route, Mount))
        return not any(route.matches(scope)[0] is Match.PARTIAL for route in others)


async def _received(
    scope: dict[str, Any], receive: Receive, change: Callable[[bytes], bytes]
) -> tuple[Receive, dict[str, Any]]:
    """A small request read whole and changed, for an app to receive in its place."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        body, more = body + message.get("body", b""), message.get("more_body", False)
        if len(body) > LARGEST_EVENT:
            raise Refusal(
                413, "size", f"The page's request should have at most {LARGEST_EVENT} bytes. Found more."
            )
    waiting: list[Message] = [{"type": "http.request", "body": change(body), "more_body": False}]
    kept = [(name, value) for name, value in scope["headers"] if name.lower() not in _LENGTHS]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    length = (b"content-length", str(len(waiting[0]["body"])).encode())
    return again, {**scope, "headers": [*kept, length]}


def _refused(status: int) -> Refusal:
    return Refusal(status, "page", f"{_UNREADABLE} Found {HTTPStatus(status).phrase.lower()}.")


def _unless_refused(send: Send) -> Send:
    """Pass an answer on, part by part, unless it is an error of gradio's."""

    async def pass_on(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            raise _refused(message["status"])
        await send(message)

    return pass_on


class _Held:
    """An answer that is held back until it is whole."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self._start: Message = {}

    async def __call__(self, message: Message) -> None:
        """Take a part of it."""
        if message["type"] == "http.response.start":
            self._start, self.status = message, message["status"]
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")

    async def pass_on(self, send: Send, body: bytes) -> None:
        """Send it, with this body in place of its own."""
        kept = [(name, value) for name, value in self._start["headers"] if name.lower() != b"content-length"]
        length = (b"content-length", str(len(body)).encode())
        await send({**self._start, "headers": [*kept, *([length] if body else [])]})
        await send({"type": "http.response.body", "body": body})


def _fits(path: str, allowed: str) -> bool:
    return path.startswith(allowed) if allowed.endswith("/") else path == allowed
