import asyncio
import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from stand import FakeNetwork, colorizer, photo, wait_until

from knowhue.errors import ImageError
from knowhue.images.image import Image as OurImage
from knowhue.inference.colorizer import Colorizer
from knowhue.inference.networks import Answers
from knowhue.inference.pipeline import Limits
from knowhue.serving import page_parts as parts
from knowhue.serving.api import make_app
from knowhue.serving.page import mount_page
from knowhue.serving.page_blocks import _collected
from knowhue.serving.page_desk import IDLE_SECONDS, LATE_LOOKS, Desk, FullError, Look, Photo, Pin
from knowhue.serving.page_events import EXAMPLES, Events, example_files
from knowhue.serving.page_gate import LARGEST_EVENT
from knowhue.serving.page_work import reduced, shown_name, take_in
from knowhue.serving.settings import ServerSettings

MODELS = ("alone", "both")


class Untold(FakeNetwork):
    """Has no class head."""

    def predict(self, lightness: np.ndarray) -> Answers:
        return super().predict(lightness)._replace(probabilities=None)


@pytest.fixture(scope="module")
def served():
    models = {"alone": Colorizer(Untold(tasks=("colour",))), "both": colorizer()}
    settings = ServerSettings(workers=2, max_pixels=100_000)
    app = make_app(models, settings)
    mount_page(app, models, settings, app.state.batchers)
    events = Events(app.state.desk, app.state.batchers, settings)
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        yield client, events


def held(key: str, size: int = 10, name: str = "old.jpg") -> Photo:
    return Photo(key, name, b"x" * size, OurImage.of(np.zeros((2, 2, 1), np.uint8)), (2, 2), ".jpg")


def take(events: Events, session: str, *files: tuple[str, bytes]):
    return asyncio.run(events.take(session, files))


def hrefs(html: str, start: str) -> list[str]:
    return re.findall(f'(?:href|src)="({start}[^"]*)"', html)


# The desk


def test_an_idle_visitor_is_forgotten_with_all_that_was_held():
    now = [0.0]
    desk = Desk(8, lambda: now[0])
    sitting = desk.sitting("tab")
    desk.add(sitting, held("one"))
    look = desk.show(sitting.photos["one"], "before", Look(b"small", "image/png"))
    now[0] = IDLE_SECONDS + 1
    assert desk.sitting("other tab") is not sitting
    assert desk.look(look) is None
    assert desk.by_key(sitting.key) is None
    assert desk.held_bytes == 0
    desk.close()


def test_a_look_stays_for_late_browsers_and_goes_after_a_few_more():
    desk = Desk(8)
    kept = held("one")
    desk.add(desk.sitting("tab"), kept)
    keys = [desk.show(kept, "after", Look(bytes([k]), "image/png")) for k in range(LATE_LOOKS + 2)]
    assert [desk.look(key) is None for key in keys] == [True, True] + [False] * LATE_LOOKS
    assert kept.newest("after") == keys[-1]
    assert kept.newest("before") is None
    desk.forget("tab")
    assert [desk.look(key) for key in keys] == [None] * len(keys)
    desk.close()


def test_when_full_others_are_forgotten_first_and_then_photos_are_refused():
    desk = Desk(1)
    idle, busy = desk.sitting("idle"), desk.sitting("busy")
    desk.add(idle, held("one", 700_000))
    desk.add(busy, held("two", 700_000))
    assert desk.by_key(idle.key) is None
    with pytest.raises(FullError, match=r"`old.jpg` should fit .* remove some first"):
        desk.add(busy, held("three", 700_000))
    assert list(busy.photos) == ["two"]
    desk.close()


def test_sessions_without_end_push_out_empty_ones_first(monkeypatch):
    monkeypatch.setattr("knowhue.serving.page_desk.MOST_SITTINGS", 3)
    now = iter(range(1000))
    desk = Desk(8, lambda: next(now))
    kept = desk.sitting("mine")
    desk.add(kept, held("one"))
    for number in range(20):
        desk.sitting(f"program {number}")
    assert desk.sitting("mine") is kept
    assert len(desk._sittings) == 3
    desk.close()


def test_less_strength_and_more_saturation_are_one_factor_of_the_api():
    sitting = Desk(1).sitting("tab")
    sitting.strength, sitting.saturation = 0.5, 1.5
    assert sitting.chroma_scale == 0.75


# Taking in


@given(st.text(max_size=300))
def test_a_name_keeps_nothing_that_means_something_elsewhere(name: str):
    shown = shown_name(name)
    assert 0 < len(shown) <= 80
    assert not re.search(r"[\\/<>\"'&\r\n\0;%]", shown)
    assert not shown.startswith(".")


