"""The HTTP API: uploads, options, previews, formats of answers and errors."""

import base64
import gzip
import io
import json
import re
import socket
import sys
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError

import numpy as np
import pytest
from api_client import colorize
from fake_network import CLASSES, FakeNetwork
from fake_server import ChoosingNetwork, MatchingNetwork, colorizer, photo, running, wait_until
from fastapi.testclient import TestClient
from odd_files import chunk, preview_first
from PIL import Image
from tiny_models import colours_network
from tiny_third_party import painted

from knowhue.errors import WeightsError
from knowhue.images.image import Image as KnowhueImage
from knowhue.images.image import Origin
from knowhue.images.writing import encode_image
from knowhue.inference.colorizer import ColorizeOptions, Colorizer
from knowhue.inference.colour_distribution import MOST_ANSWERS, SeveralSizes
from knowhue.inference.description import ScoreInterval
from knowhue.inference.hints import strokes_of
from knowhue.inference.networks import Predictions
from knowhue.inference.requests import reduced
from knowhue.serving.api import make_app
from knowhue.serving.schemas import ModelAnswer
from knowhue.serving.settings import ServerSettings

JPEG, PNG = photo(), photo("png", mode="RGB")
AS_JPEG, AS_JSON = (
    {"content-type": "image/jpeg"},
    {"content-type": "image/jpeg", "accept": "application/json"},
)


def client_of(models: dict[str, Colorizer] | None = None, **settings) -> TestClient:
    app = make_app(models or {"fake": colorizer()}, ServerSettings(**{"workers": 2, **settings}))
    return TestClient(app, base_url="http://localhost", raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client():
    models = {
        "multi": colorizer(),
        "only class": colorizer(tasks=("class",)),
        "only colour": colorizer(tasks=("colour",)),
    }
    with client_of(models) as made:
        yield made


def error_of(answer) -> str:
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    assert "\n" not in answer.json()["error"]
    # advice must suit the client, who has neither our command line nor the server's packages
    assert not re.search(r"--[a-z]|pip install|\.png\b", answer.json()["error"])
    return answer.json()["error"]


def test_bytes_and_form_are_answered_alike_and_as_the_colorizer_would(client: TestClient):
    alone = colorizer().colorize(JPEG, ColorizeOptions(saturation=0.5))
    raw = client.post("/v1/colorize", params={"saturation": 0.5}, content=JPEG, headers=AS_JPEG)
    form = client.post("/v1/colorize", files={"image": ("p.jpg", JPEG)}, data={"saturation": "0.5"})
    assert raw.status_code == form.status_code == 200
    assert raw.content == form.content == encode_image(alone.image, ".jpg")
    assert raw.headers["content-type"] == "image/jpeg"


def test_what_is_said_of_the_image_is_in_the_headers(client: TestClient):
    answer = client.post("/v1/colorize", content=photo(value=255), headers=AS_JPEG)
    assert answer.headers["knowhue-class"] == "bright"
    assert float(answer.headers["knowhue-probability"]) == pytest.approx(1, abs=1e-3)
    assert list(json.loads(answer.headers["knowhue-scores"])) == ["bright", "dark"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (JPEG + b"\0\0\0\x18ftypmp42", "motion photo"),
        (JPEG + JPEG, "first image in its file"),
        (PNG[:33] + chunk(b"gAMA", (100_000).to_bytes(4, "big")) + PNG[33:], "gAMA 1"),
        (preview_first(), "page 2"),
    ],
)
def test_what_was_found_in_the_file_is_a_warning(client: TestClient, content: bytes, said: str):
    answer = client.post("/v1/colorize", content=content, headers={"content-type": "image/*"})
    assert said in "".join(json.loads(answer.headers["knowhue-warnings"]))
    record = client.post(
        "/v1/colorize", content=content, headers={**AS_JSON, "content-type": "image/*"}
    ).json()
    assert said in "".join(record["warnings"])


