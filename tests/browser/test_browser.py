import base64
import io
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image
from stand import ChoosingNetwork, FakeNetwork, MatchingNetwork, running
from tiny_models import colours_network

from knowhue.inference.colorizer import Colorizer
from knowhue.inference.colour_distribution import SeveralSizes
from knowhue.inference.networks import Predictions

playwright = pytest.importorskip("playwright.sync_api", reason="needs `pip install playwright`")
expect = playwright.expect
expect.set_options(timeout=60_000)  # as long as a click may take


def scene(width: int = 320, height: int = 240, kind: str = "PNG") -> bytes:
    """A gray image with some structure."""
    across, down = np.meshgrid(np.linspace(60, 190, width), np.linspace(0, 30, height))
    file = io.BytesIO()
    Image.fromarray((across + down).astype(np.uint8)).save(file, kind)
    return file.getvalue()


def grain() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80), np.uint8)).save(file, "PNG")
    return file.getvalue()


def upload(page: Any, *files: tuple[str, bytes]) -> None:
    kinds = {"png": "image/png", "jpg": "image/jpeg", "txt": "text/plain", "tif": "image/tiff"}
    payload = [
        {"name": name, "mimeType": kinds[name.rsplit(".")[-1]], "buffer": data} for name, data in files
    ]
    page.locator("#photos").set_input_files(payload)
    page.locator(".card").first.wait_for()
    expect(page.locator("#status")).to_have_text(f"{len(files)} photo{'s' * (len(files) > 1)} coloured.")


def coloured(page: Any, card: int = 1) -> np.ndarray:
    """What a card shows in colour, RGB."""
    shown = (
        page.locator(".after")
        .nth(card)
        .evaluate("""async image => {
        for (let decoded = false; !decoded;) {
            const source = image.src;
            // another answer that takes its place meanwhile ends the decoding of this one
            decoded = await image.decode().then(() => true, error => {
                if (image.src === source) throw error;
                return false;
            });
        }
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
        canvas.getContext("2d").drawImage(image, 0, 0);
        return canvas.toDataURL("image/png");
    }""")
    )
    return rgb_of(shown)


def rgb_of(data_url: str) -> np.ndarray:
    data = base64.b64decode(data_url.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def change(page: Any, act: Any, card: int = 1) -> np.ndarray:
    """What a card shows once something was done to it."""
    before = page.locator(".after").nth(card).get_attribute("src")
    act()
    expect(page.locator(".after").nth(card)).not_to_have_attribute("src", before)
    return coloured(page, card)


def fill(page: Any, slider: str, value: int) -> None:
    page.locator(f"{slider} input[type=number]").fill(str(value))
    page.keyboard.press("Tab")


def chroma(rgb: np.ndarray) -> float:
    return float((rgb.max(-1) - rgb.min(-1)).mean())


def at(page: Any) -> float:
    return float(
        page.locator("#results .frame").first.evaluate(
            "f => parseFloat(getComputedStyle(f).getPropertyValue('--at'))"
        )
    )


def tab_to(page: Any, selector: str) -> None:
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            return
    raise AssertionError(f"`{selector}` is not reached with the Tab key")


def test_an_upload_is_answered_by_both_models_side_by_side(visit):
    page = visit().page
    upload(page, ("old photo.png", scene()))
    expect(page.locator(".card")).to_have_count(2)
    left, right = (page.locator(".card").nth(k).bounding_box() for k in (0, 1))
    assert left["x"] + left["width"] <= right["x"]
    assert left["y"] == right["y"]
    expect(page.get_by_role("heading", name="Single-task")).to_be_visible()
    expect(page.get_by_role("heading", name="Multi-task")).to_be_visible()
    expect(
        page.get_by_text("Sees dark").or_(page.get_by_text("Sees bright")).or_(page.get_by_text("Not sure"))
    ).to_be_visible()
    assert coloured(page, 0)[..., 2].mean() > coloured(page, 0)[..., 0].mean()  # blue
    assert coloured(page, 1)[..., 0].mean() > coloured(page, 1)[..., 2].mean()  # orange


def test_the_divider_moves_by_mouse_and_keys_in_both_cards_and_stays_when_colours_change(visit):
    page = visit().page
    upload(page, ("a.png", scene()))
    assert at(page) == 50
    box = page.locator(".frame").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + 60, steps=4)
    page.mouse.up()
    assert at(page) == pytest.approx(20, abs=2)
    page.locator(".split").nth(1).focus()
    page.keyboard.press("ArrowRight")
    assert at(page) == pytest.approx(21, abs=2)
    shares = page.locator(".before").evaluate_all("all => all.map(e => getComputedStyle(e).clipPath)")
    assert len(set(shares)) == 1
    kept = at(page)
    change(page, lambda: fill(page, "#saturation", 150))
    assert at(page) == kept