def test_what_is_no_image_is_said_by_its_name_and_not_held(served):
    _, events = served
    shown = take(events, "bad", ("notes<i>.jpg", b"not an image"), ("good.png", photo("png")))
    assert "notes i .jpg" in shown.status
    assert 'role="alert"' in shown.status
    assert [each.name for each in events.desk.sitting("bad").photos.values()] == ["good.png"]
    events.desk.forget("bad")


def test_pixels_are_limited_before_decoding(served):
    _, events = served
    with pytest.raises(ImageError, match="at most 100,000 pixels"):
        take_in(events.desk, events.desk.sitting("big"), "big.png", photo("png", 400, 300), 100_000)
    events.desk.forget("big")


def test_a_preview_has_8_bits_its_shape_and_no_metadata():
    deep = np.full((100, 300, 3), 65535, np.uint16)
    small = reduced(OurImage(deep, np.full((100, 300), 65535, np.uint16)), 60)
    assert small.pixels.shape == (20, 60, 3)
    assert small.pixels.dtype == np.uint8
    assert small.alpha is not None
    assert small.pixels.min() == small.alpha.min() == 255
    assert small.origin.metadata == ()


def test_uploads_are_gone_from_the_folder_once_taken_and_others_are_not_read(tmp_path: Path):
    folder = tmp_path / "uploads"
    (folder / "hash").mkdir(parents=True)
    (folder / "hash" / "a.jpg").write_bytes(b"photo")
    (folder / "tmp1").write_bytes(b"half of another visitor's upload")
    (tmp_path / "secret").write_bytes(b"secret")
    asked = [str(folder / "hash" / "a.jpg"), str(tmp_path / "secret"), str(folder / ".." / "secret")]
    assert _collected(asked, folder) == [("a.jpg", b"photo")]
    assert [path.name for path in folder.iterdir()] == ["tmp1"]
    assert (tmp_path / "secret").exists()


# What is shown


def test_names_from_files_are_escaped_everywhere():
    bad = held("k", name='"><script>')
    bad.looks["before"] = ["look"]
    sitting = Desk(1).sitting("tab")
    sitting.photos = {"k": bad, "l": held("l", name="<b>")}
    assert "<script" not in parts.gallery(sitting, {})
    assert "<b>" not in parts.gallery(sitting, {})


def test_two_models_stand_side_by_side_and_only_one_that_was_told_classes_names_one(served):
    _, events = served
    shown = take(events, "pair", ("a.jpg", photo(value=230)))
    single, multi = shown.stage.split("<article")[1:]
    assert "Single-task" in single
    assert "No class" in single
    assert "Multi-task" in multi
    assert "Sees <b>bright</b>" in multi
    events.desk.forget("pair")


def test_models_of_one_kind_are_told_apart_by_the_names_they_are_served_by():
    def told(*tasks):
        return FakeNetwork(tasks=tasks).description

    both, alone = told("colour", "class"), told("colour")
    assert parts.titles({"a": both, "b": alone}) == {"a": "Multi-task", "b": "Single-task"}
    assert parts.titles({"old": both, "new <1>": both, "b": alone}) == {
        "old": "old",
        "new <1>": "new <1>",
        "b": "Single-task",
    }
    sitting = Desk(1).sitting("tab")
    sitting.photos = {key: held(key) for key in "kl"}
    for each in sitting.photos.values():
        each.looks["before"] = ["look"]
    links = re.findall(
        "All 2 as ZIP, ([^<]*)", parts.gallery(sitting, {"Old": both, "x <1>": both, "b": alone})
    )
    assert links == ["Old", "x &lt;1&gt;", "single-task"]


def test_cards_of_two_models_of_one_kind_have_two_headings():
    models = {"old": colorizer(), "new": colorizer()}
    app = make_app(models, ServerSettings(workers=1))
    events = Events(Desk(8), app.state.batchers, ServerSettings(workers=1))
    shown = take(events, "twins", ("a.jpg", photo()))
    assert re.findall("<h2[^>]*>([^<]*)</h2>", shown.stage) == ["old", "new"]
    assert shown.stage.count("learned colours and classes together") == 2
    events.desk.close()
    for batcher in app.state.batchers.values():
        batcher.close(5)


class Pale(FakeNetwork):
    """Colours nearly nothing."""

    def predict(self, lightness: np.ndarray) -> Answers:
        answers = super().predict(lightness)
        assert answers.chroma is not None
        return answers._replace(chroma=answers.chroma / np.float32(40))