def test_json_has_the_same_image_and_more(client: TestClient):
    image = client.post("/v1/colorize", content=JPEG, headers=AS_JPEG).content
    answer = client.post("/v1/colorize", params={"uncertainty": "true"}, content=JPEG, headers=AS_JSON).json()
    assert base64.b64decode(answer["image"]) == image
    assert (answer["media_type"], answer["model"]) == ("image/jpeg", "multi")
    assert set(answer["probabilities"]) == set(CLASSES)
    unsure = Image.open(io.BytesIO(base64.b64decode(answer["uncertainty"]["map"])))
    assert unsure.size == (48, 32)
    assert answer["uncertainty"]["mean"] == pytest.approx(np.asarray(unsure).mean() / 5, abs=0.11)


@pytest.mark.parametrize(
    ("sent", "options", "kind"),
    [
        (photo("png"), {}, "image/png"),
        (photo("webp", mode="RGB"), {}, "image/webp"),
        (photo("tiff"), {}, "image/tiff"),
        (photo("bmp"), {}, "image/png"),
        (photo("gif"), {}, "image/png"),
        (JPEG, {"format": "webp"}, "image/webp"),
        (JPEG, {"format": "tif"}, "image/tiff"),
        (PNG, {"format": "jpg"}, "image/jpeg"),
        (JPEG, {"format": "avif"}, "image/avif"),
    ],
)
def test_the_answer_is_of_the_images_kind_or_of_the_one_asked_for(
    client, sent: bytes, options: dict, kind: str
):
    answer = client.post("/v1/colorize", params=options, content=sent, headers={"content-type": "image/x"})
    assert answer.headers["content-type"] == kind
    assert Image.open(io.BytesIO(answer.content)).get_format_mimetype() == kind
    assert Image.open(io.BytesIO(answer.content)).size == (48, 32)


def test_layers_can_be_asked_for(client):
    asked = {"format": "ora", "max_px": 12}
    answer = client.post("/v1/colorize", params=asked, content=JPEG, headers={"content-type": "image/x"})
    assert answer.headers["content-type"] == "image/openraster"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        for name in ("data/photo.png", "data/colour.png"):
            assert Image.open(io.BytesIO(archive.read(name))).size == (12, 8)


@pytest.mark.parametrize("kind", ["png", "tiff", "jpeg"])
@pytest.mark.parametrize(("max_px", "size"), [(12, (12, 8)), (1, (1, 1)), (48, (48, 32)), (5000, (48, 32))])
def test_a_preview_is_a_smaller_answer_with_the_colours_and_the_class_of_the_whole(
    client, kind, max_px, size
):
    sent = {"content": photo(kind, value=200), "headers": AS_JSON}
    whole = client.post("/v1/colorize", params={"uncertainty": "true"}, **sent).json()
    small = client.post("/v1/colorize", params={"uncertainty": "true", "max_px": max_px}, **sent).json()
    images = [Image.open(io.BytesIO(base64.b64decode(each["image"]))) for each in (small, whole)]
    assert [each.size for each in images] == [size, (48, 32)]
    assert images[0].getpixel((0, 0)) == pytest.approx(images[1].getpixel((0, 0)), abs=3)
    assert Image.open(io.BytesIO(base64.b64decode(small["uncertainty"]["map"]))).size == size
    assert small["full"] == {"width": 48, "height": 32, "media_type": f"image/{kind}"}
    assert "full" not in whole
    for told in ("label", "probabilities", "novelty"):
        assert small[told] == whole[told]


def test_what_is_asked_of_a_preview_changes_nothing_of_what_the_whole_is(client):
    asked = {"max_px": 8, "format": "webp", "saturation": 0, "hints": "50%,50%=red"}
    answer = client.post("/v1/colorize", params=asked, content=PNG, headers=AS_JSON).json()
    assert answer["media_type"] == "image/webp"
    assert answer["full"] == {"width": 48, "height": 32, "media_type": "image/png"}


def test_a_reduced_image_keeps_its_depth_its_transparency_and_what_its_file_said():
    origin = Origin(notes=("a note",), bits=16)
    deep = KnowhueImage(
        np.full((100, 300, 3), 65535, np.uint16), np.full((100, 300), 65535, np.uint16), origin
    )
    small = reduced(deep, 60)
    assert small.pixels.shape == (20, 60, 3)
    assert small.alpha is not None
    assert small.alpha.shape == (20, 60)
    assert small.pixels.dtype == small.alpha.dtype == np.uint16
    assert small.pixels.min() == small.alpha.min() == 65535
    assert small.origin == origin
    assert reduced(deep, 300) is deep


