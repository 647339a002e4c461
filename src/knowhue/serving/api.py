"""The routes of the HTTP API: reading a request's options and image, and answering."""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.staticfiles import StaticFiles

from knowhue import __version__
from knowhue.config import Task
from knowhue.errors import (
    ConfigError,
    ImageError,
    KnowhueError,
    RunError,
    WeightsError,
    did_you_mean,
    few,
    one_of,
    shown,
)
from knowhue.images.image import FORMATS, recognise
from knowhue.images.reading import HEAD_BYTES
from knowhue.images.writing import encode_image, writable_suffix
from knowhue.inference.colorizer import ColorizeOptions, Colorizer
from knowhue.inference.pipeline import Busy, Late, Stopping
from knowhue.inference.requests import (
    IMAGE_FIELD,
    REFERENCE_FIELD,
    STROKES_FIELD,
    Batcher,
    ImageReply,
    ImageRequest,
    NoImageError,
)
from knowhue.serving import schemas
from knowhue.serving.limits import STOPPING, Refusal, Shield, prefers_json, quality
from knowhue.serving.monitoring import Monitor, Trimmer
from knowhue.serving.settings import ServerSettings
from knowhue.serving.studies import file_response, study_routes
from knowhue.settings_text import describe_problem

SCORES_IN_HEADER = 5
_HERE = Path(__file__).parent
TAGS = [
    {"name": "images", "description": "Colour or classify one image."},
    {"name": "models", "description": "What the server can do."},
    {"name": "operation", "description": "Probes and metrics for operators."},
]
"""Groups of routes in the OpenAPI documentation."""
MOST_FIELDS = 80  # `MOST_HINTS` and all other options
LONGEST_FIELD = 4096
_FORMS = "`multipart/form-data` with a file `image`, or the image's bytes with its type, such as `image/jpeg`"
Files = dict[str, bytes]
FormFields = list[tuple[str, str]]
T = TypeVar("T", bound=schemas.ClassOptions)
STATUSES: dict[type[KnowhueError], tuple[int, str]] = {
    NoImageError: (415, "kind"),
    ImageError: (422, "image"),
    ConfigError: (422, "option"),
    RunError: (422, "format"),
    WeightsError: (500, "model"),
}
"""HTTP status of an error, and its reason in the metrics; the first class that matches counts."""


def make_app(models: Mapping[str, Colorizer], settings: ServerSettings, with_page: bool = False) -> FastAPI:
    """Return the API for models by name; the first is the default.

    `app.state.batchers` maps each name to a `Batcher`, which is closed when the app's lifespan ends.
    """
    monitor = Monitor()
    batchers = {
        name: Batcher(model, settings.limits, settings.max_pixels, partial(monitor.observe, name), Trimmer())
        for name, model in models.items()
    }
    for name, batcher in batchers.items():
        monitor.queue.labels(name).set_function(lambda batcher=batcher: batcher.length)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        for batcher in batchers.values():
            await asyncio.to_thread(batcher.close, settings.stop_seconds)

    app = FastAPI(
        title="Knowhue",
        version=__version__,
        summary="Colours and a class for a gray photo.",
        docs_url=None,  # FastAPI's own page loads scripts from another host
        redoc_url=None,
        redirect_slashes=False,  # a redirect would name the host that the client sent
        openapi_tags=TAGS,
        generate_unique_id_function=lambda route: route.name,
        lifespan=lifespan,
        # only for OpenAPI, so that /docs asks for the token; `Shield` checks it
        dependencies=[Depends(HTTPBearer(auto_error=False))] if settings.token else [],
    )
    app.state.batchers, app.state.monitor = batchers, monitor
    app.include_router(_router)
    _add_files(app, settings, with_page)
    routes = (*_router.routes, *app.routes)
    monitor.paths = frozenset(route.path for route in routes if isinstance(route, APIRoute))
    for kind in (HTTPException, KnowhueError):
        app.add_exception_handler(kind, _refuse)
    app.add_middleware(Shield, settings=settings, monitor=monitor)
    return app


def _add_files(app: FastAPI, settings: ServerSettings, with_page: bool) -> None:
    """Add the static files of /docs and of the page, which calls the API like any other client."""
    files = {"/docs": "docs/index.html", "/favicon.ico": "docs/icon.svg"}
    folders = {"/docs": "docs"}
    if with_page:
        app.include_router(study_routes(settings.studies))
        files["/"] = "page/index.html"
        folders |= {"/page/examples": "examples", "/page": "page"}
    for path, name in files.items():
        app.add_api_route(path, partial(file_response, _HERE / name), include_in_schema=False)
    for path, name in folders.items():
        app.mount(path, StaticFiles(directory=_HERE / name))


_router = APIRouter()
_UNAUTHORIZED: dict[int | str, dict[str, Any]] = {401: {"model": schemas.ErrorAnswer}}