def test_strength_saturation_and_overlay_do_what_they_say(visit):
    page = visit().page
    upload(page, ("a.png", scene()))
    usual = chroma(coloured(page))
    vivid = change(page, lambda: fill(page, "#saturation", 160))
    assert chroma(vivid) > 1.2 * usual
    gray = change(page, lambda: fill(page, "#strength", 0))
    assert chroma(gray) < 3
    expect(page.locator(".unsure").first).to_be_hidden()
    page.get_by_label("Show where the colours are unsure").check()
    expect(page.locator(".unsure").first).to_be_visible()


@pytest.mark.parametrize(
    ("typed", "kept"), [("-5", "0"), ("1e9", "200"), ("12.7", "13"), ("", "150"), ("e", "150")]
)
def test_a_setting_stays_within_its_range_and_what_is_no_number_changes_nothing(visit, typed, kept):
    page = visit().page
    upload(page, ("a.png", scene()))
    change(page, lambda: fill(page, "#saturation", 150))
    number = page.locator("#saturation input[type=number]")
    number.fill("")
    number.press_sequentially(typed)
    page.keyboard.press("Tab")
    expect(number).to_have_value(kept)
    expect(page.locator("#saturation input[type=range]")).to_have_value(kept)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_point_colours_what_lies_around_it_and_can_be_removed(visit):
    page = visit().page
    upload(page, ("a.png", scene()))
    before = coloured(page)
    page.get_by_role("button", name="sea", exact=True).click()
    frame = page.locator(".frame").nth(1)
    box = frame.bounding_box()
    after = change(page, lambda: frame.click(position={"x": box["width"] * 0.25, "y": box["height"] * 0.5}))
    there = (slice(115, 125), slice(75, 85))
    assert before[there][..., 0].mean() > before[there][..., 2].mean()  # orange
    assert after[there][..., 2].mean() > after[there][..., 0].mean() + 20  # sea
    expect(page.locator("#points li")).to_have_count(1)
    expect(page.locator("#points li")).to_contain_text("#2f8f9d at 25 %, 50 %")
    page.get_by_role("button", name="skin", exact=True).click()  # the same place has the last colour alone
    change(page, lambda: frame.click(position={"x": box["width"] * 0.25, "y": box["height"] * 0.5}))
    expect(page.locator("#points li")).to_have_count(1)
    expect(page.locator("#points li")).not_to_contain_text("#2f8f9d")
    back = change(page, lambda: page.get_by_role("button", name="Remove point 1").click())
    assert np.abs(back - before).max() <= 1


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_download_is_byte_for_byte_what_the_api_answers(visit, served, kind: str):
    page, data = visit().page, scene(700, 500, {"png": "PNG", "jpg": "JPEG"}[kind])
    upload(page, (f"my scan.{kind}", data))
    change(page, lambda: fill(page, "#saturation", 130))
    with page.expect_download() as started:
        page.locator(".card .download").nth(1).click()
    assert started.value.suggested_filename == f"my scan-colour.{kind}"
    asked = page.request.post(
        f"{served.address}/v1/colorize",
        params={"model": "both", "saturation": 1.3},
        multipart={"image": {"name": "x", "mimeType": "image/*", "buffer": data}},
    )
    assert asked.ok
    assert Path(started.value.path()).read_bytes() == asked.body()


def test_several_photos_make_a_gallery_and_one_zip(visit):
    page = visit().page
    upload(page, ("a.png", scene()), ("b.jpg", scene(kind="JPEG")), ("c.png", scene(100, 200)))
    expect(page.locator(".thumb")).to_have_count(3)
    expect(page.locator(".thumb").nth(0)).to_have_attribute("aria-pressed", "true")
    change(page, lambda: page.get_by_role("button", name="Show c.png").click())
    assert coloured(page).shape == (200, 100, 3)
    with page.expect_download() as started:
        page.get_by_role("button", name="All 3 as ZIP, multi-task").click()
    assert zipfile.ZipFile(started.value.path()).namelist() == [
        "a-colour.png",
        "b-colour.jpg",
        "c-colour.png",
    ]
    page.get_by_role("button", name="Remove b.jpg").click()
    expect(page.locator(".thumb")).to_have_count(2)