def test_hints_may_be_several(client: TestClient):
    one = client.post("/v1/colorize", params={"hints": "25%,50%=blue"}, content=JPEG, headers=AS_JPEG)
    two = {"hints": ["25%,50%=blue", "40,3=#00ff00"]}
    raw = client.post("/v1/colorize", params=two, content=JPEG, headers=AS_JPEG)
    form = client.post("/v1/colorize", files={"image": JPEG}, data=two)
    assert raw.content == form.content != one.content


def test_several_colourings_can_be_asked_for_by_number():
    chooser, sent = Colorizer(ChoosingNetwork()), {"content": PNG, "headers": {"content-type": "image/png"}}
    with client_of({"one": chooser}) as client:
        assert client.get("/v1/models").json()[0]["samples"] == MOST_ANSWERS
        asked = ({}, *({"sample": number} for number in (1, 2, 3, 2)))
        made = [client.post("/v1/colorize", params=each, **sent).content for each in asked]
        usual, first, second, third, again = made
        assert usual == first
        assert len({first, second, third}) == 3
        assert second == again == encode_image(chooser.colorize(PNG, ColorizeOptions(sample=2)).image, ".png")
        for number in (0, MOST_ANSWERS + 1, "two"):
            refused = client.post("/v1/colorize", params={"sample": number}, **sent)
            assert refused.status_code == 422
            assert "`sample`" in refused.json()["error"]


def test_a_model_that_gives_one_colouring_says_so(client: TestClient):
    assert client.get("/v1/models").json()[0]["samples"] == 1
    refused = client.post("/v1/colorize", params={"sample": 2}, content=JPEG, headers=AS_JPEG)
    assert refused.status_code == 422
    assert "which gives one. Ask for one, or use a model" in error_of(refused)


@pytest.mark.parametrize("name", ["image", "reference", "strokes"])
def test_what_the_server_cannot_decode_is_to_be_sent_as_another_kind(client: TestClient, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99)
    refused = client.post("/v1/colorize", files={"image": JPEG} | {name: heic})
    assert refused.status_code == 415
    assert error_of(refused).startswith(f"`{name}` is HEIC, for which this server has no decoder.")
    # nor is it listed among what is read
    other = error_of(client.post("/v1/colorize", files={"image": JPEG} | {name: b"text"}))
    assert other.startswith(f"`{name}` is not an image that can be read (JPEG, ")
    assert "HEIC" not in other


def test_heic_is_listed_where_its_decoder_is_installed(client: TestClient, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(__spec__="a module's"))
    assert "AVIF, HEIC, BMP" in error_of(client.post("/v1/colorize", files={"image": b"text"}))


def test_a_body_without_an_images_type_is_told_which_it_has(client: TestClient):
    form = "application/x-www-form-urlencoded"  # what `curl --data-binary @photo.jpg` sends
    for kind, found in ((form, form), ("", "none")):
        refused = client.post("/v1/colorize", content=JPEG, headers={"content-type": kind})
        assert refused.status_code == 415
        assert error_of(refused).endswith(f"such as `image/jpeg`. Found {found}.")


def test_an_answer_too_long_for_its_format_is_to_be_had_in_another(client: TestClient):
    long = encode_image(KnowhueImage.of(np.zeros((2, 20_000, 1), np.uint8)), ".png")
    refused = client.post("/v1/colorize", params={"format": "webp"}, content=long, headers=AS_JPEG)
    assert refused.status_code == 422
    assert "at most 16,383 pixels per side. Found 20000 x 2. Choose PNG or TIFF." in error_of(refused)


