"""The colour of a hint spreads over areas of similar lightness."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowhue.inference.hint_spreading import GridPoints, spread
from knowhue.inference.hints import Hint

REGION = 0.15  # of the short side
RED = Hint(0.25, 0.5, 60.0, 30.0)


def halves(height: int, width: int) -> np.ndarray:
    """Dark left, light right: an edge of 40 L*."""
    lightness = np.full((height, width), 30, np.float32)
    lightness[:, width // 2 :] = 70
    return lightness


def disc(size: int) -> np.ndarray:
    """A light disc of a fifth of the size's diameter at the centre of a dark ground."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    return np.where(x**2 + y**2 < 0.01, 80, 40).astype(np.float32)


def ramp(height: int, width: int) -> np.ndarray:
    return np.linspace(0, 100, width, dtype=np.float32)[None].repeat(height, 0)


def flat(height: int, width: int) -> np.ndarray:
    return np.full((height, width), 50, np.float32)


def noise(height: int, width: int, scale: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(50 - scale, 50 + scale, (height, width)).astype(np.float32)


SCENES = {"halves": halves(96, 128), "disc": disc(96), "ramp": ramp(96, 128), "noise": noise(96, 128, 15)}


def pixel_of(hint: Hint, shape: tuple[int, ...]) -> tuple[int, int]:
    return min(int(hint.y * shape[0]), shape[0] - 1), min(int(hint.x * shape[1]), shape[1] - 1)


def pulled(lightness: np.ndarray, *hints: Hint) -> np.ndarray:
    """What spreads from points at the pixels' centres where nothing was predicted."""
    rows, columns = np.array([pixel_of(hint, lightness.shape) for hint in hints]).T
    points = GridPoints(rows, columns, lightness[rows, columns], np.array([hint[2:] for hint in hints]))
    return spread(lightness, (1 / min(lightness.shape),) * 2, points)


def from_points(shape: tuple[int, ...], *hints: Hint) -> np.ndarray:
    """Distance from the nearest point's pixel, in short sides."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    away = [np.hypot(y - row, x - column) for row, column in (pixel_of(hint, shape) for hint in hints)]
    return np.min(away, 0) / min(shape)


@pytest.mark.parametrize("lightness", SCENES.values(), ids=SCENES)
def test_the_result_at_a_hint_is_the_hint(lightness):
    hints = [RED, Hint(0.7, 0.2, -40, 10), Hint(0.0, 1.0, 0, 0), Hint(1.0, 0.999, 5, -70)]
    found = pulled(lightness, *hints)
    assert found.dtype == np.float32
    for hint in hints:
        assert found[pixel_of(hint, lightness.shape)] == pytest.approx(hint[2:], abs=0.01)


@pytest.mark.parametrize("lightness", SCENES.values(), ids=SCENES)
def test_out_of_reach_nothing_changes_at_all(lightness):
    hints = [RED, Hint(0.7, 0.2, -40, 10)]
    found = pulled(lightness, *hints)
    assert not found[from_points(lightness.shape, *hints) > REGION].any()


def test_in_a_flat_place_the_pull_is_flat_at_the_point_and_fades_without_a_rim():
    along = pulled(flat(192, 256), Hint(0.5, 0.5, 100, 0))[96, 128:, 0]
    reach = round(REGION * 192)
    assert (np.diff(along) <= 1e-4).all()
    assert along[reach // 4] > 75
    assert 35 < along[reach // 2] < 60
    assert along[reach - 2] < 2


@pytest.mark.parametrize("step", [10, 20, 50])
def test_an_edge_of_lightness_ends_the_region(step):
    lightness = flat(192, 192)
    lightness[:, 96:] += step
    change = pulled(lightness, Hint(0.47, 0.5, 60, 0))[..., 0]  # 6 pixels from the edge
    assert change[96, 95] > 40
    assert change[:, 96:].max() < 1


def test_an_enclosed_place_is_filled_and_its_surroundings_stay():
    lightness = disc(192)
    inside = lightness > 60
    change = pulled(lightness, Hint(0.5, 0.5, 60, 0))[..., 0]
    assert change[inside].min() > 40
    assert change[~inside].max() < 0.1
    around = pulled(lightness, Hint(0.5, 0.36, 60, 0))[..., 0]
    assert around[inside].max() < 1


def test_a_hint_beside_an_edge_does_not_colour_the_other_side():
    lightness = halves(192, 192)
    point = GridPoints(np.array([96]), np.array([95.4]), np.array([30]), np.array([[60, 0]]))
    found = spread(lightness, (1 / 192, 1 / 192), point)[..., 0]
    assert 0.6 * found[96, 95] + 0.4 * found[96, 96] == pytest.approx(60, abs=0.01)
    assert found[:, 90:96].max(0).min() > 50
    found[96, 96] = 0  # that the point's colour is interpolated from
    assert found[:, 96:].max() < 0.05


def test_a_diagonal_line_one_pixel_wide_holds():
    lightness = np.full((96, 96), 30, np.float32)
    lightness[np.arange(96), np.arange(96)] = 90
    change = pulled(lightness, Hint(0.55, 0.45, 60, 0))[..., 0]
    assert change[46, 49] > 30
    assert np.tril(change, -1).max() < 0.05


def test_a_slope_of_lightness_shortens_the_reach_along_it_only():
    lightness = ramp(96, 96) * 3 % 300  # 3 L* a pixel
    change = pulled(lightness, Hint(0.5, 0.5, 60, 0))[..., 0]
    assert change[48, 54] < change[54, 48] - 1


@pytest.mark.parametrize("apart", [1, 1.5, 2, 3, 8])
def test_two_near_points_each_meet_their_colour(apart):
    wanted, columns = np.array([[60, 0], [-60, 20]]), np.array([50.2, 50.2 + apart])
    points = GridPoints(np.full(2, 40.3), columns, np.full(2, 50), wanted)
    found = spread(flat(96, 128), (1 / 96, 1 / 96), points)
    for column, expected in zip(columns, wanted, strict=True):
        left = int(column)
        rows = 0.7 * found[40] + 0.3 * found[41]
        share = column - left
        assert rows[left] * (1 - share) + rows[left + 1] * share == pytest.approx(expected, abs=0.1)


def test_contradictory_hints_at_one_pixel_are_averaged_whatever_their_order():
    lightness = noise(96, 96, 5)
    hints = [Hint(0.5, 0.5, 60, 0), Hint(0.5, 0.5, -20, 30), Hint(0.2, 0.2, 9, 9)]
    forth, back = (pulled(lightness, *order) for order in (hints, hints[::-1]))
    assert forth[48, 48] == pytest.approx([20, 15], abs=0.01)
    assert np.abs(forth - back).max() < 1e-4


@pytest.mark.parametrize("lightness", SCENES.values(), ids=SCENES)
def test_a_mirrored_image_gives_the_mirrored_result(lightness):
    hints = [Hint(0.26, 0.51, 50, -20), Hint(0.81, 0.13, -30, 5)]
    found = pulled(lightness, *hints)
    across = pulled(lightness[:, ::-1], *(hint._replace(x=1 - hint.x) for hint in hints))
    turned = pulled(lightness.T, *(Hint(hint.y, hint.x, hint.a, hint.b) for hint in hints))
    assert np.abs(found - across[:, ::-1]).max() < 1e-4
    assert np.abs(found - turned.transpose(1, 0, 2)).max() < 1e-4


def test_the_result_is_linear_in_the_colours():
    lightness = noise(80, 112, 5)
    places = [(0.3, 0.4), (0.4, 0.45), (0.5, 0.1)]
    one, two = np.random.default_rng(2).uniform(-50, 50, (2, 3, 2))

    def found(colours: np.ndarray) -> np.ndarray:
        return pulled(lightness, *(Hint(x, y, a, b) for (x, y), (a, b) in zip(places, colours, strict=True)))

    assert np.abs(found(2 * one - 0.5 * two) - (2 * found(one) - 0.5 * found(two))).max() < 1e-3


@pytest.mark.parametrize("scene", [lambda s: halves(s, s), disc, lambda s: flat(s, s)])
def test_the_same_scene_at_another_size_gives_a_like_result(scene):
    hints = [Hint(0.45, 0.52, 60, 0), Hint(0.8, 0.8, 0, -60)]
    small, large = (pulled(scene(size), *hints) for size in (96, 192))
    again = large.reshape(96, 2, 96, 2, 2).mean((1, 3))
    assert np.abs(small - again).mean() < 0.5
    assert np.quantile(np.abs(small - again), 0.99) < 10  # of 60: discs and edges fall between pixels


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    contrast=st.sampled_from([0.0, 3.0, 20.0, 50.0]),
    hints=st.lists(
        st.builds(
            Hint,
            st.floats(0, 1),
            st.floats(0, 1),
            st.floats(-110, 110, width=32),
            st.floats(-110, 110, width=32),
        ),
        min_size=1,
        max_size=6,
    ),
)
def test_differences_never_leave_the_range_of_nothing_and_those_given(shape, contrast, hints):
    change = pulled(noise(*shape, contrast), *hints)
    given = np.array([hint[2:] for hint in hints])
    assert np.isfinite(change).all()
    assert (change <= np.maximum(given.max(0), 0) + 1e-3).all()
    assert (change >= np.minimum(given.min(0), 0) - 1e-3).all()


def test_a_stroke_beside_an_edge_does_not_colour_the_other_side():
    lightness = halves(96, 128)
    painted = GridPoints(
        np.arange(20.0, 70), np.full(50, 63.0), np.full(50, 30.0), np.tile((40.0, 0.0), (50, 1))
    )
    found = spread(lightness, (1 / 96, 1 / 96), strokes=painted)[..., 0]
    assert found[45, 55] > 5
    assert found[45, 70] < 0.5
