"""Actions of a visitor on the page, and readings of what it shows."""

import base64
import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

playwright = pytest.importorskip("playwright.sync_api", reason="needs `pip install playwright`")
expect = playwright.expect
expect.set_options(timeout=60_000)  # as long as a click may take


def scene(width: int = 320, height: int = 240, kind: str = "PNG") -> bytes:
    """A gray image with some structure."""
    across, down = np.meshgrid(np.linspace(60, 190, width), np.linspace(0, 30, height))
    file = io.BytesIO()
    Image.fromarray((across + down).astype(np.uint8)).save(file, kind)
    return file.getvalue()


def noise() -> bytes:
    """A PNG of gray noise."""
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
    """The coloured image of a card, RGB codes."""
    shown = (
        page.locator(".after")
        .nth(card)
        .evaluate("""async image => {
        for (let decoded = false; !decoded;) {
            const source = image.src;
            // decoding fails if another answer replaces the source meanwhile; then try again
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
    """Call `act`, wait until the card shows another image, and return it, RGB codes."""
    before = page.locator(".after").nth(card).get_attribute("src")
    act()
    expect(page.locator(".after").nth(card)).not_to_have_attribute("src", before)
    return coloured(page, card)


def fill(page: Any, slider: str, value: int) -> None:
    page.locator(f"{slider} input[type=number]").fill(str(value))
    page.keyboard.press("Tab")


def chroma(rgb: np.ndarray) -> float:
    return float((rgb.max(-1) - rgb.min(-1)).mean())


def split_position(page: Any) -> float:
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


def luminance(colour: str) -> float:
    channels = [float(each) / 255 for each in re.findall(r"[\d.]+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)