def test_a_reference_comes_in_a_form_beside_the_image():
    rgb = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    reference = encode_image(KnowhueImage.of(rgb), ".png")
    image = encode_image(KnowhueImage.of(np.ascontiguousarray(rgb[:, ::-1, :1])), ".png")
    alone = Colorizer(MatchingNetwork())
    made = alone.colorize(image, ColorizeOptions(reference=alone.reference(reference)))
    with client_of({"fake": Colorizer(MatchingNetwork())}) as client:
        files = {"image": image, "reference": reference}
        assert client.post("/v1/colorize", files=files).content == encode_image(made.image, ".png")
        answer = client.post("/v1/colorize", files=files, headers={"accept": "application/json"}).json()
        assert answer["found_in_reference"] == made.judgement.as_record()["found_in_reference"]
        plain = client.post(
            "/v1/colorize", files={"image": image}, headers={"accept": "application/json"}
        ).json()
        assert plain["found_in_reference"] is None
        assert plain["image"] != answer["image"]
        for sent, status, words in (
            (files | {"reference": image}, 422, "`reference` has no colours to take"),
            (files | {"reference": b"hello"}, 415, "`reference` is not an image"),
            (files | {"reference": b""}, 400, "`reference` should be the bytes of an image"),
            (
                {"reference": reference},
                400,
                "one file named `image`, and optionally files named `reference` and `strokes`.",
            ),
        ):
            refused = client.post("/v1/colorize", files=sent)
            assert (refused.status_code, words in error_of(refused)) == (status, True)
        refused = client.post("/v1/classify", files=files)
        assert refused.status_code == 400
        assert "one file named `image`. Found `image`, `reference`." in error_of(refused)


def strokes(size: tuple[int, int] = (48, 32), colour: tuple[int, ...] = (200, 50, 50, 255)) -> bytes:
    file, layer = io.BytesIO(), Image.new("RGBA", size, 0)
    layer.paste(colour, (5, 10, 15, 20))
    layer.save(file, "png")
    return file.getvalue()


def test_strokes_come_in_a_form_beside_the_image(client: TestClient):
    plain = client.post("/v1/colorize", files={"image": PNG}).content
    painted_on = client.post("/v1/colorize", files={"image": PNG, "strokes": strokes()})
    image = KnowhueImage.of(np.asarray(Image.open(io.BytesIO(strokes()))))
    wanted = strokes_of(image._replace(pixels=image.pixels[..., :3], alpha=image.pixels[..., 3]), "", 48, 32)
    expected = colorizer().colorize(PNG, ColorizeOptions(strokes=wanted))
    assert painted_on.content == encode_image(expected.image, ".png") != plain
    for sent, status, words in (
        (strokes((20, 20)), 422, "`strokes` should be as large as the photo, 48 x 32. Found 20 x 20."),
        (strokes(colour=(0, 0, 0, 0)), 422, "`strokes` is transparent everywhere"),
        (PNG, 422, "`strokes` has no transparency"),
        (b"hello", 415, "`strokes` is not an image"),
    ):
        refused = client.post("/v1/colorize", files={"image": PNG, "strokes": sent})
        assert refused.status_code == status
        assert words in error_of(refused)


def test_a_photo_may_be_seen_at_one_size():
    several = Colorizer(SeveralSizes(colours_network()))
    noisy = encode_image(
        KnowhueImage.of(np.random.default_rng(0).integers(0, 256, (40, 60, 1), np.uint8)), ".png"
    )
    with client_of({"several": several, "once": colorizer()}) as client:

        def made(**options) -> dict:
            return client.post("/v1/colorize", params=options, content=noisy, headers=AS_JSON).json()

        usual, fast = made(), made(fast=True)
        expected = several.at_one_size().colorize(noisy).image
        assert base64.b64decode(fast["image"]) == encode_image(expected, ".png")
        assert fast["image"] != usual["image"]
        # how far it is from the images that were trained on depends on the sizes that it is seen at
        warned = [
            [each.partition(" (distance ")[0] for each in answer["warnings"]] for answer in (fast, usual)
        ]
        assert warned[0] == warned[1]
        assert (usual["fast"], fast["fast"]) == (False, True)
        assert [each["sizes"] for each in client.get("/v1/models").json()] == [3, 1]
        once, hurried = made(model="once"), made(model="once", fast=True)
        assert (once["image"], once["fast"]) == (hurried["image"], hurried["fast"])
        said = "`fast` changes nothing: `fake` predicts at one size anyway"
        assert hurried["warnings"] == [*once["warnings"], said]


def test_a_model_without_feature_maps_takes_no_reference(client: TestClient):
    colours = encode_image(KnowhueImage.of(np.full((8, 8, 3), (200, 40, 40), np.uint8)), ".png")
    refused = client.post("/v1/colorize", files={"image": JPEG, "reference": colours})
    assert (refused.status_code, "should give feature maps" in error_of(refused)) == (422, True)


