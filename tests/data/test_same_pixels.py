"""Training and colorize see the same pixels of the same file."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from icc_profiles import gray_profile, rgb_profile
from odd_files import CMYK, GRAY, GRAY16, ODD_FILES, RGB, RGB16, RGBA, pillow, preview_first, tagged, tiff
from PIL import Image
from test_png_colour import ADOBE, chrm, gama, said

from knowhue.data.items import read_training_image
from knowhue.errors import KnowhueError
from knowhue.images.reading import read_image

FILES = {
    "rgb": partial(pillow, RGB, "PNG"),
    "gray": partial(pillow, GRAY, "PNG"),
    "jpeg": partial(pillow, RGB, "JPEG"),
    "gray 16": partial(said, GRAY16),
    "linear": lambda: said(RGB, gama(1)),
    "linear gray": lambda: said(GRAY, gama(1)),
    "linear gray 16": lambda: said(GRAY16, gama(1)),
    "gamma 1.8": lambda: said(RGB, gama(1 / 1.8)),
    "gamma 1.8, palette": lambda: with_gamma(pillow(Image.fromarray(RGB).quantize(9), "PNG"), 1 / 1.8),
    "gamma 2.2": lambda: said(RGB, gama(0.45455)),
    "adobe": partial(pillow, RGB, "PNG", icc_profile=rgb_profile("adobe")),
    "gray profile": partial(pillow, GRAY, "PNG", icc_profile=gray_profile(1.8)),
    "rgb 16": partial(said, RGB16),
    "gray profile 16": lambda: tagged(GRAY16, "grey16", ".png", gray_profile(1.8)),
    "tiff rgb 16": lambda: tiff(RGB16, photometric="rgb"),
    "linear rgb 16, dark": lambda: said(RGB16 // 16, gama(1)),
    "prophoto": partial(pillow, RGB, "PNG", icc_profile=rgb_profile("prophoto")),
    "prophoto 16": lambda: tagged(RGB16, "rgb16", ".png", rgb_profile("prophoto")),
    "primaries": lambda: said(RGB, gama(0.45455), chrm(*ADOBE)),
    "cmyk": partial(pillow, CMYK, "TIFF"),
    "cmyk jpeg": ODD_FILES["jpeg cmyk"].data,
    "cmyk profile": ODD_FILES["cmyk profile"].data,
    "preview first": preview_first,
}


def with_gamma(png: bytes, gamma: float) -> bytes:
    return png[:33] + gama(gamma) + png[33:]


def difference(folder: Path, data: bytes) -> float:
    """The largest of 8-bit codes."""
    path = folder / "image"
    path.write_bytes(data)
    colorized = read_image(path).pixels
    eight = colorized if colorized.dtype == np.uint8 else (colorized / 257).round()
    trained = np.asarray(read_training_image(path)).astype(float)
    if trained.shape[:2] != eight.shape[:2]:
        return np.inf
    return float(np.abs(trained - eight).max())


@pytest.mark.parametrize("name", list(FILES))
def test_training_sees_what_colorize_sees(tmp_path: Path, name: str):
    assert difference(tmp_path, FILES[name]()) == 0


def test_transparent_linear_pixels_lie_over_white(tmp_path: Path):
    (tmp_path / "image").write_bytes(said(RGBA, gama(1)))
    read = read_image(tmp_path / "image")
    assert read.alpha is not None
    share = read.alpha[..., None] / 255
    wanted = read.pixels * share + 255 * (1 - share)
    assert np.abs(np.asarray(read_training_image(tmp_path / "image")) - wanted).max() <= 1


def test_training_refuses_the_raw_files_that_colorize_refuses(tmp_path: Path):
    (tmp_path / "raw.dng").write_bytes(preview_first(raw=True))
    with pytest.raises(KnowhueError):
        read_training_image(tmp_path / "raw.dng")
