"""Requests that the OpenAPI document allows are answered as it says; others are refused as it says."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import schemathesis
from fake_server import ChoosingNetwork, photo
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from knowhue.images.image import Image
from knowhue.images.writing import encode_image
from knowhue.inference.colorizer import Colorizer
from knowhue.serving.api import make_app
from knowhue.serving.settings import ServerSettings

PHOTOS = [
    photo(kind, width, 20, value) for kind in ("jpeg", "png", "gif") for width, value in ((20, 0), (33, 255))
]
COLOURS = encode_image(Image.of(np.full((20, 30, 3), (200, 60, 40), np.uint8)), ".png")
STROKES = [
    encode_image(
        Image(np.full((20, width, 3), (200, 60, 40), np.uint8), np.full((20, width), 255, np.uint8)), ".png"
    )
    for _ in range(3)
    for width in (20, 33)
]
EXAMPLES = 60


@asynccontextmanager
async def _endless(_: FastAPI) -> AsyncIterator[None]:
    yield


schemathesis.openapi.media_type("image/*", st.sampled_from(PHOTOS))
schemathesis.openapi.format("binary", st.sampled_from(PHOTOS))
schemathesis.openapi.format("hint", st.sampled_from(["0,0=red", "99.5%, 3%=#00ff7f", "5,6 = rgb(1, 2, 3)"]))
app = make_app({"fake": Colorizer(ChoosingNetwork())}, ServerSettings(workers=1, batch_wait_ms=0))
app.router.lifespan_context = _endless  # each case starts and ends one; the batcher stays
schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers={"host": "localhost"})
# of wrong options the server may refuse the length before it reads them
schema.config.checks.negative_data_rejection.expected_statuses.append("431")


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_what_the_description_says(case: schemathesis.Case):
    assert case.meta is not None
    if case.meta.generation.mode.is_positive and isinstance(case.body, dict):
        # schemathesis makes some parts of a form from random bytes, whatever their format.
        case.body["image"] = PHOTOS[len(repr(case.body)) % len(PHOTOS)]
        if "reference" in case.body:  # what has no colours is refused
            case.body["reference"] = COLOURS
        if "strokes" in case.body:  # and so are strokes of another size, or gray ones
            case.body["strokes"] = STROKES[PHOTOS.index(case.body["image"])]
    case.call_and_validate(headers={"host": "localhost"})