def test_a_photo_may_be_pasted_or_dropped_anywhere(visit):
    page = visit().page
    send = """([bytes, event]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(bytes)], `${event}.png`, {type: "image/png"}));
        const made = event === "paste"
            ? new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true, cancelable: true})
            : new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true});
        document.querySelector("#masthead").dispatchEvent(made);
    }"""
    page.evaluate(send, [list(scene(80, 60)), "paste"])
    page.locator(".card").first.wait_for()
    page.evaluate(send, [list(scene(90, 60)), "drop"])
    expect(page.locator(".thumb")).to_have_count(2)
    expect(page.get_by_role("button", name="Show drop.png")).to_be_visible()


def test_what_is_no_image_is_said_and_does_no_harm(visit):
    page = visit(refused=415).page
    page.locator("#photos").set_input_files(
        {"name": "bad.png", "mimeType": "image/png", "buffer": b"no picture at all"}
    )
    expect(page.get_by_role("alert")).to_contain_text("bad.png")
    expect(page.get_by_role("alert")).not_to_contain_text("Traceback")
    upload(page, ("good.png", scene()))
    expect(page.get_by_role("alert")).to_have_count(0)


def test_everything_can_be_done_with_the_keyboard_alone(visit):
    page = visit().page
    tab_to(page, "#photos")
    tab_to(page, "#examples button")
    page.keyboard.press("Enter")
    page.locator(".card").first.wait_for()
    tab_to(page, ".split")
    before = at(page)
    page.keyboard.press("ArrowLeft")
    assert at(page) == before - 1
    tab_to(page, ".download")
    tab_to(page, "#strength input[type=range]")
    weaker = change(page, lambda: [page.keyboard.press("ArrowLeft") for _ in range(30)])
    assert weaker.size
    tab_to(page, "#unsure")
    page.keyboard.press("Space")
    expect(page.locator(".unsure").first).to_be_visible()
    tab_to(page, ".swatch")
    page.keyboard.press("Enter")
    expect(page.locator(".aim").first).to_be_focused()
    expect(page.locator("#palette .note")).to_contain_text(
        "arrows move a cross, Enter places the colour, Esc ends"
    )
    for key in ("ArrowLeft", "ArrowUp", "Enter"):
        page.keyboard.press(key)
    expect(page.locator("#points li")).to_contain_text("at 48 %, 48 %")
    page.keyboard.press("Escape")
    expect(page.locator(".aim").first).to_be_hidden()
    expect(page.get_by_role("button", name="Place points")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".aim").first).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_themes(visit, scheme: str):
    page = visit(color_scheme=scheme).page
    upload(page, ("a.png", scene()), ("b.png", scene()))
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(paper) > 0.5) == (scheme == "light")
    for selector in ("h1", ".lead", ".lead .single", ".lead .multi", ".card h2", ".card header p", ".classes th", ".note",
                     ".classes caption", "#strength label", ".quiet", "button[role=tab]", ".button"):  # fmt: skip
        colour = page.locator(f"{selector} >> visible=true").first.evaluate("e => getComputedStyle(e).color")
        assert contrast(colour, paper) >= 4.5, (selector, colour, paper)
    page.get_by_role("button", name="Light or dark").click()
    assert (luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) > 0.5) != (
        scheme == "light"
    )


def test_a_phone_shows_photos_first_and_needs_no_sideways_scrolling(visit):
    page = visit(width=360, height=740, has_touch=True, is_mobile=True, device_scale_factor=2).page
    upload(page, ("a.png", scene()), ("b.png", scene()))
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    places = [page.locator(name).bounding_box()["y"] for name in ("#intake", "#results", "#tuning")]
    assert places == sorted(places)
    first, second = (page.locator(".frame").nth(k).bounding_box() for k in (0, 1))
    assert first["width"] > 300
    assert second["y"] > first["y"] + first["height"]
    page.locator(".split").first.tap(position={"x": 0.25 * first["width"], "y": 60})
    assert at(page) == pytest.approx(25, abs=5)
    page.get_by_role("button", name="sky", exact=True).tap()
    change(page, lambda: page.locator(".aim").nth(1).tap(position={"x": 50, "y": 50}))
    small = page.evaluate(
        """() => [...document.querySelectorAll('button, a, input[type=checkbox], input[type=color]')]
        .filter(e => e.offsetParent).map(e => [e.outerHTML.slice(0, 80), e.getBoundingClientRect()])
        .filter(([, box]) => box.height < 24 && box.width < 24).map(([text]) => text)"""
    )
    assert [each for each in small if "checkbox" not in each] == []  # its label may be touched too


