"""A PNG without ICC profile and sRGB chunk is interpreted by its gAMA, cHRM and cICP chunks."""

import struct
import zlib

import numpy as np
import pytest
from odd_files import GRAY, GRAY16, RGB, RGB16, RGBA, chunk, pillow, png, srgb_profile, vips
from PIL import Image

from knowhue.images.reading import read_image
from knowhue.images.writing import encode_image

DEPTHS = {"gray": GRAY, "gray 16": GRAY16, "rgb": RGB, "rgb 16": RGB16}


def said(pixels: np.ndarray, *chunks: bytes) -> bytes:
    """A PNG with chunks before its pixels."""
    data = vips(pixels, ".png", "grey16" if pixels.dtype == np.uint16 and pixels.ndim == 2 else "")
    return data[:33] + b"".join(chunks) + data[33:]


def gama(gamma: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(gamma * 100_000)))


def chrm(*places: float) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *(round(place * 100_000) for place in places)))


def light(codes: np.ndarray) -> np.ndarray:
    """Linear light of sRGB codes (IEC 61966-2-1)."""
    share = codes / np.iinfo(codes.dtype).max
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def encoded(linear: np.ndarray) -> np.ndarray:
    linear = linear.clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def code_error(found: np.ndarray, wanted: np.ndarray) -> float:
    return np.abs(found / np.iinfo(found.dtype).max - wanted.reshape(found.shape)).max()


SRGB_CHUNK = chunk(b"sRGB", b"\0")
SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
ADOBE = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
ADOBE_TO_SRGB = np.array([[1.39836, -0.39836, 0], [0, 1, 0], [0, -0.04293, 1.04293]])
"""By Lindbloom's matrices, both spaces at D65."""


@pytest.mark.parametrize("depth", list(DEPTHS))
@pytest.mark.parametrize("gamma", [1.0, 1 / 1.8, 0.3])
def test_gamma_is_honoured(depth: str, gamma: float):
    codes = DEPTHS[depth]
    read = read_image(said(codes, gama(gamma)))
    told = round(gamma * 100_000) / 100_000
    assert read.pixels.dtype == codes.dtype
    wanted = encoded((codes / np.iinfo(codes.dtype).max) ** (1 / told))
    assert code_error(read.pixels, wanted) < 0.51 / np.iinfo(codes.dtype).max + 2e-5
    assert "gAMA" in read.origin.notes[0]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp", ".avif"])
def test_what_is_written_is_srgb_and_says_so(suffix: str):
    read = read_image(said(RGB, gama(1)))
    written = encode_image(read, suffix)
    again = read_image(written)
    assert not again.origin.notes
    assert again.origin.profile == read.origin.profile is not None
    assert np.abs(again.pixels.astype(float) - read.pixels).mean() < 3
    assert b"gAMA" not in written[:200]


@pytest.mark.parametrize(
    "chunks",
    [
        (gama(0.45455),),
        (gama(0.45455), chrm(*SRGB)),
        (gama(0.46),),
        (SRGB_CHUNK, gama(1)),
        (SRGB_CHUNK, gama(1), chrm(*ADOBE)),
        (chrm(*ADOBE),),
        (gama(0),),
        (chunk(b"cICP", bytes([1, 13, 0, 1])), gama(1)),
    ],
)
def test_what_means_srgb_changes_nothing(chunks: tuple[bytes, ...]):
    read = read_image(said(RGB, *chunks))
    assert np.array_equal(read.pixels, RGB)
    assert not read.origin.notes
    assert read.origin.profile is None


def test_a_profile_counts_more_than_gamma():
    data = pillow(RGB, "PNG", icc_profile=srgb_profile())
    read = read_image(data[:33] + gama(1) + data[33:])
    assert np.array_equal(read.pixels, RGB)
    assert not read.origin.notes


@pytest.mark.parametrize("depth", ["rgb", "rgb 16"])
@pytest.mark.parametrize("gamma", [1.0, 1 / 2.2])
def test_primaries_are_honoured_with_gamma(depth: str, gamma: float):
    codes = DEPTHS[depth]
    read = read_image(said(codes, gama(gamma), chrm(*ADOBE)))
    share = codes / np.iinfo(codes.dtype).max
    own = light(codes) if gamma == 1 / 2.2 else share  # 0.45455 means sRGB's own curve
    linear = own @ ADOBE_TO_SRGB.T
    inside = ((linear >= 0) & (linear <= 1)).all(-1)
    assert inside.mean() > 0.3
    wanted = encoded(linear)
    assert np.abs(read.pixels / np.iinfo(codes.dtype).max - wanted)[inside].max() < 0.004
    luminance = linear.clip(0, None) @ [0.2126, 0.7152, 0.0722]
    assert np.abs(light(read.pixels) @ [0.2126, 0.7152, 0.0722] - luminance).max() < 0.01
    assert "cHRM" in read.origin.notes[0]


def test_primaries_that_make_no_colours_are_left_aside():
    read = read_image(said(RGB, gama(1), chrm(0.3, 0.3, *(0.2, 0.2) * 3)))
    assert np.array_equal(read.pixels, read_image(said(RGB, gama(1))).pixels)


def test_primaries_move_no_gray():
    read = read_image(said(GRAY, gama(1), chrm(*ADOBE)))
    assert np.array_equal(read.pixels, read_image(said(GRAY, gama(1))).pixels)


def test_transparency_has_no_gamma():
    read = read_image(said(RGBA, gama(1)))
    assert read.alpha is not None
    assert np.array_equal(read.alpha, RGBA[..., 3])
    assert np.array_equal(read.pixels, read_image(said(RGB, gama(1))).pixels)


def test_a_palette_has_gamma():
    data = pillow(Image.fromarray(RGB).quantize(7), "PNG")
    plain = read_image(data).pixels
    read = read_image(data[:33] + gama(1) + data[33:]).pixels
    assert code_error(read, encoded(plain / 255)) < 0.51 / 255


def test_few_bits_have_gamma():
    rows = (b"\0" + np.packbits(np.arange(24) % 2).tobytes()) * 16
    assert set(read_image(png(rows, 1, 0, before=gama(1))).pixels.ravel().tolist()) == {0, 255}


def test_gamma_behind_much_else_is_found():
    much = chunk(b"iTXt", b"Comment\0\0\0\0\0" + b"words " * 20_000)
    assert np.array_equal(read_image(said(RGB, much, gama(1))).pixels, read_image(said(RGB, gama(1))).pixels)


def test_linear_and_wide_cicp_are_honoured_and_high_dynamic_range_is_said():
    linear = read_image(said(RGB, chunk(b"cICP", bytes([1, 8, 0, 1]))))
    assert np.array_equal(linear.pixels, read_image(said(RGB, gama(1))).pixels)
    wide = read_image(said(RGB16, chunk(b"cICP", bytes([12, 13, 0, 1]))))
    assert wide.pixels.std() > RGB16.std()
    pq = read_image(said(RGB16, chunk(b"cICP", bytes([9, 16, 0, 1]))))
    assert np.array_equal(pq.pixels, RGB16)
    assert "cICP 9-16-0-1" in pq.origin.notes[0]


@pytest.mark.parametrize("body", [b"", b"\0", b"\0" * 5, b"\xff" * 4])
def test_a_damaged_gamma_does_no_harm(body: bytes):
    data = said(RGB)
    wrong = struct.pack(">I", len(body)) + b"gAMA" + body + struct.pack(">I", zlib.crc32(b"gAMA" + body))
    assert read_image(data[:33] + wrong + data[33:]).pixels.shape == RGB.shape