def test_classify_says_the_class_alone(client: TestClient):
    answer = client.post("/v1/classify", content=photo(value=0), headers=AS_JPEG).json()
    assert (answer["label"], answer["chroma"], answer["model"]) == ("dark", None, "multi")
    unsure = client.post("/v1/classify", params={"unknown_below": 1}, content=JPEG, headers=AS_JPEG).json()
    assert unsure["label"] == "unknown"


def test_models_are_chosen_by_name(client: TestClient):
    listed = client.get("/v1/models").json()
    assert [each["name"] for each in listed] == ["multi", "only class", "only colour"]
    assert [each["classes"] for each in listed] == [list(CLASSES), list(CLASSES), []]
    answer = client.post(
        "/v1/colorize", params={"model": "only colour"}, content=JPEG, headers=AS_JSON
    ).json()
    assert answer["model"] == "only colour"


@pytest.mark.parametrize(
    ("path", "options", "status", "words"),
    [
        ("/v1/colorize", {"model": "nobody"}, 404, "one of multi, only class, only colour"),
        ("/v1/colorize", {"model": "only class"}, 422, "colour head"),
        ("/v1/classify", {"model": "only colour"}, 422, "class head"),
        ("/v1/colorize", {"saturation": "-1"}, 422, "`saturation`"),
        ("/v1/colorize", {"max_px": "0"}, 422, "`max_px`"),
        ("/v1/colorize", {"max_px": "ten"}, 422, "`max_px`"),
        ("/v1/colorize", {"max_px": "1_0"}, 422, "`max_px` should be a whole number. Found `max_px = 1_0`."),
        ("/v1/colorize", {"saturation": "0_1.5"}, 422, "Found `saturation = 0_1.5`."),
        ("/v1/colorize", {"saturation": "nan"}, 422, "`saturation`"),
        ("/v1/colorize", {"saturation": "1e999"}, 422, "`saturation`"),
        ("/v1/colorize", {"saturation": ["1", "2"]}, 422, "given once"),
        ("/v1/colorize", {"hints": "nowhere"}, 422, "A hint should be"),
        ("/v1/colorize", {"hints": ["1,1=red"] * 65}, 422, "`hints`"),
        (
            "/v1/colorize",
            {"format": "exe"},
            422,
            "`format` should be one of jpg, png, webp, tif, avif, ora. Found `format = exe`.",
        ),
        ("/v1/colorize", {"model": "x"}, 404, "only colour. Found `model = x`."),
        ("/v1/colorize", {"uncertainty": "perhaps"}, 422, "`uncertainty`"),
        ("/v1/colorize", {"unknown_below": "2"}, 422, "`unknown_below`"),
        ("/v1/colorize", {"colour": "red"}, 422, "one of model"),
        ("/v1/classify", {"saturation": "1"}, 422, "one of model, unknown_below"),
        ("/v1/colorize", {"satuation": "1"}, 422, "Did you mean `saturation`?"),
        (
            "/v1/colorize",
            {"strokes": "red"},
            422,
            "`strokes` should be a file in a form, as sent by `curl -F strokes=@FILE`",
        ),
    ],
)
def test_wrong_options_are_told_by_name(client, path: str, options: dict, status: int, words: str):
    raw = client.post(path, params=options, content=JPEG, headers=AS_JPEG)
    form = client.post(path, files={"image": JPEG}, data=options)
    for answer in (raw, form):
        assert answer.status_code == status
        assert words in error_of(answer)


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        ({"content": JPEG}, 415, "Content-Type"),
        ({"content": JPEG, "headers": {"content-type": "text/plain"}}, 415, "Content-Type"),
        (
            {"content": gzip.compress(JPEG), "headers": AS_JPEG | {"content-encoding": "gzip"}},
            415,
            "`Content-Encoding` should be left out",
        ),
        ({"content": b"", "headers": AS_JPEG}, 400, "Found none. Check that the file is not empty"),
        ({"content": b"hello", "headers": AS_JPEG}, 415, "not an image that can be read"),
        ({"content": JPEG[:300], "headers": AS_JPEG}, 422, "damaged"),
        (
            {"content": preview_first(raw=True), "headers": {"content-type": "image/x-adobe-dng"}},
            422,
            "raw file",
        ),
        ({"files": {"photo": JPEG}}, 400, "named `image`"),
        ({"files": [("image", JPEG), ("image", JPEG)]}, 400, "one file named `image`"),
        ({"files": [("image", JPEG)] * 4}, 400, "one file named `image`"),
        ({"files": [("image", JPEG)] * 90}, 400, "Too many files"),
        ({"files": {"other": ("", "")}, "data": {"image": "text"}}, 400, "form"),
        (
            {"files": {"imag": ("a.jpg", JPEG)}},
            400,
            "Found `imag`. Send it as `curl -F image=@FILE` does.",
        ),
        ({"content": b"--x", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
        (
            {"content": b"nothing", "headers": {"content-type": "multipart/form-data; boundary=x"}},
            400,
            "form",
        ),
        ({"files": {"image": JPEG}, "data": {"model": "x" * 5000}}, 400, "size"),
        ({"files": {"image": JPEG}, "data": {f"f{n}": "1" for n in range(90)}}, 400, "fields"),
    ],
)
def test_wrong_requests_are_told(client: TestClient, sent: dict, status: int, words: str):
    answer = client.post("/v1/colorize", **sent)
    assert answer.status_code == status
    assert words in error_of(answer)