@_router.post(
    "/v1/colorize",
    name="colorize",
    tags=["images"],
    summary="Colour an image",
    response_model=schemas.ColourAnswer,
    responses={
        200: {
            "description": "The image, in the `format` or as `Accept` prefers; or JSON, if `Accept` prefers that.",
            "content": schemas.IMAGES,
            "headers": {
                "Knowhue-Model": schemas.header("name of the model, percent-encoded"),
                "Knowhue-Class": schemas.header("most probable class or `unknown`, percent-encoded"),
                "Knowhue-Probability": schemas.header("probability of the most probable class, 0 to 1"),
                "Knowhue-Scores": schemas.header("JSON object with the probabilities of the best classes"),
                "Knowhue-Warnings": schemas.header("JSON list of warnings, if there are any"),
                "Knowhue-Uncertainty": schemas.header(
                    "mean uncertainty of the colours, CIELAB units, if `uncertainty`"
                ),
            },
        },
        **schemas.refusals(),
    },
    openapi_extra=schemas.body_schema(schemas.ColourOptions),
)
async def colorize_upload(request: Request) -> Response:
    """Send the image as the body or in a form. Options are query parameters or form fields; form fields override."""
    files, options, name, batcher = await _read_request(request, schemas.ColourOptions, "colour")
    colorize_options = ColorizeOptions(
        **options.model_dump(include={"saturation", "uncertainty", "unknown_below", "sample"})
    )
    batcher.colorizer.require_options(colorize_options)
    accept = ", ".join(request.headers.getlist("accept"))
    suffix = f".{options.format}" if options.format else _accepted_suffix(accept, files[IMAGE_FIELD])
    image_request = ImageRequest(
        files[IMAGE_FIELD],
        colorize_options,
        options.hints,
        suffix=suffix,
        max_px=options.max_px,
        reference=files.get(REFERENCE_FIELD),
        strokes=files.get(STROKES_FIELD),
        fast=options.fast,
    )
    del files  # so that only the queue holds them
    reply = await _reply(request, batcher, image_request)
    media_type = schemas.MEDIA_TYPES[reply.suffix]
    if prefers_json(accept, media_type):
        # in a thread, because base64 of a large image takes long
        return await asyncio.to_thread(_as_json, name, reply, options.max_px is not None)
    return Response(reply.data, media_type=media_type, headers=_judgement_headers(name, reply))


@_router.post(
    "/v1/classify",
    tags=["images"],
    summary="Classify an image",
    response_model=schemas.JudgementAnswer,
    responses=schemas.refusals(),
    openapi_extra=schemas.body_schema(schemas.ClassOptions),
)
async def classify(request: Request) -> Response:
    """Return the class, its probability and warnings, without colouring. Send the image as for `/v1/colorize`."""
    files, options, name, batcher = await _read_request(request, schemas.ClassOptions, "class")
    colorize_options = ColorizeOptions(unknown_below=options.unknown_below)
    image_request = ImageRequest(files[IMAGE_FIELD], colorize_options, colour=False)
    del files
    reply = await _reply(request, batcher, image_request)
    return JSONResponse({"model": name, **reply.judgement.as_record()})


@_router.get("/v1/models", tags=["models"], summary="List the models", responses=_UNAUTHORIZED)
async def list_models(request: Request) -> list[schemas.ModelAnswer]:
    """Return name, tasks, classes and measured scores of each model; the first is the default."""
    batchers: Mapping[str, Batcher] = request.app.state.batchers
    return [schemas.ModelAnswer.of(name, each.colorizer) for name, each in batchers.items()]


@_router.get("/healthz", tags=["operation"], summary="Whether the process answers")
async def healthz() -> schemas.StatusAnswer:
    """Return 200 as long as the process runs."""
    return schemas.StatusAnswer(status="ok")


@_router.get(
    "/readyz",
    tags=["operation"],
    summary="Whether it accepts work",
    responses={503: {"model": schemas.ErrorAnswer}},
)
async def readyz(request: Request) -> schemas.StatusAnswer:
    """Return 200 while requests are accepted, and 503 when the server is stopping."""
    if not all(batcher.is_open for batcher in request.app.state.batchers.values()):
        raise Stopping
    return schemas.StatusAnswer(status="ready")


@_router.get(
    "/metrics",
    tags=["operation"],
    summary="Metrics for Prometheus",
    responses={200: {"content": {"text/plain": {}}}, **_UNAUTHORIZED},
)
async def metrics(request: Request) -> Response:
    """Return counts of requests and refusals, durations, and the lengths of the queues."""
    return Response(request.app.state.monitor.text(), headers={"content-type": CONTENT_TYPE_LATEST})


