"""The `Accept` header, as RFC 9110 defines it and as clients send it."""

import pytest
from fake_server import colorizer, photo
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from knowhue.images.image import recognise
from knowhue.serving.api import make_app
from knowhue.serving.limits import JSON, prefers_json, quality
from knowhue.serving.settings import ServerSettings

JPEG = "image/jpeg"


@pytest.mark.parametrize(
    ("accept", "is_json"),
    [
        ("", False),
        ("*/*", False),
        ("image/*", False),
        ("application/json", True),
        ("APPLICATION/JSON", True),
        ("application/*", True),
        ("application/json;charset=utf-8", True),
        ("image/jpeg, application/json;q=0.1", False),
        ("image/jpeg;q=0.1, application/json", True),
        ("application/json;q=0", False),
        ("application/json;q=0, */*", False),
        ("application/json;q=0.000", False),
        ("image/png, application/json;q=0.2", True),
        ("application/json, text/plain, */*", True),
        ("*/*, application/json", True),
        ("image/jpeg, application/json", False),
        ("application/json, image/*", True),
        ("application/json, image/*;q=0.5", True),
        ("application/json;q=0.5, image/*", False),
        ("*/*;q=0.1, image/*;q=0", True),
        ("image/*;q=0.9, image/jpeg;q=0.1, application/json;q=0.5", True),
        ("application/json ; Q = 0.3 , image/jpeg ; q=0.4", False),
        ("application/json;q=1.000;ext=1", True),
        ("application/jsonx, text/application/json, xapplication/json", False),
        ("text/html", False),
        ('text/plain;x="application/json,application/json"', False),
        ("application/json;q=2", False),
        ("application/json;q=-1", False),
        ("application/json;q=abc", False),
        ("application/json;q=", False),
        (",,;q=1,", False),
    ],
)
def test_what_a_client_would_rather_have(accept: str, is_json: bool):
    assert prefers_json(accept, JPEG) is is_json


WEIGHTS = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)


@given(WEIGHTS, WEIGHTS)
def test_the_larger_weight_wins_in_either_order(one: float, other: float):
    said = [f"{JSON};q={one}", f"{JPEG};q={other}"]
    for parts in (said, said[::-1]):
        assert prefers_json(", ".join(parts), JPEG) is (one > other)


@given(st.permutations(["*/*;q=0.2", "image/*;q=0.4", "image/jpeg;q=0.3"]))
def test_the_exact_goes_before_the_general_in_any_order(parts: list[str]):
    accept = ", ".join(parts)
    assert [quality(accept, kind)[0] for kind in (JPEG, "image/png", JSON)] == [0.3, 0.4, 0.2]


@given(st.text(max_size=80))
def test_any_text_is_read(accept: str):
    assert 0 <= quality(accept, JSON)[0] <= 1


@given(WEIGHTS, st.text(alphabet="abcz/*;=,. ", max_size=30))
def test_what_else_stands_there_changes_nothing(weight: float, other: str):
    assert quality(f"{JSON};q={weight}, x/y;{other.replace(',', '')}", JSON)[0] == weight


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        (["image/jpeg, application/json;q=0.1"], JPEG),
        (["application/json;q=0"], JPEG),
        (["image/jpeg;q=0.1", "application/json"], JSON),
        (["image/png, application/json;q=0.5"], "image/png"),
        (["image/png;q=0.4", "application/json;q=0.5"], JSON),
        (["image/tiff;q=0.4, image/*;q=0.3, application/json;q=0.3"], "image/tiff"),
        (["image/webp, image/*, */*;q=0.8"], JPEG),
        (["image/webp;q=.5, image/png;q=.9"], "image/png"),  # without the zero, as many programs send it
        (["image/png;q=1., image/jpeg;q=.5"], "image/png"),
        (["image/heic, image/svg+xml"], JPEG),
        ([], JPEG),
    ],
)
def test_the_api_answers_so(lines: list[str], kind: str):
    app = make_app({"fake": colorizer()}, ServerSettings(workers=1))
    with TestClient(app, base_url="http://localhost") as client:
        headers = [("content-type", JPEG), *(("accept", line) for line in lines)]
        client.headers.pop("accept")
        answer = client.post("/v1/colorize", content=photo(), headers=headers)
    assert answer.headers["content-type"] == kind
    assert answer.headers["vary"] == "accept"
    if kind != JSON:
        assert recognise(answer.content) == kind.removeprefix("image/").upper()


def test_a_format_that_is_named_is_not_negotiated():
    app = make_app({"fake": colorizer()}, ServerSettings(workers=1))
    with TestClient(app, base_url="http://localhost") as client:
        headers = {"content-type": JPEG, "accept": "image/png"}
        answer = client.post("/v1/colorize?format=webp", content=photo(), headers=headers)
    assert answer.headers["content-type"] == "image/webp"
