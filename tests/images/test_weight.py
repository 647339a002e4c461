"""Estimates of an image's shape and memory from its header."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from knowhue.images.reading import read_image, weigh_image


def size_bytes(image: np.ndarray) -> int:
    return image.shape[0] * image.shape[1] * 3 * image.itemsize


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif", ".bmp"])
def test_is_known_from_the_header_and_grows_with_the_pixels(tmp_path: Path, suffix: str):
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    weights = []
    for size in (1, 2):
        Image.fromarray(noise).resize((80 * size, 60 * size)).save(tmp_path / f"a{suffix}")
        weights.append(weigh_image(tmp_path / f"a{suffix}").held_bytes)
    assert weights[0] >= 2 * size_bytes(noise)  # what was read and what is painted
    assert weights[1] == pytest.approx(4 * weights[0], rel=0.02)
    assert weigh_image(tmp_path / f"a{suffix}").shape == (120, 160)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_the_shape_is_that_of_the_upright_image(tmp_path: Path, suffix: str):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 60)).save(tmp_path / f"a{suffix}", exif=exif)
    assert weigh_image(tmp_path / f"a{suffix}").shape == (80, 60)
    assert read_image(tmp_path / f"a{suffix}").pixels.shape == (80, 60, 3)


def test_a_header_that_is_cut_says_no_shape(tmp_path: Path):
    (tmp_path / "a.bmp").write_bytes(b"BM cut")
    assert weigh_image(tmp_path / "a.bmp").shape is None


def test_sixteen_bits_and_gray_weigh_what_is_painted(tmp_path: Path):
    gray = np.zeros((60, 80), np.uint16)
    Image.fromarray(gray).save(tmp_path / "a.png")
    assert weigh_image(tmp_path / "a.png").held_bytes >= 2 * size_bytes(gray)


def test_what_is_no_image_weighs_little_and_raises_nothing(tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    assert weigh_image(tmp_path / "a.jpg").held_bytes < 10_000
    assert weigh_image(tmp_path / "nowhere.jpg").held_bytes == 0
