"""The page in both themes, on a phone and with a screen reader."""

import pytest
from page_actions import change, contrast, expect, luminance, scene, split_position, tab_to, upload


def test_everything_can_be_done_with_the_keyboard_alone(visit):
    page = visit().page
    tab_to(page, "#photos")
    tab_to(page, "#examples button")
    page.keyboard.press("Enter")
    page.locator(".card").first.wait_for()
    tab_to(page, ".split")
    before = split_position(page)
    page.keyboard.press("ArrowLeft")
    assert split_position(page) == before - 1
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
    assert split_position(page) == pytest.approx(25, abs=5)
    page.get_by_role("button", name="sky", exact=True).tap()
    change(page, lambda: page.locator(".aim").nth(1).tap(position={"x": 50, "y": 50}))
    small = page.evaluate(
        """() => [...document.querySelectorAll('button, a, input[type=checkbox], input[type=color]')]
        .filter(e => e.offsetParent).map(e => [e.outerHTML.slice(0, 80), e.getBoundingClientRect()])
        .filter(([, box]) => box.height < 24 && box.width < 24).map(([text]) => text)"""
    )
    assert [each for each in small if "checkbox" not in each] == []  # its label can be touched as well


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


@pytest.mark.parametrize(
    "screen", [{"width": 1280}, {"width": 390, "height": 800, "is_mobile": True}], ids=["desktop", "phone"]
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_any_state_of_the_page(visit, log_epoch, axe, screen, scheme):
    log_epoch("multi", 0, 2, ab_l1=14.0, balanced_accuracy=0.6)
    page = visit(color_scheme=scheme, **screen).page
    assert axe(page) == []
    upload(page, ("a.png", scene()), ("b.png", scene()))
    page.get_by_label("Show uncertain colours").check()
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