def _accepted_suffix(accept: str, data: bytes) -> str | None:
    """Return the suffix of the format that `Accept` prefers to the image's own; None for its own."""
    kind = recognise(data[:HEAD_BYTES])
    if kind is None:
        return None  # refused when the image is read
    own = schemas.MEDIA_TYPES[writable_suffix(FORMATS[kind].suffixes[0])]
    # the own format comes first, so that another must have a larger weight
    wanted = max(own, *schemas.IMAGES, key=lambda each: quality(accept, each)[0])
    suffixes = (suffix for suffix, each in schemas.MEDIA_TYPES.items() if each == wanted)
    return None if wanted == own else next(suffixes)


async def _read_request(request: Request, kind: type[T], task: Task) -> tuple[Files, T, str, Batcher]:
    """Return the files by field name, the options, and the model's name and batcher; reads only if there is room."""
    _batcher(request, request.query_params.get("model"))[1].check()
    try:
        files, form = await _read_upload(request, tuple(kind.files))
    except ClientDisconnect:
        raise Refusal(400, "gone", "The client left.") from None
    options = parse_options(kind, request.query_params.multi_items(), form)
    name, batcher = _batcher(request, options.model)
    tasks = batcher.colorizer.network.description.tasks
    if task not in tasks:
        found = f"Found `{name}`, trained only for {' and '.join(tasks)}."
        raise Refusal(422, "model", f"`model` should have a {task} head. {found} /v1/models lists all.")
    return files, options, name, batcher


def _batcher(request: Request, name: str | None) -> tuple[str, Batcher]:
    batchers: Mapping[str, Batcher] = request.app.state.batchers
    chosen = next(iter(batchers)) if name is None else name
    if chosen not in batchers:
        raise Refusal(404, "model", one_of("model", chosen, batchers))
    return chosen, batchers[chosen]


