"""The API's documentation as a page, from files of this machine alone.

`swagger_ui/` holds Swagger UI 5.35.0 as npm's `swagger-ui-dist` has it (Apache-2.0; LICENSE and NOTICE lie beside it).
"""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse, Response

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Knowhue API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="stylesheet" href="/docs/start.css">
<link rel="icon" href="/favicon.ico">
</head>
<body>
<div id="docs"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
START = """const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();
SwaggerUIBundle({url: "/openapi.json", dom_id: "#docs", validatorUrl: null, deepLinking: false});
"""
STYLE = """.swagger-ui .response-col_links { display: none; }
"""
"""No route has links; their empty column makes a phone scroll sideways."""
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path fill="#8a929b" d="M8 1a7 7 0 0 0 0 14z"/>'
    '<path fill="#c8500a" d="M8 1a7 7 0 0 1 0 14z"/></svg>'
)
ASSETS = ("swagger-ui.css", "swagger-ui-bundle.js")
_FOLDER = Path(__file__).parent / "swagger_ui"
_KEEP = {"cache-control": "max-age=86400"}

router = APIRouter(include_in_schema=False)


@router.get("/docs")
def page() -> HTMLResponse:
    """The page."""
    return HTMLResponse(PAGE)


@router.get("/docs/start.js")
def start() -> Response:
    """What starts it; its own file, so that no script need be inline."""
    return Response(START, media_type="text/javascript")


@router.get("/docs/start.css")
def style() -> Response:
    """What Swagger UI's own styles lack."""
    return Response(STYLE, media_type="text/css")


@router.get("/favicon.ico")
def icon() -> Response:
    """The sign in a browser's tab, which every page asks for."""
    return Response(ICON, media_type="image/svg+xml", headers=_KEEP)


def _add(name: str) -> None:
    router.add_api_route(f"/docs/{name}", lambda: FileResponse(_FOLDER / name, headers=_KEEP))


for _name in ASSETS:
    _add(_name)