@pytest.mark.parametrize("path", ["/v2", "/v1/models/", "/v1/colorise", "/" + "x" * 5000])
def test_a_path_that_is_not_there_is_answered_with_those_that_are(client: TestClient, path: str):
    answer = client.get(path)
    assert answer.status_code == 404
    error = error_of(answer)
    known = ["/v1/colorize", "/v1/classify", "/v1/models", "/healthz", "/readyz", "/metrics", "/docs"]
    assert f"`path` should be one of {', '.join(known)}. Found `path = {path[:80]}" in error
    near = {"/v1/models/": "/v1/models", "/v1/colorise": "/v1/colorize"}.get(path)
    assert ("Did you mean" in error) == (near is not None)
    assert near is None or error.endswith(f"Did you mean `{near}`?")
    for path in known:  # as it says
        assert client.get(path).status_code != 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/v1/colorize", "POST"), ("PUT", "/metrics", "GET"), ("POST", "/docs", "GET")],
)
def test_a_method_that_a_path_does_not_take_is_answered_with_those_that_it_does(
    client: TestClient, method: str, path: str, allowed: str
):
    answer = client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
    assert f"`{path}` should be requested with {allowed}. Found {method}; /docs" in error_of(answer)


def test_a_failure_says_nothing_of_the_inside(caplog: pytest.LogCaptureFixture):
    def crash(seen: np.ndarray) -> None:
        raise RuntimeError("/srv/secret/model.bin is broken")

    with client_of({"broken": colorizer(crash)}) as client:
        answer = client.post("/v1/colorize", content=JPEG, headers=AS_JPEG)
    assert answer.status_code == 500
    assert error_of(answer) == "The server failed on this request. Its log has the cause."
    assert "secret" in caplog.text


def test_a_model_that_answers_nonsense_is_named_in_one_line_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
):
    def diverged(seen: np.ndarray) -> None:
        raise WeightsError("The model should return `chroma` with finite numbers. Found nan.")

    with client_of({"diverged": colorizer(diverged), "fake": colorizer()}) as client:
        answer = client.post("/v1/colorize", content=JPEG, headers=AS_JPEG)
        other = client.post("/v1/colorize?model=fake", content=JPEG, headers=AS_JPEG)
    assert (answer.status_code, other.status_code) == (500, 200)
    assert error_of(answer) == "The model should return `chroma` with finite numbers. Found nan."
    assert "Found nan" in caplog.text
    assert "Traceback" not in caplog.text


class Novel(FakeNetwork):
    """Finds every image unlike those that it was trained on."""

    def predict(self, lightness: np.ndarray) -> Predictions:
        answers = super().predict(lightness)
        return answers._replace(novelty=answers.novelty * 0 + 1.7)


