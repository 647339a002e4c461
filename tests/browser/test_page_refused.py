"""The page when a photo, a point or a request is refused, or an answer is late or incomplete."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from page_actions import change, expect, fill, scene, upload


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        (b"no picture at all", 415, "bad.png is not an image that can be read"),
        (b"", 400, "bad.png should be the bytes of an image"),
        (scene()[:-40], 422, "bad.png: the PNG image is damaged"),
    ],
)
def test_what_is_no_image_is_said_and_does_no_harm(visit, data, status, said):
    page = visit(refused=status).page
    page.set_viewport_size({"width": 390, "height": 800})
    worse = f"wors{'e' * 100} $&.png"
    bad = {"mimeType": "image/png", "buffer": data}
    page.locator("#photos").set_input_files([{"name": "bad.png", **bad}, {"name": worse, **bad}])
    expect(page.get_by_role("alert")).to_contain_text(worse)
    lines = page.get_by_role("alert").inner_text().splitlines()
    assert lines[0].startswith(said)
    assert lines[1:] == [lines[0].replace("bad.png", worse)]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    upload(page, ("good.png", scene()))
    expect(page.get_by_role("alert")).to_have_count(0)


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
    # photos are coloured in sequence, so a busy machine can take longer for all than one timeout
    for number in range(8, 65, 8):
        expect(page.locator("#points li").nth(number - 1)).to_be_visible()
    expect(page.locator("#status")).to_have_text("Point 64 placed.")
    frame.click()
    expect(page.get_by_role("alert")).to_contain_text("`hints`")
    expect(page.locator("#points li")).to_have_count(64)
    expect(page.locator("#status")).not_to_contain_text("placed")


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
        expect(page.get_by_role("alert")).to_have_text("The answer of the server broke off. Try again.")
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
    # the message of the first refusal stays until the second refusal arrives
    with page.expect_response("**/v1/models"):
        page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("button", name="Try again")).to_be_enabled()
    expect(page.get_by_role("alert")).to_contain_text("The server is stopping.")
    page.unroute("**/v1/models")
    page.get_by_role("button", name="Try again").dblclick()
    expect(page.locator("#status")).to_have_text("1 photo coloured.")  # this photo was chosen meanwhile
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
