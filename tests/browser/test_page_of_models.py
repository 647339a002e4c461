"""The page's texts and controls for the models that the server offers."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
from fake_network import FakeNetwork
from fake_server import ChoosingNetwork, MatchingNetwork, running
from page_actions import change, chroma, coloured, expect, fill, noise, scene, tab_to, upload
from PIL import Image
from tiny_models import colours_network

from knowhue.inference.colorizer import Colorizer
from knowhue.inference.colour_distribution import SeveralSizes
from knowhue.inference.networks import Predictions


class Strange(FakeNetwork):
    """Trained on drawn scenes; reports every image as novel, but predicts with certainty."""

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
    """Predicts almost no colour."""

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
    expect(page.locator(".lead")).to_contain_text("was trained on 2,400 drawn scenes of sea star, shark")
    expect(page.locator(".lead")).to_contain_text("anything else are guesses")


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
    """Hatching is black and white: neighbouring pixels differ on any photo where the model is unsure."""
    page = visit().page
    upload(page, ("a.png", scene()))
    page.get_by_label("Show uncertain colours").check()
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


def test_what_models_are_called_and_have_seen_is_said_of_each_where_they_differ(visit):
    page = visit().page
    told = page.evaluate("""async () => {
        const { Card, trainingSummary, percent, titled } = await import("./page/card.js");
        const model = (name, images, tasks = ["colour", "class"]) => ({ name, tasks, classes: [], trained_on: { images, source: null } });
        const said = (...models) => trainingSummary(titled(models));
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
    assert ["predicted at one size" in told[how] for how in ("fast", "full")] == [True, False]
    assert "The model “multi” was trained on 96 images" in told["named"]
    assert "The model “built” was trained on 2,400 images" in told["named"]
    assert "The multi-task model was trained on 96" in told["kind"]
    assert "The single-task model was trained on 2,400" in told["kind"]
    assert "The model was trained on 96" in told["one"]
    assert "The models were trained on 96" in told["same"]
    assert told["shares"] == ["> 99 %", "98 %", "50 %", "< 1 %"]


@pytest.fixture(scope="module")
def hurrying() -> Iterator[str]:
    models = {"one": Colorizer(FakeNetwork()), "several": Colorizer(SeveralSizes(colours_network()))}
    with running(models, with_page=True, stop_seconds=1) as (host, port, _):
        yield f"http://{host}:{port}/"


def test_whoever_wants_it_fast_is_shown_and_given_photos_seen_at_one_size(opened, hurrying):
    page = opened(hurrying).page
    upload(page, ("a.png", noisy := noise()))
    fast = page.get_by_label("Fast")
    expect(fast).to_have_accessible_description(
        "Predicts each photo at one size, not three: faster, with more blotches."
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
    # coloured again with the current settings
    expect(buttons.nth(2).locator("img")).not_to_have_attribute("src", shown)
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
    """A gray image without repeated patches, at the size at which photos are matched."""
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
    # the previous reference is kept
    expect(page.get_by_role("img", name="Reference blue.png")).to_be_visible()
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


def test_few_hatches_are_not_taken_for_certainty_where_a_photo_stayed_gray(opened, pale):
    page = opened(pale).page
    page.locator("body[data-ready]").wait_for()
    upload(page, ("a.png", scene()))
    expect(page.locator(".spread:visible")).to_have_count(0)
    page.get_by_label("Show uncertain colours").check()
    notes = page.locator(".spread")
    expect(notes).to_contain_text(["its answers for the photo mirrored and enlarged differ by"] * 2)
    expect(notes.nth(0)).to_contain_text("The photo stayed nearly gray, so few hatches do not mean")
    expect(notes.nth(1)).not_to_contain_text("few hatches")