def test_every_control_and_picture_has_a_name(visit):
    page = visit().page
    upload(page, ("a.png", scene()), ("b.png", scene()))
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, a, img, [role=application]')].filter(e => e.offsetParent)
        .filter(e => !(e.getAttribute('aria-label') || e.innerText?.trim() || e.labels?.length || e.title
            || (e.tagName === 'IMG' && e.hasAttribute('alt')) || e.type === 'file')).map(e => e.outerHTML.slice(0, 120))"""
    )
    assert nameless == []
    assert page.title() == "Knowhue"
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("h1:visible").count() == 1


def test_nothing_uploaded_is_left_on_disk_nor_in_memory_once_it_is_answered(visit, served, monkeypatch):
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a temporary file was made")

    page = visit().page
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    upload(page, ("a.png", scene()))
    metrics = page.request.get(f"{served.address}/metrics").text()
    assert "knowhue_held_bytes 0.0" in metrics
    assert re.findall(r'knowhue_queue_length{model="\w+"} ([\d.]+)', metrics) == ["0.0", "0.0"]


class Strange(FakeNetwork):
    """Knows drawn scenes, and finds every picture unlike them; sure of itself all the same."""

    def __init__(self) -> None:
        super().__init__()
        images = {"source": "drawn", "train": 2400, "validation": 600}
        self.description = self.description.model_copy(
            update={"images": images, "classes": ("sea_star", "shark")}
        )

    def predict(self, lightness: np.ndarray) -> Predictions:
        answers = super().predict(lightness)
        sure = np.tile(np.array([0.996, 0.004], np.float32), (len(lightness), 1))
        return answers._replace(probabilities=sure, novelty=answers.novelty * 0 + 1.7)


@pytest.fixture(scope="module")
def strange() -> Iterator[str]:
    with running({"strange": Colorizer(Strange())}, with_page=True, stop_seconds=1) as (host, port, _):
        yield f"http://{host}:{port}/"


class Pale(FakeNetwork):
    """Colours nearly nothing."""

    def predict(self, lightness: np.ndarray) -> Predictions:
        answers = super().predict(lightness)
        assert answers.chroma is not None
        return answers._replace(chroma=answers.chroma / np.float32(40))


@pytest.fixture(scope="module")
def pale() -> Iterator[str]:
    models = {"pale": Colorizer(Pale()), "usual": Colorizer(FakeNetwork())}
    with running(models, with_page=True, stop_seconds=1) as (host, port, _):
        yield f"http://{host}:{port}/"


def test_the_page_says_what_its_model_knows_before_anything_is_uploaded(opened, strange):
    page = opened(strange).page
    expect(page.locator("h1:visible")).to_have_text("Colour a gray photo")
    expect(page.locator(".lead")).to_contain_text("has seen 2,400 drawn scenes of sea star, shark")
    expect(page.locator(".lead")).to_contain_text("anything else is a guess")


def test_no_class_is_named_for_a_photo_unlike_the_training_images_and_the_caveat_comes_first(opened, strange):
    page = opened(strange).page
    page.locator("body[data-ready]").wait_for()
    upload(page, ("a.png", scene()))
    says = page.locator(".says")
    expect(says).to_contain_text("Class unknown")
    expect(says).not_to_contain_text("sea_star")
    expect(says).not_to_contain_text("%")
    caveat, verdict = says.locator(".warnings li").first, says.locator(".none")
    expect(caveat).to_contain_text("Unlike the images that the model was trained on")
    assert caveat.bounding_box()["y"] < verdict.bounding_box()["y"]
    sizes = [
        float(each.evaluate("e => parseFloat(getComputedStyle(e).fontSize)")) for each in (caveat, verdict)
    ]
    assert sizes[0] >= sizes[1]


def test_where_colours_are_unsure_is_seen_on_any_colour(visit):
    """Black beside white: on a red photo, as on any other, neighbours differ where the model is unsure."""
    page = visit().page
    upload(page, ("a.png", scene()))
    page.get_by_label("Show where the colours are unsure").check()
    overlay = page.locator(".unsure").nth(1)
    expect(overlay).to_be_visible()
    drawn = page.evaluate("""async () => {
        const { hatch } = await import("./page/card.js");
        const map = new OffscreenCanvas(64, 64), canvas = document.createElement("canvas");
        const context = map.getContext("2d");
        context.fillStyle = "rgb(200, 200, 200)";  // 40 CIELAB units
        context.fillRect(0, 0, 64, 64);
        const most = hatch(canvas, await createImageBitmap(map));
        return [most, [...canvas.getContext("2d").getImageData(0, 0, 64, 64).data]];
    }""")
    most, values = drawn
    pixels = np.array(values, float).reshape(64, 64, 4)
    assert most == 40
    for photo in ((255, 0, 0), (255, 0, 170), (255, 255, 255), (0, 0, 0), (128, 128, 128)):
        alpha = pixels[..., 3:] / 255
        seen = pixels[..., :3] * alpha + np.array(photo) * (1 - alpha)
        light = seen @ (0.2126, 0.7152, 0.0722)
        assert np.ptp(light, axis=1).min() > 50, photo  # in every row


def luminance(colour: str) -> float:
    channels = [float(each) / 255 for each in re.findall(r"[\d.]+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(
    "screen", [{"width": 1280}, {"width": 390, "height": 800, "is_mobile": True}], ids=["desktop", "phone"]
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_any_state_of_the_page(visit, log_epoch, axe, screen, scheme):
    log_epoch("multi", 0, 2, ab_l1=14.0, balanced_accuracy=0.6)
    page = visit(color_scheme=scheme, **screen).page
    assert axe(page) == []
    upload(page, ("a.png", scene()), ("b.png", scene()))
    page.get_by_label("Show where the colours are unsure").check()
    expect(page.locator(".unsure").first).to_be_visible()
    assert axe(page) == []
    page.get_by_role("button", name="sea", exact=True).click()
    change(page, lambda: page.locator(".aim").nth(1).click(position={"x": 50, "y": 50}))
    assert axe(page) == []
    page.get_by_role("tab", name="Studies").click()
    page.locator(".charts figure").first.wait_for()
    assert axe(page) == []


def test_axe_would_say_so(visit, axe):
    page = visit().page
    page.evaluate("document.querySelector('h1').append(document.createElement('button'))")
    assert any(each.startswith("button-name") for each in axe(page))


def test_what_models_are_called_and_have_seen_is_said_of_each_where_they_differ(visit):
    page = visit().page
    told = page.evaluate("""async () => {
        const { Card, leadOf, percent, titled } = await import("./page/card.js");
        const model = (name, images, tasks = ["colour", "class"]) => ({ name, tasks, classes: [], trained_on: { images, source: null } });
        const said = (...models) => leadOf(titled(models));
        const shown = (fast) => {
            const card = new Card(titled([model("a", 1)])[0], 1);
            const answer = { fast, label: "sea_lion", novelty: 0.5, probabilities: { sea_lion: 0.9, coral_reef: 0.1 }, warnings: [] };
            const views = new Map([["a", { answer, map: null, url: null }]]);
            card.show({ name: "photo", before: "", full: { width: 1, height: 1, kind: "" }, choices: new Map(), views });
            return card.root.textContent;
        };
        return {
            titles: titled([model("old", 1), model("new <1>", 1), model("b", 1, ["colour"])]).map(({ title }) => title),
            kinds: titled([model("a", 1), model("b", 1, ["colour"])]).map(({ title }) => title),
            alone: titled([model("built-in", 1)])[0].title,
            classes: said({ ...model("a", 96), classes: ["coral_reef", "sea_lion"] }),
            named: said(model("multi", 96), model("built", 2400)),
            kind: said(model("a", 96), model("b", 2400, ["colour"])),
            one: said(model("a", 96)), same: said(model("a", 96), model("b", 96)),
            shares: [0.9999, 0.984, 0.5, 0.002].map(percent),
            ...Object.fromEntries([true, false].map((fast) => [fast ? "fast" : "full", shown(fast)])),
        };
    }""")
    assert told["titles"] == ["old", "new <1>", "Single-task"]
    assert told["kinds"] == ["Multi-task", "Single-task"]
    assert told["alone"] == "built-in"
    assert "of coral reef, sea lion;" in told["classes"]
    assert all("Sees sea lion" in told[how] and "coral reef" in told[how] for how in ("fast", "full"))
    assert ["seen at one size" in told[how] for how in ("fast", "full")] == [True, False]
    assert "The model multi has seen 96 images" in told["named"]
    assert "The model built has seen 2,400 images" in told["named"]
    assert "The multi-task model has seen 96" in told["kind"]
    assert "The single-task model has seen 2,400" in told["kind"]
    assert "The model has seen 96" in told["one"]
    assert "The models have seen 96" in told["same"]
    assert told["shares"] == ["> 99 %", "98 %", "50 %", "< 1 %"]


def test_a_refused_point_is_said_and_not_placed(visit):
    page = visit(refused=422).page
    upload(page, ("a.png", scene(64, 48)))
    page.get_by_role("button", name="sea", exact=True).click()
    frame = page.locator(".aim").nth(1)
    frame.evaluate("""surface => {
        const { left, top, width } = surface.getBoundingClientRect();
        for (let place = 0; place < 64; place += 1) {
            const clientX = left + (place / 64) * width;
            surface.dispatchEvent(new MouseEvent("click", { clientX, clientY: top + 5 }));
        }
    }""")
    # one is coloured after another: a busy machine may take longer for all than is waited for one thing
    for number in range(8, 65, 8):
        expect(page.locator("#points li").nth(number - 1)).to_be_visible()
    expect(page.locator("#status")).to_have_text("Point 64 placed.")
    frame.click()
    expect(page.get_by_role("alert")).to_contain_text("`hints`")
    expect(page.locator("#points li")).to_have_count(64)
    expect(page.locator("#status")).not_to_contain_text("placed")


@pytest.fixture(scope="module")
def hurrying() -> Iterator[str]:
    models = {"one": Colorizer(FakeNetwork()), "several": Colorizer(SeveralSizes(colours_network()))}
    with running(models, with_page=True, stop_seconds=1) as (host, port, _):
        yield f"http://{host}:{port}/"


def test_whoever_wants_it_fast_is_shown_and_given_photos_seen_at_one_size(opened, hurrying):
    page = opened(hurrying).page
    upload(page, ("a.png", noisy := grain()))
    fast = page.get_by_label("Fast")
    expect(fast).to_have_accessible_description(
        "Sees each photo at one size, not at three: faster, with more blotches."
    )
    usual, once = coloured(page, 1), coloured(page, 0)
    tab_to(page, "#fast")
    quick = change(page, lambda: page.keyboard.press("Space"), 1)
    expected = Colorizer(colours_network()).colorize(noisy).image.pixels
    assert np.array_equal(quick, expected)
    assert not np.array_equal(quick, usual)
    assert np.array_equal(coloured(page, 0), once)
    expect(page.locator(".card").nth(0)).not_to_contain_text("changes nothing")
    with page.expect_download() as saved:
        page.locator(".download").nth(1).click()
    assert np.array_equal(np.asarray(Image.open(saved.value.path())), expected)


def test_where_no_model_could_be_faster_nothing_is_offered(visit):
    page = visit().page
    upload(page, ("a.png", scene()))
    expect(page.locator("#fast")).to_be_hidden()


@pytest.fixture(scope="module")
def choosing() -> Iterator[str]:
    with running({"one": Colorizer(ChoosingNetwork())}, with_page=True, stop_seconds=1) as (host, port, _):
        yield f"http://{host}:{port}/"


def test_one_of_four_colourings_is_chosen_shown_and_downloaded(opened, choosing):
    page = opened(choosing).page
    upload(page, ("a.png", scene()))
    usual = coloured(page, 0)
    choices = page.get_by_role("list", name="Colourings to choose from")
    expect(choices).to_be_hidden()
    page.get_by_role("button", name="Other colourings").click()
    buttons = choices.get_by_role("button")
    expect(buttons).to_have_count(4)
    expect(buttons.nth(0)).to_be_focused()
    expect(buttons.nth(0)).to_have_attribute("aria-pressed", "true")
    assert np.array_equal(coloured(page, 0), usual)
    second = change(page, buttons.nth(1).click, 0)
    expect(buttons.nth(1)).to_have_attribute("aria-pressed", "true")
    expect(buttons.nth(1)).to_be_focused()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download").click()
    whole = np.asarray(Image.open(saved.value.path()))
    assert np.abs(whole.astype(int) - second[..., :3]).max() == 0
    shown = buttons.nth(2).locator("img").get_attribute("src")
    change(page, lambda: fill(page, "#saturation", 40), 0)
    expect(buttons.nth(2).locator("img")).not_to_have_attribute("src", shown)  # of the settings as they are
    assert np.array_equal(change(page, lambda: fill(page, "#saturation", 100), 0), second)
    assert np.array_equal(change(page, buttons.nth(0).click, 0), usual)


def test_a_model_with_one_colouring_offers_no_others(visit):
    page = visit().page
    upload(page, ("a.png", scene()))
    expect(page.get_by_role("button", name="Other colourings")).to_have_count(0)


@pytest.fixture(scope="module")
def matching() -> Iterator[str]:
    with running({"one": Colorizer(MatchingNetwork())}, with_page=True, stop_seconds=1) as (host, port, _):
        yield f"http://{host}:{port}/"


def textured() -> np.ndarray:
    """Gray, with no place like another, at the size at which photos are matched."""
    return np.random.default_rng(0).integers(60, 190, (256, 384, 1), np.uint8)


def test_a_reference_gives_its_colours_until_it_is_removed_and_a_gray_one_is_refused(opened, matching):
    page, file, gray = opened(matching, refused=422).page, io.BytesIO(), io.BytesIO()
    Image.fromarray(textured()[..., 0]).save(gray, "PNG")
    Image.fromarray((textured() * (0.6, 0.8, 1)).astype(np.uint8)).save(file, "PNG")
    upload(page, ("a.png", file.getvalue()))  # only its lightness counts
    own = coloured(page, 0)
    assert own[..., 0].mean() > own[..., 2].mean()  # orange
    given = {"name": "blue.png", "mimeType": "image/png", "buffer": file.getvalue()}
    blue = change(page, lambda: page.locator("#reference-file").set_input_files(given), 0)
    assert blue[..., 0].mean() < blue[..., 2].mean()
    expect(page.locator("#reference .found")).to_have_text("100 % of the photo was found in it.")
    expect(page.get_by_role("img", name="Reference blue.png")).to_be_visible()
    page.locator("#reference-file").set_input_files(given | {"name": "gray.png", "buffer": gray.getvalue()})
    expect(page.get_by_role("alert")).to_contain_text("`reference` has no colours to take")
    expect(page.get_by_role("img", name="Reference blue.png")).to_be_visible()  # the one before stays
    remove = page.get_by_role("button", name="Remove reference")
    assert np.array_equal(change(page, remove.click, 0), own)
    expect(remove).to_be_hidden()


@pytest.fixture(scope="module")
def class_only() -> Iterator[str]:
    models = {"only": Colorizer(FakeNetwork(tasks=("class",)))}
    with running(models, with_page=True, stop_seconds=1) as (host, port, _):
        yield f"http://{host}:{port}/"


def test_a_model_that_cannot_colour_shows_the_photo_and_its_class_alone(opened, class_only):
    page = opened(class_only).page
    page.locator("body[data-ready]").wait_for()
    upload(page, ("a.png", scene()))
    expect(page.locator(".classes caption")).to_be_visible()
    expect(page.locator(".card .download")).to_be_hidden()
    assert chroma(coloured(page, 0)) == 0
    assert page.locator(".before").evaluate("image => image.naturalWidth") == 320


def test_a_file_that_only_the_api_can_read_is_classified_without_a_picture(opened, class_only):
    page = opened(class_only).page
    page.locator("body[data-ready]").wait_for()
    upload(page, ("a.tif", scene(kind="TIFF")))
    expect(page.locator(".classes caption")).to_be_visible()
    expect(page.locator(".card .frame")).to_be_hidden()
    upload(page, ("b.png", scene()))
    expect(page.locator(".card .frame")).to_be_visible()


def test_a_name_with_html_in_it_is_a_name(visit):
    page = visit(refused=415).page
    name = "<img src=x onerror=document.title='broken'>.png"
    upload(page, (name, scene()), ("b.png", scene()))
    expect(page.locator("img[src='x']")).to_have_count(0)
    expect(page.locator(".before").first).to_have_attribute("alt", f"{name} in gray")
    page.locator("#photos").set_input_files(
        [{"name": name + ".txt", "mimeType": "text/plain", "buffer": b"no"}]
    )
    expect(page.get_by_role("alert")).to_contain_text(name)
    assert "broken" not in page.title()


def test_with_a_token_the_page_works_once_it_was_shown_and_its_address_forgets_it(opened):
    token = "a-token-of-some-length"
    with running(with_page=True, stop_seconds=1, token=token) as (host, port, _):
        page = opened(f"http://{host}:{port}/?token={token}").page
        page.locator("body[data-ready]").wait_for()
        assert page.url == f"http://{host}:{port}/"
        upload(page, ("a.png", scene()))
        expect(page.locator(".classes caption")).to_be_visible()


def test_few_hatches_are_not_taken_for_certainty_where_a_photo_stayed_gray(opened, pale):
    page = opened(pale).page
    page.locator("body[data-ready]").wait_for()
    upload(page, ("a.png", scene()))
    expect(page.locator(".spread:visible")).to_have_count(0)
    page.get_by_label("Show where the colours are unsure").check()
    notes = page.locator(".spread")
    expect(notes).to_contain_text(["its answers to the photo mirrored and enlarged differ by"] * 2)
    expect(notes.nth(0)).to_contain_text("do not mean sure here: the photo stayed nearly gray")
    expect(notes.nth(1)).not_to_contain_text("do not mean sure")


def test_a_busy_server_is_said_and_nothing_breaks(visit, served):
    page = visit(refused=429).page
    upload(page, ("a.png", scene()))
    page.route(
        "**/v1/colorize**", lambda route: route.fulfill(status=429, json={"error": "The server is busy."})
    )
    fill(page, "#saturation", 120)
    expect(page.get_by_role("alert")).to_have_text("The server is busy.")
    page.unroute("**/v1/colorize**")
    change(page, lambda: fill(page, "#saturation", 140))
    expect(page.get_by_role("alert")).to_have_count(0)


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "tif", "avif", "gif", "bmp"])
def test_the_link_names_the_size_and_the_format_of_what_is_downloaded(visit, kind: str):
    page = visit().page
    types = {"jpg": "jpeg", "tif": "tiff"}
    data = scene(64, 40, types.get(kind, kind).upper())
    page.locator("#photos").set_input_files({"name": f"scan.{kind}", "mimeType": "image/x", "buffer": data})
    button = page.locator(".card .download").nth(1)
    expect(button).to_contain_text("64 × 40")
    with page.expect_download() as started:
        button.click()
    got = Image.open(io.BytesIO(Path(started.value.path()).read_bytes()))
    assert button.inner_text().upper().endswith(f"{got.width} × {got.height} {got.format}")
    assert started.value.suggested_filename.startswith("scan-colour.")


def test_an_answer_that_breaks_off_is_said_and_the_next_one_is_shown(visit):
    page = visit().page
    upload(page, ("a.png", scene()))
    page.evaluate("""() => {
        const whole = window.fetch;
        window.mend = () => { window.fetch = whole; };
        window.fetch = async () => new Response(new ReadableStream({
            pull: (controller) => controller.error(new TypeError("network error")),
        }));
    }""")
    for act in (
        lambda: fill(page, "#saturation", 120),
        lambda: page.locator(".card .download").nth(1).click(),
        lambda: page.get_by_role("button", name="Try the example three girls").click(),
    ):
        page.evaluate("document.querySelector('#alert').textContent = ''")
        act()
        expect(page.get_by_role("alert")).to_have_text("The answer broke off.")
    page.evaluate("window.mend()")
    change(page, lambda: fill(page, "#saturation", 140))
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_server_that_names_no_models_yet_is_said_and_asked_again(opened, served):
    def refuse(route: Any) -> None:
        route.fulfill(status=503, json={"error": "The server is stopping. Try again when it runs again."})

    page = opened(served.address, refused=503).page
    page.route("**/v1/models", refuse)
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("The server is stopping.")
    page.locator("#photos").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": scene()})
    # the words of the first refusal stand until the second has come
    with page.expect_response("**/v1/models"):
        page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("button", name="Try again")).to_be_enabled()
    expect(page.get_by_role("alert")).to_contain_text("The server is stopping.")
    page.unroute("**/v1/models")
    page.get_by_role("button", name="Try again").dblclick()
    expect(page.locator("#status")).to_have_text("1 photo coloured.")  # chosen meanwhile
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.locator(".card")).to_have_count(2)


def test_of_points_placed_while_colours_are_on_their_way_only_the_refused_one_goes(visit):
    page = visit(refused=422).page
    upload(page, ("a.png", scene()))
    page.get_by_role("button", name="sea", exact=True).click()

    def refuse_the_second(route: Any) -> None:
        hints = parse_qs(urlsplit(route.request.url).query).get("hints", [])
        if any(hint.startswith("50.") for hint in hints):
            route.fulfill(status=422, json={"error": "`hints` should be elsewhere."})
        else:
            route.continue_()

    page.route("**/v1/colorize**", refuse_the_second)
    page.evaluate("""() => {
        const aim = document.querySelectorAll(".aim")[1], box = aim.getBoundingClientRect();
        for (const share of [0.2, 0.5, 0.8]) {
            const at = { clientX: box.left + share * box.width, clientY: box.top + 0.5 * box.height };
            aim.dispatchEvent(new MouseEvent("click", { bubbles: true, ...at }));
        }
    }""")
    expect(page.locator("#status")).to_have_text("Point 2 placed.")
    expect(page.locator("#points li")).to_contain_text(["at 20 %", "at 80 %"])


def test_downloads_of_a_server_that_stays_busy_end(visit):
    page = visit(refused=429).page
    upload(page, ("a.png", scene()), ("b.png", scene()))
    asked = []

    def refuse(route: Any) -> None:
        asked.append(route.request.url)
        route.fulfill(status=429, headers={"retry-after": "0.01"}, json={"error": "The server is busy."})

    page.route("**/v1/colorize**", refuse)
    page.locator(".card .download").nth(1).click()
    expect(page.get_by_role("alert")).to_have_text("The server is busy.")
    assert len(asked) == 5
    page.get_by_role("button", name="All 2 as ZIP, multi-task").click()
    expect(page.locator("#status")).to_have_text("Colouring 1 of 2 ...")
    expect(page.get_by_role("alert")).to_have_text("The server is busy.")
    assert len(asked) == 10
