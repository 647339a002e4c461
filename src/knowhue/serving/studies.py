"""Routes of the page for study folders: progress as JSON, the newest samples, and reports."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from starlette.staticfiles import StaticFiles

from knowhue.errors import KnowhueError, shown
from knowhue.images.image import Image
from knowhue.images.writing import encode_image
from knowhue.plan import Plan, read_cells, read_plan
from knowhue.runs import ENDED, read_log, run_folder
from knowhue.serving.limits import Refusal
from knowhue.storage import read_arrays, read_json, real_path

CHARTS: tuple[dict[str, Any], ...] = (
    {"metric": "ab_l1", "title": "Colour error, CIELAB units (lower is better)",
     "baseline": "gray", "scale": 1, "places": 2, "unit": ""},
    {"metric": "balanced_accuracy", "title": "Balanced accuracy (higher is better)",
     "baseline": "majority_class", "scale": 100, "places": 1, "unit": " %"},
)  # fmt: skip
"""Charts drawn of every run; `baseline` is a row of `baselines.json`, scored without a model."""
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox allow-downloads"
)
"""Content-Security-Policy of a report: no scripts or requests, but its tables can be saved."""
_MOST_SAMPLES = 8
_UNREADABLE = (KnowhueError, OSError, ValueError, KeyError)
"""Errors of files that are being written, or damaged; a later request may succeed."""


def file_response(path: Path, request: Request) -> Response:
    """Return a file, or 304 if the client's copy is current, as `StaticFiles` does for a folder."""
    return StaticFiles(check_dir=False).file_response(path, path.stat(), request.scope)


def study_routes(studies: Sequence[Path]) -> APIRouter:
    """Return read-only routes for study folders, which are numbered by their place in the list."""
    router = APIRouter(prefix="/page", include_in_schema=False)

    # not `async`, so that FastAPI runs it in a thread, because it reads many files
    @router.get("/studies.json")
    def progress() -> list[dict[str, Any]]:
        return [study_progress(root) for root in studies]

    @router.get("/studies/{place:int}/report.html")
    def report(place: int, request: Request) -> Response:
        path = _study(place) / "report.html"
        if not path.is_file():
            raise Refusal(404, "", "The study has no report yet: `knowhue report` writes one at any time.")
        response = file_response(path, request)
        response.headers["content-security-policy"] = REPORT_POLICY
        return response

    @router.get("/studies/{place:int}/{row}.png")
    async def samples(place: int, row: str) -> Response:
        data = await asyncio.to_thread(sample_strip, _study(place), row)
        if data is None:
            message = f"The study has no sample images `{shown(row)}` yet. /page/studies.json names them."
            raise Refusal(404, "", message)
        return Response(data, media_type="image/png")

    def _study(place: int) -> Path:
        if place >= len(studies):
            raise Refusal(404, "", f"The server shows no study {place}; its `--study` names what it shows.")
        return studies[place]

    return router


def study_progress(root: Path) -> dict[str, Any]:
    """Return the progress of a study: its runs, their scores after every epoch, and the available samples.

    Its `charts` are `CHARTS` with `level`, the baseline's score or None, and `curves` by arm, one a run, from the
    first epoch of the heads. A study that cannot be read has only a `name` and a `problem`.
    """
    name = real_path(root).name
    try:
        plan = read_plan(root)
        cells = read_cells(root, plan)
        return {
            "name": name,
            "ended": sum(cell.state in ENDED for cell in cells),
            "runs": len(cells),
            "seeds": plan.seeds,
            "has_report": (root / "report.html").is_file(),
            "arms": [
                {
                    "name": arm,
                    # decides the colour on the page
                    "kind": "multi" if len(plan.run_config(arm, 0).tasks.names) > 1 else "single",
                    "cells": [cell._asdict() for cell in cells if cell.arm == arm],
                }
                for arm in plan.arms
            ],
            "charts": _charts(root, plan),
            # a new version makes the browser load the row again
            "samples": {row: str(path.stat().st_mtime_ns) for row, path in _sample_files(root, plan).items()},
            "classes": _sample_classes(root),
        }
    except _UNREADABLE as error:
        if not isinstance(error, KnowhueError):
            return {"name": name, "problem": "Its files cannot be read at the moment."}
        # visitors of the page need not know the path of the folder
        return {"name": name, "problem": f"Not shown: {error}".replace(str(root), name)}


def sample_strip(root: Path, row: str) -> bytes | None:
    """Return a PNG of the sample images side by side: `gray`, `truth`, or the colours by the newest run of an arm."""
    try:
        path = _sample_files(root, read_plan(root)).get(row)
        if path is None:
            return None
        tiles = read_arrays(path)[row if row in ("gray", "truth") else "rgb"][:_MOST_SAMPLES]
    except _UNREADABLE:
        return None
    return encode_image(Image.of(np.concatenate(list(tiles), axis=1)), ".png")


def _runs(root: Path, plan: Plan, arm: str) -> list[Path]:
    return [run_folder(root, arm, plan.run_config(arm, seed)) for seed in plan.seeds]


def _charts(root: Path, plan: Plan) -> list[dict[str, Any]]:
    path = root / "baselines.json"
    baselines = read_json(path) if path.is_file() else {}
    logs = {arm: [read_log(run) for run in _runs(root, plan, arm)] for arm in plan.arms}

    def curves(metric: str, arm: str) -> list[list[float]]:
        found = [[epoch["validation"].get(metric) for epoch in log] for log in logs[arm]]
        return [values for values in found if values and None not in values]

    return [
        {
            **chart,
            # the curves are of the validation split, too
            "level": baselines.get(chart["baseline"], {}).get("validation", {}).get(chart["metric"]),
            "curves": {arm: curves(chart["metric"], arm) for arm in plan.arms},
        }
        for chart in CHARTS
    ]


def _sample_files(root: Path, plan: Plan) -> dict[str, Path]:
    """Return the file of each row of samples: gray images, the newest run of each colouring arm, true images."""
    prepared = root / "images" / "samples.npz"
    if not prepared.is_file():
        return {}
    files = {"gray": prepared}
    for arm in plan.arms:
        samples = [run / "samples.npz" for run in _runs(root, plan, arm)]
        written = [path for path in samples if path.is_file()]
        if written and "colour" in plan.run_config(arm, plan.seeds[0]).tasks.names:
            # the runs of an arm take turns; the newest file shows the current state of training
            files[arm] = max(written, key=lambda path: path.stat().st_mtime_ns)
    return files | {"truth": prepared}


def _sample_classes(root: Path) -> list[str]:
    """Return the class of each shown sample image, from left to right; empty for an image without a class."""
    given, prepared = (root / "images" / name for name in ("samples.npz", "prepared.json"))
    if not given.is_file():
        return []
    names = read_json(prepared)["classes"]
    return [names[label] if label >= 0 else "" for label in read_arrays(given)["label"][:_MOST_SAMPLES]]
