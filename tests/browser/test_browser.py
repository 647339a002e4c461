"""Colouring photos on the page, in a browser."""

import io
import re
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_server import running
from page_actions import change, chroma, coloured, expect, fill, scene, split_position, upload
from PIL import Image


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
    assert split_position(page) == 50
    box = page.locator(".frame").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + 60, steps=4)
    page.mouse.up()
    assert split_position(page) == pytest.approx(20, abs=2)
    page.locator(".split").nth(1).focus()
    page.keyboard.press("ArrowRight")
    assert split_position(page) == pytest.approx(21, abs=2)
    shares = page.locator(".before").evaluate_all("all => all.map(e => getComputedStyle(e).clipPath)")
    assert len(set(shares)) == 1
    kept = split_position(page)
    change(page, lambda: fill(page, "#saturation", 150))
    assert split_position(page) == kept


def test_strength_saturation_and_overlay_do_what_they_say(visit):
    page = visit().page
    upload(page, ("a.png", scene()))
    usual = chroma(coloured(page))
    vivid = change(page, lambda: fill(page, "#saturation", 160))
    assert chroma(vivid) > 1.2 * usual
    gray = change(page, lambda: fill(page, "#strength", 0))
    assert chroma(gray) < 3
    expect(page.locator(".unsure").first).to_be_hidden()
    page.get_by_label("Show uncertain colours").check()
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
    # the last colour at a place replaces earlier ones
    page.get_by_role("button", name="skin", exact=True).click()
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


def test_who_leaves_is_asked_while_a_photo_is_not_downloaded_as_it_is_set(visit):
    page = visit().page
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))

    def questions() -> int:
        """Reload the page; return how often the browser asked for confirmation."""
        asked.clear()
        page.reload()
        page.locator("body[data-ready]").wait_for()
        return len(asked)

    page.locator("#examples button").first.click()
    expect(page.locator("#status")).to_have_text("1 photo coloured.")
    assert questions() == 0
    upload(page, ("a.png", scene()))
    page.locator("#lead").click()  # browsers ask only after an interaction
    assert (questions(), asked) == (1, ["beforeunload"])
    for then, number in ((lambda: None, 0), (lambda: fill(page, "#saturation", 130), 1)):
        upload(page, ("a.png", scene()))
        with page.expect_download():
            page.locator(".card .download").nth(1).click()
        expect(page.locator("#status")).to_have_text("Saved.")
        then()
        assert questions() == number


def test_several_photos_make_a_gallery_and_one_zip(visit):
    page = visit().page
    upload(page, ("a.png", scene()), ("b.jpg", scene(kind="JPEG")), ("c.png", scene(100, 200)))
    expect(page.locator(".thumb")).to_have_count(3)
    expect(page.locator(".thumb").nth(0)).to_have_attribute("aria-pressed", "true")
    change(page, lambda: page.get_by_role("button", name="Show c.png").click())
    assert coloured(page).shape == (200, 100, 3)
    first_model = page.locator(".after").first.get_attribute("src")
    expect(page.locator(".thumb img").nth(2)).to_have_attribute("src", first_model)
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