def test_no_class_is_named_for_what_is_unlike_the_training_images_and_the_caveat_comes_first():
    with client_of({"novel": Colorizer(Novel())}) as client:
        coloured = client.post("/v1/colorize", content=JPEG, headers=AS_JPEG)
        said = client.post("/v1/classify", content=JPEG, headers=AS_JPEG).json()
    assert coloured.headers["knowhue-class"] == said["label"] == "unknown"
    for warnings in (json.loads(coloured.headers["knowhue-warnings"]), said["warnings"]):
        assert warnings[0].startswith("unlike the images that the model was trained on (distance 1.7")


def test_probes_and_metrics(client: TestClient):
    client.post("/v1/colorize", content=JPEG, headers=AS_JPEG)
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    text = client.get("/metrics").text
    assert re.search(r'knowhue_requests_total\{route="/v1/colorize",status="200"\} [1-9]', text)
    assert re.search(r'knowhue_batch_images_count\{model="multi"\} [1-9]', text)


def test_a_stopping_server_is_not_ready_and_takes_nothing():
    with client_of() as client:
        client.app.state.batchers["fake"].stop()  # type: ignore[attr-defined]
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
        answer = client.post("/v1/colorize", content=JPEG, headers=AS_JPEG)
        assert answer.status_code == 503
        assert "stopping" in error_of(answer)


def test_a_full_queue_answers_429_and_the_rest_are_served():
    opened = threading.Event()
    with client_of({"slow": colorizer(lambda seen: opened.wait(60))}, queue_length=2) as client:  # type: ignore[arg-type,return-value]
        answers = []
        send = lambda: answers.append(client.post("/v1/colorize", content=JPEG, headers=AS_JPEG))  # noqa: E731
        threads = [threading.Thread(target=send) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_until(lambda: client.app.state.batchers["slow"].length == 2)  # type: ignore[attr-defined]
        busy = client.post("/v1/colorize", content=JPEG, headers=AS_JPEG)
        opened.set()
        for thread in threads:
            thread.join(60)
    assert busy.status_code == 429
    assert 1 <= int(busy.headers["retry-after"]) <= 60
    assert error_of(busy).startswith("The server is busy with ")
    assert [answer.status_code for answer in answers] == [200, 200]


def test_what_takes_too_long_answers_504():
    opened = threading.Event()
    with client_of({"slow": colorizer(lambda seen: opened.wait(60))}, request_seconds=0.2) as client:  # type: ignore[arg-type,return-value]
        answer = client.post("/v1/colorize", content=JPEG, headers=AS_JPEG)
        opened.set()
    assert answer.status_code == 504
    assert error_of(answer).startswith("The image should be processed within ")
    assert "0.2 s" in error_of(answer)


def test_the_documentation_asks_no_other_host(client: TestClient):
    page = client.get("/docs")
    assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
    places = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert len(places) == 5
    for place in places:
        assert re.match(r"/[a-z]", place)
        assert client.get(place).status_code == 200
    assert not re.search(r"<script>|<style>|\son\w+=", page.text)
    assert "validatorUrl: null" in client.get("/docs/start.js").text


def test_every_header_of_an_answer_is_described_and_every_described_one_comes(client: TestClient):
    route = client.get("/openapi.json").json()["paths"]["/v1/colorize"]["post"]
    described = {name.lower() for name in route["responses"]["200"]["headers"]}
    sent = {"content": JPEG + JPEG, "headers": AS_JPEG, "params": {"uncertainty": "true"}}
    headers = client.post("/v1/colorize", **sent).headers
    assert {name for name in headers if name.startswith("knowhue-")} == described
    page = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
    assert described == {name.lower() for name in re.findall(r"`(Knowhue-\w+)`", page)}


def test_the_documentation_groups_and_describes_every_route(client: TestClient):
    described = client.get("/openapi.json").json()
    groups = {tag["name"] for tag in described["tags"]}
    routes = [(path, route) for path, each in described["paths"].items() for route in each.values()]
    assert {tag for _, route in routes for tag in route["tags"]} == groups
    for path, route in routes:
        assert route["operationId"].replace("_", "") in path.replace("/", "") or path == "/v1/models"
        assert route["summary"].lower() != route["operationId"].replace("_", " ")
        assert route["description"].endswith(".")


def test_scores_of_a_model_have_the_digits_that_are_told():
    network = FakeNetwork()
    score = ScoreInterval(value=9.123456789, low=8.99999999, high=0.0012345678)
    changes = {"metrics": {"ab_l1": score}, "unknown_below": 1 / 3}
    network.description = network.description.model_copy(update=changes)
    told = ModelAnswer.of("m", Colorizer(network))
    assert told.metrics["ab_l1"] == ScoreInterval(value=9.123, low=9.0, high=0.001235)
    assert told.unknown_below == 0.3333


def test_a_real_server_stops_after_it_finished_what_it_accepted():
    import httpx2 as httpx

    opened = threading.Event()
    answers: list[httpx.Response] = []
    slow = {"slow": colorizer(lambda seen: opened.wait(60))}  # type: ignore[arg-type,return-value]
    with running(slow) as (host, port, server):
        address = f"http://{host}:{port}"

        def ask() -> None:
            answers.append(httpx.post(f"{address}/v1/colorize", content=JPEG, headers=AS_JPEG, timeout=60))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: server._batchers["slow"].length == 4)
        server.should_exit = True
        wait_until(lambda: not server._batchers["slow"].is_open)
        late = httpx.post(f"{address}/v1/colorize", content=JPEG, headers=AS_JPEG)
        opened.set()
        for thread in threads:
            thread.join(60)
    assert late.status_code == 503
    assert error_of(late) == "The server is stopping. Try again when it runs again."
    assert [answer.status_code for answer in answers] == [200] * 4
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/healthz")


