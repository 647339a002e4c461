"""What the page links to, read-only: small images, whole coloured photos, all of them as one ZIP, studies."""

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator
from pathlib import PurePath
from urllib.parse import quote

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse, StreamingResponse
from starlette.exceptions import HTTPException

from knowhue.inference.requests import Batcher
from knowhue.serving.page_desk import Desk, Photo, Sitting
from knowhue.serving.page_events import EXAMPLES, Events, example_files
from knowhue.serving.page_work import download_name, whole_ask
from knowhue.serving.schemas import MEDIA_TYPES
from knowhue.serving.settings import ServerSettings
from knowhue.serving.studies import REPORT_POLICY, report_file, strip


def page_routes(desk: Desk, events: Events, settings: ServerSettings) -> APIRouter:
    """The routes, to be added before gradio's."""
    router = APIRouter(include_in_schema=False)

    @router.get("/page/looks/{key}")
    async def small_image(key: str) -> Response:
        found = desk.look(key)
        if found is None:
            raise HTTPException(404)
        return Response(found.data, media_type=found.kind)

    @router.get("/page/photos/{sitting}/{photo}/{model}")
    async def download(sitting: str, photo: str, model: str) -> Response:
        visitor, batcher = _found(sitting, model)
        if photo not in visitor.photos:
            raise HTTPException(404)
        suffix, data = await _whole(visitor, visitor.photos[photo], batcher)
        name = download_name(visitor.photos[photo], suffix)
        return Response(data, media_type=MEDIA_TYPES[suffix], headers=_attached(name))

    @router.get("/page/all/{sitting}/{model}")
    async def download_all(sitting: str, model: str) -> Response:
        visitor, batcher = _found(sitting, model)
        batcher.check()
        return StreamingResponse(
            zipped(visitor, batcher), media_type="application/zip", headers=_attached("knowhue-photos.zip")
        )

    @router.get("/page/examples/{name}")
    async def example(name: str) -> Response:
        if name not in [path.name for path in example_files()]:
            raise HTTPException(404)
        return FileResponse(EXAMPLES / name)

    @router.get("/page/studies/{place}/report.html")
    async def report(place: int) -> Response:
        path = report_file(settings.studies, place)
        if path is None:
            raise HTTPException(404)
        return FileResponse(path, media_type="text/html", headers={"content-security-policy": REPORT_POLICY})

    @router.get("/page/studies/{place}/{what}.png")
    async def samples(place: int, what: str) -> Response:
        data = await asyncio.to_thread(strip, settings.studies, place, what)
        if data is None:
            raise HTTPException(404)
        return Response(data, media_type="image/png")

    def _found(sitting: str, model: str) -> tuple[Sitting, Batcher]:
        visitor, batcher = desk.by_key(sitting), events.batchers.get(model)
        if visitor is None or batcher is None:
            raise HTTPException(404)
        batcher.colorizer.require("colour")
        return visitor, batcher

    return router


async def zipped(sitting: Sitting, batcher: Batcher) -> AsyncIterator[bytes]:
    """A ZIP of all photos of a visitor, coloured one after the other; it is never whole in memory or on disk."""
    sink = _Sink()
    names: set[str] = set()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for photo in tuple(sitting.photos.values()):
            suffix, data = await _whole(sitting, photo, batcher)
            archive.writestr(_unused(download_name(photo, suffix), names), data)
            yield sink.taken()
    yield sink.taken()


async def _whole(sitting: Sitting, photo: Photo, batcher: Batcher) -> tuple[str, bytes]:
    reply = await asyncio.wrap_future(batcher.submit(whole_ask(sitting, photo)))
    return reply.suffix, reply.data


def _unused(name: str, names: set[str]) -> str:
    stem, suffix = PurePath(name).stem, PurePath(name).suffix
    number, found = 1, name
    while found in names:
        number += 1
        found = f"{stem}-{number}{suffix}"
    names.add(found)
    return found


def _attached(name: str) -> dict[str, str]:
    return {"content-disposition": f"attachment; filename*=utf-8''{quote(name)}"}


class _Sink(io.RawIOBase):
    """What a ZIP is written to; it cannot be gone back in."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        taken = bytes(data)  # type: ignore[call-overload]
        self._waiting += taken
        return len(taken)

    def taken(self) -> bytes:
        """What was written since the last call."""
        data = bytes(self._waiting)
        self._waiting.clear()
        return data
