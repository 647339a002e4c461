"""The page: gradio's blocks mounted beside the API, with no more of gradio's routes than the page needs."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.routing import Mount

from knowhue.inference.colorizer import Colorizer
from knowhue.inference.requests import Batcher
from knowhue.serving.page_desk import Desk
from knowhue.serving.page_events import Events
from knowhue.serving.page_gate import Gate
from knowhue.serving.page_intake import Intake, private_folder
from knowhue.serving.page_routes import page_routes
from knowhue.serving.settings import MIB, ServerSettings

HERE = Path(__file__).parent


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
    intake = Intake(private_folder(), settings.max_held_mib)
    from knowhue.serving.page_blocks import build  # gradio reads its folder from the environment

    assert models.keys() == batchers.keys()
    desk = Desk(settings.max_held_mib)
    events = Events(desk, batchers, settings)
    app.include_router(page_routes(desk, events, settings))
    _in_a_loop(lambda: _mount(app, build(events, settings.studies, intake.folder), settings))
    mounted = next(route for route in reversed(app.routes) if isinstance(route, Mount))
    mounted.app = Gate(mounted.app, app, intake)
    _clean_up(app, desk, intake)
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


def _clean_up(app: FastAPI, desk: Desk, intake: Intake) -> None:
    """Forget what nobody took while the server runs, and everything when it stops."""
    inner = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(running: Any) -> AsyncIterator[Any]:
        sweeping = asyncio.create_task(intake.sweep_for_ever())
        try:
            async with inner(running) as state:
                yield state
        finally:
            sweeping.cancel()
            desk.close()
            shutil.rmtree(intake.folder, ignore_errors=True)

    app.router.lifespan_context = lifespan


def _theme() -> Any:
    """Gradio's plainest, in the fonts of the report: none is fetched."""
    import gradio as gr

    sans = ("Helvetica Neue", "Helvetica", "Arial", "Liberation Sans", "sans-serif")
    mono = ("ui-monospace", "Menlo", "Consolas", "Liberation Mono", "monospace")
    return gr.themes.Base(font=sans, font_mono=mono, radius_size="sm", spacing_size="md", text_size="md")  # pyright: ignore[reportPrivateImportUsage]