def test_an_overlay_without_pink_is_not_taken_for_certainty_where_a_photo_stayed_gray():
    models = {"pale": Colorizer(Pale()), "usual": colorizer()}
    app = make_app(models, ServerSettings(workers=1))
    events = Events(Desk(8), app.state.batchers, ServerSettings(workers=1))
    shown = take(events, "pale", ("a.jpg", photo()))
    assert "spread" not in shown.stage
    pale, usual = asyncio.run(events.tune("pale", 100, 100, True)).stage.split("<article")[1:]
    for card in (pale, usual):
        assert "its looks differ by 0 CIELAB units" in card
    assert "does not mean sure here: the photo stayed nearly gray" in pale
    assert "does not mean sure" not in usual
    events.desk.close()
    for batcher in app.state.batchers.values():
        batcher.close(5)


def test_points_are_kept_a_photo_limited_and_removed(served):
    _, events = served
    take(events, "pins", ("a.png", photo("png")))
    shown = asyncio.run(events.pin("pins", 0.25, 7.0, "#c83232"))
    assert events.desk.sitting("pins").photo.pins == [Pin(0.25, 1.0, "#c83232")]
    assert "Remove point 1" in shown.points
    refused = asyncio.run(events.pin("pins", 0.5, 0.5, 'red" onclick="'))
    assert "That is no colour" in refused.status
    assert "placed" not in refused.status
    assert len(events.desk.sitting("pins").photo.pins) == 1
    asyncio.run(events.unpin("pins", 5))
    assert len(events.desk.sitting("pins").photo.pins) == 1
    assert "Remove point" not in asyncio.run(events.unpin("pins", 0)).points
    events.desk.forget("pins")


def test_the_server_being_busy_is_said_and_nothing_breaks(served, monkeypatch):
    _, events = served
    monkeypatch.setattr(events.batchers["alone"], "limits", Limits(queue_length=1))
    monkeypatch.setattr(events.batchers["alone"], "_length", 1)
    shown = take(events, "busy", ("a.png", photo("png")))
    assert "The server is busy" in shown.status
    monkeypatch.undo()
    assert "<article" in asyncio.run(events.tune("busy", 100, 100, False)).stage
    events.desk.forget("busy")


def test_examples_are_small_gray_images_of_our_own():
    files = example_files()
    assert len(files) == 3
    assert sum(path.stat().st_size for path in files) < 100_000
    for path in files:
        with Image.open(path) as opened:
            assert opened.mode == "L"
    assert all(path.parent == EXAMPLES for path in files)


# Over HTTP


def test_a_download_is_byte_for_byte_what_the_api_answers(served):
    client, events = served
    data = photo("png", 64, 40, mode="RGB")
    take(events, "same", ("scan.png", data))
    asyncio.run(events.tune("same", 50, 150, False))
    shown = asyncio.run(events.pin("same", 0.3, 0.4, "#2f8f9d"))
    links = hrefs(shown.stage, "page/photos/")
    assert len(links) == 2
    for link, model in zip(links, MODELS, strict=True):
        loaded = client.get(f"/{link}")
        options = {"model": model, "saturation": 0.75, "hints": "30%,40%=#2f8f9d"}
        asked = client.post(
            "/v1/colorize", params=options, content=data, headers={"content-type": "image/png"}
        )
        assert loaded.status_code == asked.status_code == 200
        assert loaded.content == asked.content
        assert loaded.headers["content-type"] == "image/png"
        assert loaded.headers["content-disposition"] == "attachment; filename*=utf-8''scan-colour.png"
        assert loaded.headers["cache-control"] == "no-store"
    events.desk.forget("same")
    assert client.get(f"/{links[0]}").status_code == 404


def test_a_zip_holds_every_photo_as_it_is_downloaded_alone(served):
    client, events = served
    shown = take(
        events, "zip", ("a.png", photo("png")), ("a.png", photo("png", value=30)), ("b.jpg", photo())
    )
    (link, _) = hrefs(shown.gallery, "page/all/")
    archive = zipfile.ZipFile(io.BytesIO(client.get(f"/{link}").content))
    assert archive.namelist() == ["a-colour.png", "a-colour-2.png", "b-colour.jpg"]
    assert archive.testzip() is None
    sitting = events.desk.sitting("zip")
    for key, name in zip(sitting.photos, archive.namelist(), strict=True):
        assert client.get(f"/page/photos/{sitting.key}/{key}/alone").content == archive.read(name)
    events.desk.forget("zip")


@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff", "webp", "avif", "gif", "bmp", "ppm"])
def test_the_link_names_the_size_and_the_format_of_what_is_downloaded(served, kind: str):
    client, events = served
    shown = take(events, "label", (f"scan.{kind}", photo(kind, 64, 40)))
    links, labels = hrefs(shown.stage, "page/photos/"), re.findall("Download <span>([^<]*)<", shown.stage)
    assert len(links) == len(labels) == len(MODELS)
    for link, label in zip(links, labels, strict=True):
        got = Image.open(io.BytesIO(client.get(f"/{link}").content))
        assert label.upper() == f"{got.width} × {got.height} {got.format}"
    events.desk.forget("label")


