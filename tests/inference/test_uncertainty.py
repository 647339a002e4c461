import numpy as np
import pytest

from knowhue.inference.uncertainty import spread_over_views


def look(scale: float) -> np.ndarray:
    return np.linspace(0, 100, round(24 * scale))[None].repeat(round(16 * scale), 0).astype(np.float32)


def test_a_network_that_answers_alike_from_everywhere_is_sure():
    def constant(lightness: np.ndarray) -> np.ndarray:
        return np.full((*lightness.shape, 2), 7.0, np.float32)

    assert np.abs(spread_over_views(constant, look)).max() < 1e-5


def test_what_moves_with_the_image_is_sure():
    def by_lightness(lightness: np.ndarray) -> np.ndarray:
        return np.stack([lightness, -lightness], -1)

    found = spread_over_views(by_lightness, look)
    assert found.shape == (16, 24)
    assert found[:, 4:-4].max() < 2.5  # a ramp of 100 units, resampled


def test_a_network_that_hangs_on_the_side_is_unsure_and_says_by_how_much():
    def by_side(lightness: np.ndarray) -> np.ndarray:
        chroma = np.zeros((*lightness.shape, 2), np.float32)
        chroma[..., : lightness.shape[2] // 2, 0] = 10
        return chroma

    found = spread_over_views(by_side, look)
    assert found[:, 2:10] == pytest.approx(5.0, abs=1e-3)  # half of the views say 10, half 0
