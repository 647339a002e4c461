"""An AVIF's codes are interpreted by its `nclx` box, unless it has a profile."""

import io
import struct

import numpy as np
import pytest
from odd_files import RGB, pillow, srgb_profile
from test_png_colour import encoded, light

from knowhue.images.containers import FileInfo, heif_info
from knowhue.images.reading import read_image

LOSSLESS = {"quality": 100, "subsampling": "4:4:4"}
AVIF = pillow(RGB, "AVIF", **LOSSLESS)
P3_TO_SRGB = np.array([[1.22494, -0.22494, 0], [-0.04206, 1.04206, 0], [-0.01964, -0.07864, 1.09828]])
"""Matrix by Lindbloom's formulas, both spaces at D65."""


def said(primaries: int, transfer: int, avif: bytes = AVIF) -> bytes:
    """An AVIF with other `nclx` codes."""
    at = avif.index(b"nclx") + 4
    return avif[:at] + struct.pack(">2H", primaries, transfer) + avif[at + 4 :]


@pytest.mark.parametrize("codes", [(1, 13), (2, 2), (2, 13), (1, 1), (1, 2), (1, 6)])
def test_what_stills_are_shown_as_changes_nothing(codes: tuple[int, int]):
    read = read_image(said(*codes))
    assert np.array_equal(read.pixels, read_image(AVIF).pixels)
    assert not read.origin.notes
    assert read.origin.profile is None


def test_display_p3_is_honoured():
    linear = light(read_image(AVIF).pixels) @ P3_TO_SRGB.T
    inside = ((linear >= 0) & (linear <= 1)).all(-1)
    assert inside.mean() > 0.3
    read = read_image(said(12, 13))
    assert np.abs(read.pixels / 255 - encoded(linear))[inside].max() < 1 / 255
    assert read.origin.notes == ("read by its nclx (12-13); it is written as sRGB",)
    assert read.origin.profile is not None


def test_linear_light_is_honoured():
    wanted = encoded(read_image(AVIF).pixels / 255)
    assert np.abs(read_image(said(1, 8)).pixels / 255 - wanted).max() < 0.6 / 255


@pytest.mark.parametrize("transfer", [16, 18])
def test_high_dynamic_range_is_said(transfer: int):
    read = read_image(said(9, transfer))
    assert np.array_equal(read.pixels, read_image(AVIF).pixels)
    assert read.origin.notes == (f"its colours (nclx 9-{transfer}) were read as sRGB",)


def test_a_profile_counts_more():
    with_profile = pillow(RGB, "AVIF", icc_profile=srgb_profile(), **LOSSLESS)
    if b"nclx" in with_profile:
        with_profile = said(12, 13, with_profile)
    assert not read_image(with_profile).origin.notes


def test_a_damaged_description_says_nothing():
    whole, at = said(12, 13), AVIF.index(b"mdat")
    generator = np.random.default_rng(0)
    for length in range(0, at, 3):
        heif_info(io.BytesIO(whole[:length]))
    for _ in range(500):
        damaged = bytearray(whole)
        for place in generator.integers(0, at, 3):
            damaged[place] = generator.integers(0, 256)
        heif_info(io.BytesIO(bytes(damaged)))
    assert heif_info(io.BytesIO(b"")) == FileInfo()
    assert heif_info(io.BytesIO(struct.pack(">I4sQ", 1, b"free", 2**64 - 1) + whole)) == FileInfo()