async def _reply(request: Request, batcher: Batcher, image_request: ImageRequest) -> ImageReply:
    """Return the reply; raises an error if the time limit is reached, or the client leaves, before."""
    future = asyncio.wrap_future(batcher.submit(image_request))
    disconnected = asyncio.create_task(_disconnection(request))
    seconds = batcher.limits.item_seconds
    try:
        await asyncio.wait({future, disconnected}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            return future.result()
        if disconnected.done():
            raise Refusal(400, "gone", "The client left.")
        raise Late(seconds)
    finally:
        disconnected.cancel()
        future.cancel()  # drops an unfinished request before its next stage


async def _disconnection(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _as_json(name: str, reply: ImageReply, is_reduced: bool) -> Response:
    assert reply.colorized is not None  # `/v1/classify` alone does not colour
    answer = schemas.ColourAnswer(
        model=name,
        **reply.judgement.as_record(),
        image=b64encode(reply.data).decode(),
        media_type=schemas.MEDIA_TYPES[reply.suffix],
        fast=reply.colorized.fast,
    )
    if reply.colorized.uncertainty is not None:
        mean = round(float(reply.colorized.uncertainty.mean()), 4)
        png = b64encode(encode_image(reply.colorized.uncertainty_map(), ".png")).decode()
        answer.uncertainty = schemas.UncertaintyAnswer(mean=mean, map=png)
    if is_reduced:
        width, height, suffix = reply.full
        answer.full = schemas.FullAnswer(width=width, height=height, media_type=schemas.MEDIA_TYPES[suffix])
    text = answer.model_dump_json(exclude=None if is_reduced else {"full"})  # absent instead of null
    return Response(text, media_type="application/json", headers={"vary": "accept"})


def _judgement_headers(name: str, reply: ImageReply) -> dict[str, str]:
    record = reply.judgement.as_record()
    headers = {"knowhue-model": quote(name), "vary": "accept"}
    if record["label"] is not None:
        best = dict(list(record["probabilities"].items())[:SCORES_IN_HEADER])
        headers["knowhue-class"] = quote(record["label"])
        headers["knowhue-probability"] = str(record["probability"])
        headers["knowhue-scores"] = json.dumps(best)
    if record["warnings"]:
        headers["knowhue-warnings"] = json.dumps(record["warnings"])
    if reply.colorized is not None and reply.colorized.uncertainty is not None:
        headers["knowhue-uncertainty"] = f"{reply.colorized.uncertainty.mean():.4f}"
    return headers


async def _refuse(request: Request, error: Exception) -> Response:
    """Raise a `Refusal`, which `Shield` answers."""
    match error:
        case HTTPException():
            raise Refusal(error.status_code, "", _routing_error(request, error), error.headers or {})
        case Busy():
            seconds = error.retry_after_seconds
            busy = f"The server is busy with {error.length} requests. Try again in {seconds} s."
            raise Refusal(429, "busy", busy, {"retry-after": str(seconds)})
        case Stopping():
            raise Refusal(*STOPPING)
        case Late():
            late = (
                f"The image should be processed within {error.seconds:g} s. It was not. Send a smaller one."
            )
            raise Refusal(504, "late", late)
    for kind, (status, reason) in STATUSES.items():
        if isinstance(error, kind):
            raise Refusal(status, reason, str(error))
    raise error


def _routing_error(request: Request, error: HTTPException) -> str:
    path = shown(request.url.path)
    if error.status_code == 404:
        return one_of("path", path, [*request.app.openapi()["paths"], "/docs"])
    allowed = (error.headers or {}).get("Allow")
    if error.status_code == 405 and allowed:
        return f"`{path}` should be requested with {allowed}. Found {request.method}; /docs describes every request."
    return f"{error.detail}: {request.method} {path}"


def _not_an_option(name: str, kind: type[schemas.ClassOptions]) -> str:
    if name in kind.files:
        return f"`{name}` should be a file in a form, as sent by `curl -F {name}=@FILE`. Found text."
    known = list(kind.model_fields)
    return f"An option should be one of {', '.join(known)}. Found `{shown(name)}`.{did_you_mean(name, known)}"


async def _read_upload(request: Request, names: Sequence[str]) -> tuple[Files, FormFields]:
    """Read the whole request; returns its files by field name, and the names and values of other form fields."""
    packed = request.headers.get("content-encoding", "").strip().lower()
    if packed not in ("", "identity"):
        remedy = "send the image without compressing it"
        raise Refusal(415, "kind", f"`Content-Encoding` should be left out. Found {shown(packed)}; {remedy}.")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    form: FormFields = []
    if kind == "multipart/form-data":
        files, form = await _read_form(request, names)
    elif kind.startswith("image/"):
        files = {IMAGE_FIELD: b"".join([chunk async for chunk in request.stream()])}
    else:
        raise Refusal(415, "kind", f"`Content-Type` should be {_FORMS}. Found {shown(kind) or 'none'}.")
    if empty := [name for name, data in files.items() if not data]:
        remedy = "Check that the file is not empty, and that the client sends its content."
        raise Refusal(400, "form", f"`{empty[0]}` should be the bytes of an image. Found none. {remedy}")
    return files, form


class _InMemory(MultiPartParser):
    spool_max_size = 1 << 62  # uploads must not be written to a disk


async def _read_form(request: Request, names: Sequence[str]) -> tuple[Files, FormFields]:
    limits: Any = {"max_files": MOST_FIELDS, "max_fields": MOST_FIELDS, "max_part_size": LONGEST_FIELD}
    parser = _InMemory(request.headers, request.stream(), **limits)
    try:
        pairs = (await parser.parse()).multi_items()
        files = [(name, value) for name, value in pairs if isinstance(value, UploadFile)]
        given = [name for name, _ in files]
        if IMAGE_FIELD not in given or len({*given}) < len(given) or not {*given} <= {*names}:
            others = [f"`{name}`" for name in names if name != IMAGE_FIELD]
            also = f", and optionally files named {' and '.join(others)}" if others else ""
            found = few([f"`{shown(name)}`" for name in given]) or "none"
            remedy = f"Send it as `curl -F {IMAGE_FIELD}=@FILE` does."
            message = f"The form should have one file named `{IMAGE_FIELD}`{also}. Found {found}. {remedy}"
            raise Refusal(400, "form", message)
        texts = [(name, value) for name, value in pairs if isinstance(value, str)]
        return {name: await value.read() for name, value in files}, texts
    except MultiPartException as error:
        raise Refusal(400, "form", f"The form should be {_FORMS}. Found: {error.message}") from None
    finally:
        for file in parser._files_to_close_on_error:  # a form that breaks off lists its files only here
            file.close()


def parse_options(kind: type[T], *sources: Sequence[tuple[str, str]]) -> T:
    """Return the options of a query and of a form, in that order; later sources have priority.

    Each source is checked on its own, so a wrong value is refused even if it is overridden.

    Raises:
        ConfigError: an option is unknown, out of range, or given twice.

    >>> parse_options(schemas.ColourOptions, [("hints", "1,2=red"), ("saturation", "0.5"), ("hints", "3,4=blue")]).hints
    ('1,2=red', '3,4=blue')
    """
    values: dict[str, Any] = {}
    try:
        for pairs in sources:
            given: dict[str, Any] = {}
            for name, value in pairs:
                if name == "hints":
                    given.setdefault(name, []).append(value)
                elif name in given:
                    raise ConfigError(f"`{shown(name)}` should be given once. Found it twice.")
                else:
                    given[name] = value
            kind.model_validate(given)
            values |= given
        return kind.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        if problem["type"] == "extra_forbidden":
            raise ConfigError(_not_an_option(str(problem["loc"][0]), kind)) from None
        raise ConfigError(describe_problem(problem, kind)) from None