def test_an_upload_that_the_server_cannot_wait_for_is_answered_as_all_that_comes_while_it_stops(monkeypatch):
    monkeypatch.setattr("knowhue.serving.limits.LINGER_SECONDS", 1.0)
    with running(stop_seconds=0.1) as (host, port, server), socket.create_connection((host, port)) as caller:
        head = b"POST /v1/colorize HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
        caller.sendall(head + b"Content-Length: 1000\r\n\r\nabc")
        wait_until(lambda: server.server_state.tasks)
        server.should_exit = True
        caller.settimeout(20)
        head, _, body = b"".join(iter(lambda: caller.recv(65536), b"")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"x-content-type-options: nosniff" in head.lower()
    assert json.loads(body)["error"] == "The server is stopping. Try again when it runs again."


def test_the_client_of_the_documentation(tmp_path):
    """The docs show `api_client.py` unchanged."""
    (tmp_path / "photo.jpg").write_bytes(JPEG)
    with running(token="a-token-of-some-length") as (host, port, _):
        image, said = colorize(tmp_path / "photo.jpg", f"http://{host}:{port}", "a-token-of-some-length")
        with pytest.raises(HTTPError, match=r'401.*"error": "`Authorization` should be'):
            colorize(tmp_path / "photo.jpg", f"http://{host}:{port}")
    assert image == encode_image(colorizer().colorize(JPEG).image, ".jpg")
    assert said["label"] in CLASSES


def test_anothers_model_colours_and_refuses_what_it_cannot_do(tmp_path):
    model = painted(tmp_path / "m.onnx", "siggraph17", (20, 15))
    models = {"ours": colorizer(), "other": Colorizer.load(model, "siggraph17")}
    with client_of(models) as client:
        sent = {"url": "/v1/colorize?model=other", "content": JPEG}
        said = client.post(headers=AS_JSON, **sent).json()
        assert (said["model"], said["label"], said["novelty"], said["probabilities"]) == (
            "other",
            None,
            None,
            {},
        )
        plain = client.post(headers=AS_JPEG, **sent)
        assert (plain.status_code, plain.headers["content-type"]) == (200, "image/jpeg")
        described = {each["name"]: each for each in client.get("/v1/models").json()}["other"]
        assert (described["tasks"], described["size_px"], described["samples"]) == (["colour"], 256, 1)
        for asked, name in (
            ("uncertainty=true", "uncertainty"),
            ("sample=2", "sample"),
            ("hints=1,1%3Dred", "hints"),
        ):
            refused = client.post(f"/v1/colorize?model=other&{asked}", content=JPEG, headers=AS_JPEG)
            assert refused.status_code == 422
            assert f"`{name}` is more than the recipe `siggraph17` can do" in refused.json()["error"]
        assert client.post("/v1/classify?model=other", content=JPEG, headers=AS_JPEG).status_code == 422
