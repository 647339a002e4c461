import numpy as np
import pytest

from knowhue.inference.upsampling import UPSAMPLINGS, chroma_at, chroma_lines, enlarge, guided


@pytest.mark.parametrize("name", UPSAMPLINGS)
def test_constant_chroma_stays_whatever_the_guide(name):
    guide = np.random.default_rng(0).uniform(0, 100, (9, 11)).astype(np.float32)
    chroma = np.full((9, 11, 2), (20, -5), np.float32)
    slope, offset = UPSAMPLINGS[name](chroma, guide)
    assert np.allclose(slope * guide[..., None] + offset, chroma, atol=1e-3)


def test_chroma_that_follows_lightness_is_found_as_its_line():
    guide = np.random.default_rng(0).uniform(0, 100, (20, 20)).astype(np.float32)
    chroma = np.stack([0.3 * guide - 10, -0.1 * guide + 5], -1)
    slope, _ = guided(chroma, guide, epsilon=1e-3)
    assert np.allclose(slope, (0.3, -0.1), atol=1e-3)


def test_what_is_flat_has_no_slope():
    guide = np.full((8, 8), 50, np.float32) + np.random.default_rng(0).normal(0, 0.1, (8, 8)).astype(
        np.float32
    )
    chroma = np.random.default_rng(1).normal(0, 20, (8, 8, 2)).astype(np.float32)
    assert np.abs(guided(chroma, guide)[0]).max() < 0.5


def test_chroma_at_a_point_is_that_of_the_image():
    generator = np.random.default_rng(2)
    lines = generator.normal(0, 1, (5, 7, 4)).astype(np.float32)
    slope_a, slope_b, offset_a, offset_b = (enlarge(lines[..., k], 40, 30) for k in range(4))
    for row, column in ((0, 0), (39, 29), (17, 3)):
        found = chroma_at(lines, 60.0, (row + 0.5) / 40, (column + 0.5) / 30)
        expected = np.stack([60 * slope_a + offset_a, 60 * slope_b + offset_b], -1)[row, column]
        assert found == pytest.approx(expected, abs=1e-4)


CHROMA, GUIDE = np.zeros((3, 4, 2), np.float32), np.zeros((3, 4), np.float32)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"chroma": CHROMA[..., 0]}, r"`chroma` should be \(h, w, 2\).*Found `chroma.shape = \(3, 4\)`"),
        ({"chroma": CHROMA[:0], "guide": GUIDE[:0]}, r"`chroma` should be \(h, w, 2\)"),
        (
            {"guide": GUIDE[:2]},
            r"`guide` should be \(h, w\) as chroma is, \(3, 4\). Found `guide.shape = \(2, 4\)`",
        ),
        ({"chroma": CHROMA * np.nan}, "`chroma` and `guide` should be finite. Found NaN or infinity."),
        (
            {"upsampling": "nearest"},
            "`upsampling` should be one of guided, bilinear. Found `upsampling = 'nearest'`",
        ),
        ({"saturation": -1.0}, "`saturation` should be 0 or more, finite. Found `saturation = -1.0`"),
        ({"saturation": float("nan")}, "`saturation` should be 0 or more, finite. Found `saturation = nan`"),
    ],
)
def test_what_does_not_fit_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        chroma_lines(**({"chroma": CHROMA, "guide": GUIDE, "upsampling": "guided"} | changed))