def test_small_images_are_served_until_the_visitor_leaves(served):
    client, events = served
    shown = take(events, "looks", ("a.png", photo("png")))
    looks = hrefs(shown.stage, "page/looks/")
    assert looks
    assert {client.get(f"/{look}").headers["content-type"] for look in looks} == {"image/jpeg"}
    events.desk.forget("looks")
    assert {client.get(f"/{look}").status_code for look in looks} == {404}


def test_the_page_names_no_other_host_and_has_a_policy(served):
    client, _ = served
    page = client.get("/")
    assert page.status_code == 200
    hosts = set(re.findall(r"https?://([\w.:-]+)", page.text))
    assert hosts <= {
        "localhost",
        "github.com",
    }  # the latter only in an example of gradio's that nothing loads
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert int(page.headers["content-length"]) == len(page.content)


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd", "/gradio_api/proxy=http://example.org", "/gradio_api/info", "/gradio_api/runs",
        "/gradio_api/file/x", "/monitoring", "/login_check", "/manifest.json", "/assets/%2e%2e/config",
        "/gradio_api/custom_component/1/client/x/y", "/page/examples/..%2Fpage.css", "/page/examples/page.css",
        "/page/looks/none", "/page/photos/a/b/c", "/page/all/ü/both", "/page/studies/0/report.html",
        "/page/studies/0/gray.png",
    ],
)  # fmt: skip
def test_no_route_beyond_what_the_page_needs(served, path: str):
    answer = served[0].get(path)
    assert answer.status_code == 404
    assert list(answer.json()) == ["error"]


def test_an_upload_is_answered_without_where_it_lies_and_can_be_used(served):
    client, events = served
    answer = client.post("/gradio_api/upload", files={"files": ("my scan.jpg", photo())})
    assert answer.status_code == 200
    (place,) = answer.json()
    assert re.fullmatch(r"knowhue-uploads/[0-9a-f]{64}/my scan\.jpg", place)
    config = client.get("/config").json()
    (number,) = (each["id"] for each in config["dependencies"] if each["targets"][0][1] == "upload")
    file = {"path": place, "orig_name": "my scan.jpg", "meta": {"_type": "gradio.FileData"}}
    event = {"data": [[file]], "fn_index": number, "session_hash": "program"}
    assert client.post("/gradio_api/queue/join", json=event).status_code == 200
    wait_until(lambda: events.desk.sitting("program").photos)
    (taken,) = events.desk.sitting("program").photos.values()
    assert taken.name == "my scan.jpg"
    events.desk.forget("program")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/gradio_api/queue/join", b"no json"),
        ("/gradio_api/queue/join", b'{"fn_index": 5, "session_hash": "s", "data": 0.5}'),
        ("/gradio_api/queue/join", b'{"fn_index": 99, "session_hash": "s", "data": []}'),
        ("/gradio_api/upload", b"no form"),
        ("/gradio_api/upload", b'--e\r\ncontent-disposition: form-data; name="files"\r\n\r\nx\r\n--e--\r\n'),
        ("/gradio_api/cancel", b"[]"),
    ],
)
def test_what_the_page_would_not_send_is_refused_in_one_line(served, path: str, body: bytes):
    kind = "multipart/form-data; boundary=e" if "upload" in path else "application/json"
    answer = served[0].post(path, content=body, headers={"content-type": kind})
    assert 400 <= answer.status_code < 500
    assert list(answer.json()) == ["error"]
    assert "Traceback" not in answer.text


def test_an_event_larger_than_any_of_the_page_is_refused(served):
    answer = served[0].post("/gradio_api/queue/join", content=b" " * (LARGEST_EVENT + 1))
    assert answer.status_code == 413


def test_the_apis_routes_stay_as_they_are(served):
    client, _ = served
    assert client.get("/v1/colorize").status_code == 405
    assert client.get("/v1/nothing").status_code == 404
    assert client.post("/gradio_api/run/take", json={}).status_code == 404
    assert client.delete("/").status_code == 404
    assert client.get("/healthz").json() == {"status": "ok"}


def test_what_several_models_have_seen_is_said_of_each_by_its_name():
    def described(count: int, tasks=None):
        found = colorizer(tasks=tasks).network.description
        return found.model_copy(update={"images": {"train": count}})

    two = {"multi": described(96), "built": described(2400)}
    told = parts.heading(two)
    assert "The model multi has seen 96 images" in told
    assert "The model built has seen 2,400 images" in told
    told = parts.heading({"a": described(96), "b": described(2400, ("colour",))})
    assert "The multi-task model has seen 96" in told
    assert "The single-task model has seen 2,400" in told
    assert "The model has seen 96" in parts.heading({"a": described(96)})
    assert "The models have seen 96" in parts.heading({"a": described(96), "b": described(96)})
