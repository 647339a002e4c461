"""Photos of an album are drawn towards its colour, as far as that stays plausible."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowhue.inference.reference import FARTHEST, SHARE, AlbumColour, colour_of_album, drawn_to, photo_colour

units = st.floats(-60, 60, width=32)


def varied(a: float, b: float) -> np.ndarray:
    """A photo of that mean."""
    noise = np.random.default_rng(0).normal(0, 3, (8, 12, 2))
    return (noise - noise.mean((0, 1)) + (a, b)).astype(np.float32)


@given(units, units, units, units)
def test_a_mean_moves_towards_the_albums_and_never_far(a, b, album_a, album_b):
    chroma, album = varied(a, b), AlbumColour(album_a, album_b)
    moved = np.subtract(photo_colour(drawn_to(album, chroma)), (a, b))
    way = np.subtract(album, (a, b))
    assert np.hypot(*moved) <= min(SHARE * np.hypot(*way), FARTHEST) + 0.05
    assert moved @ way >= -0.05 * np.hypot(*way)


def test_an_even_photo_is_drawn_by_its_share():
    chroma = np.tile(np.array([10, 0], np.float32), (8, 8, 1))
    assert drawn_to(AlbumColour(15, 0), chroma) == pytest.approx(np.add(chroma, (SHARE * 5, 0)))
    assert drawn_to(AlbumColour(10, 90), chroma) == pytest.approx(np.add(chroma, (0, FARTHEST)))


def test_what_is_gray_stays_gray():
    chroma = np.zeros((4, 4, 2), np.float32)
    assert not drawn_to(AlbumColour(20, 20), chroma).any()
    chroma[2:] = 20
    drawn = drawn_to(AlbumColour(20, 20), chroma)
    assert not drawn[:2].any()
    assert (drawn[2:] > 20).all()


def test_an_odd_photo_does_not_move_the_album():
    usual = [AlbumColour(5, 6), AlbumColour(6, 7), AlbumColour(7, 8)]
    assert colour_of_album([*usual, AlbumColour(-90, 90)]) == pytest.approx((5.5, 7.5))
