"""The page: gradio's blocks mounted beside the API, with no more of gradio's routes than the page needs."""

import asyncio
import atexit
import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.routing import Match, Mount

from knowhue.inference.colorizer import Colorizer
from knowhue.serving.batcher import Batcher
from knowhue.serving.limits import App, Message, Receive, Send
from knowhue.serving.page_desk import Desk
from knowhue.serving.page_events import Events
from knowhue.serving.page_routes import page_routes
from knowhue.serving.settings import MIB, ServerSettings

HERE = Path(__file__).parent
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
GRADIO_TAKES = ("/gradio_api/queue/join", "/gradio_api/upload", "/gradio_api/cancel", "/gradio_api/reset")
"""Of gradio's routes, those that the page needs; its file server, proxy and API are not reachable."""
_FOREIGN = re.compile(rb"<meta\s+(?:property|name)=\"(?:og|twitter):[^>]*>\s*")


def mount_page(
    app: FastAPI, models: Mapping[str, Colorizer], settings: ServerSettings, batchers: Mapping[str, Batcher]
) -> FastAPI:
    """Add the page to the API's app.

    Args:
        app: of `make_app`.
        models: by name.
        settings: limits, and the studies that are shown.
        batchers: the queues of the models, which the page shares with the API.

    Returns:
        The same app.
    """
    folder = _private_folder()
    from knowhue.serving.page_blocks import build  # gradio reads its folder from the environment

    assert models.keys() == batchers.keys()
    desk = Desk(settings.max_held_mib)
    events = Events(desk, batchers, settings)
    app.include_router(page_routes(desk, events, settings))
    _in_a_loop(lambda: _mount(app, build(events, settings.studies, folder), settings))
    mounted = next(route for route in reversed(app.routes) if isinstance(route, Mount))
    mounted.app = Gate(mounted.app, app)
    _clean_up(app, desk, folder)
    app.state.desk = desk
    return app


def _mount(app: FastAPI, blocks: Any, settings: ServerSettings) -> None:
    import gradio as gr

    gr.mount_gradio_app(
        app,
        blocks,
        "/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=int(settings.max_upload_mib * MIB),
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=_theme(),
        css=(HERE / "page.css").read_text(encoding="utf-8"),
    )


class Gate:
    """ASGI app before gradio's: lets through what the page needs.

    Args:
        app: gradio's.
        outer: the app that it is mounted in, which knows the other routes.
    """

    def __init__(self, app: App, outer: FastAPI) -> None:
        self.app = app
        self.outer = outer

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Let a request through, or answer 404 or 405."""
        if scope["type"] == "http":
            path, method = scope["path"], scope["method"]
            if path == "/" and method in ("GET", "HEAD"):
                await self.app(scope, receive, _Rewriting(send))
                return
            allowed = GRADIO_TAKES if method == "POST" else GRADIO_READS if method in ("GET", "HEAD") else ()
            if ".." in path or not any(_fits(path, each) for each in allowed):
                raise HTTPException(404 if self._is_unknown(scope) else 405)
        await self.app(scope, receive, send)

    def _is_unknown(self, scope: dict[str, Any]) -> bool:
        others = (route for route in self.outer.routes if not isinstance(route, Mount))
        return not any(route.matches(scope)[0] is Match.PARTIAL for route in others)


class _Rewriting:
    """Takes other sites' addresses out of the page, which gradio puts into it for link previews."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message = {}
        self._body = b""

    async def __call__(self, message: Message) -> None:
        """Hold the answer back until it is whole."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        if message["type"] != "http.response.body":
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if message.get("more_body", False):
            return
        body = _FOREIGN.sub(b"", self._body)
        kept = [(name, value) for name, value in self._start["headers"] if name.lower() != b"content-length"]
        length = (b"content-length", str(len(body)).encode())
        await self._send({**self._start, "headers": [*kept, *([length] if body else [])]})
        await self._send({"type": "http.response.body", "body": body})


def _fits(path: str, allowed: str) -> bool:
    return path.startswith(allowed) if allowed.endswith("/") else path == allowed


def _private_folder() -> Path:
    """Where uploads lie between gradio and the desk; nobody else may look into it."""
    folder = Path(tempfile.mkdtemp(prefix="knowhue-page-"))
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _in_a_loop(work: Callable[[], Any]) -> None:
    """Gradio makes locks; where no loop runs it makes one for each, and leaves them open."""

    async def begin() -> None:
        work()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(begin())
    else:
        work()


def _clean_up(app: FastAPI, desk: Desk, folder: Path) -> None:
    """Forget everything when the server stops."""
    inner = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(running: Any) -> AsyncIterator[Any]:
        try:
            async with inner(running) as state:
                yield state
        finally:
            desk.close()
            shutil.rmtree(folder, ignore_errors=True)

    app.router.lifespan_context = lifespan


def _theme() -> Any:
    """Gradio's plainest, in the fonts of the report: none is fetched."""
    import gradio as gr

    sans = ("Helvetica Neue", "Helvetica", "Arial", "Liberation Sans", "sans-serif")
    mono = ("ui-monospace", "Menlo", "Consolas", "Liberation Mono", "monospace")
    return gr.themes.Base(font=sans, font_mono=mono, radius_size="sm", spacing_size="md", text_size="md")  # pyright: ignore[reportPrivateImportUsage]
