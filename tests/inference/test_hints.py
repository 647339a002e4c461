import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowhue.errors import ConfigError
from knowhue.inference.hints import DISC, LONGEST_REACH, REACH, Hint, parse_hint, spread

RED = Hint(0.25, 0.5, 60.0, 30.0)


def halves(height: int, width: int) -> np.ndarray:
    """Dark left, light right: an edge of 40 L*."""
    lightness = np.full((height, width), 30, np.float32)
    lightness[:, width // 2 :] = 70
    return lightness


def disc(size: int) -> np.ndarray:
    """A light disc of a third of the size's diameter at the centre of a dark ground."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    return np.where(x**2 + y**2 < 1 / 36, 80, 40).astype(np.float32)


def ramp(height: int, width: int) -> np.ndarray:
    return np.linspace(0, 100, width, dtype=np.float32)[None].repeat(height, 0)


def noise(height: int, width: int, scale: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(50 - scale, 50 + scale, (height, width)).astype(np.float32)


def predicted(lightness: np.ndarray, seed: int = 1) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.uniform(-20, 20, (*lightness.shape, 2)).astype(np.float32)


def gray(lightness: np.ndarray) -> np.ndarray:
    return np.zeros((*lightness.shape, 2), np.float32)


SCENES = {"halves": halves(48, 64), "disc": disc(48), "ramp": ramp(48, 64), "noise": noise(48, 64, 30)}


@pytest.mark.parametrize("lightness", SCENES.values(), ids=SCENES)
def test_without_hints_chroma_stays_bit_for_bit(lightness):
    chroma = predicted(lightness)
    before = chroma.copy()
    assert spread(lightness, chroma, []) is chroma
    assert np.array_equal(chroma, before)


@pytest.mark.parametrize("lightness", SCENES.values(), ids=SCENES)
@pytest.mark.parametrize("reach", [0.01, REACH, LONGEST_REACH])
def test_the_result_at_a_hint_is_the_hint(lightness, reach):
    height, width = lightness.shape
    hints = [RED, Hint(0.7, 0.2, -40, 10), Hint(0.0, 1.0, 0, 0), Hint(1.0, 0.999, 5, -70)]
    found = spread(lightness, predicted(lightness), hints, reach)
    assert found.dtype == np.float32
    for hint in hints:
        row, column = min(int(hint.y * height), height - 1), min(int(hint.x * width), width - 1)
        assert found[row, column] == pytest.approx([hint.a, hint.b], abs=0.01)


def test_two_hints_closer_than_their_discs_are_both_honoured():
    lightness = np.full((96, 96), 50, np.float32)
    found = spread(lightness, gray(lightness), [Hint(0.5, 0.5, 60, 0), Hint(0.515, 0.5, -60, 0)])
    assert found[48, 48:50, 0] == pytest.approx([60, -60], abs=0.01)


def test_contradictory_hints_at_one_pixel_are_averaged_whatever_their_order():
    lightness = noise(32, 32, 5)
    hints = [Hint(0.5, 0.5, 60, 0), Hint(0.5, 0.5, -20, 30), Hint(0.2, 0.2, 9, 9)]
    forth, back = (spread(lightness, gray(lightness), order) for order in (hints, hints[::-1]))
    assert forth[16, 16] == pytest.approx([20, 15], abs=0.01)
    assert np.abs(forth - back).max() < 1e-4


def test_the_pull_is_about_a_third_at_reach_and_a_tenth_at_twice_in_a_flat_picture():
    lightness = np.full((128, 192), 50, np.float32)
    diagonal = math.hypot(128, 192)
    for reach in (0.05, 0.1, REACH):
        along = spread(lightness, gray(lightness), [Hint(0.5, 0.5, 1, 0)], reach)[64, 96:, 0]
        once, twice = np.interp([(DISC + k * reach) * diagonal for k in (1, 2)], np.arange(96), along)
        assert 0.28 < once < 0.37
        assert 0.07 < twice < 0.13


def test_several_reaches_away_nothing_changes():
    lightness, chroma = np.full((96, 128), 50, np.float32), predicted(np.zeros((96, 128)))
    change = np.abs(spread(lightness, chroma, [Hint(0.1, 0.1, 80, -80)], reach=0.1) - chroma).max(-1)
    y, x = np.mgrid[:96, :128]
    far = np.hypot(x - 12.8, y - 9.6) > 4 * 0.1 * 160
    assert far.mean() > 0.3
    assert change[far].max() < 0.2
    assert change.max() > 60


def test_a_strong_edge_stops_the_pull_and_like_lightness_carries_it():
    lightness = halves(64, 96)
    change = spread(lightness, gray(lightness), [Hint(0.45, 0.5, 60, 0)])[..., 0]
    assert change[32, 47] > 45  # 4 pixels on, before the edge
    assert change[:, 48:].max() < 0.05


def test_a_hint_beside_an_edge_does_not_colour_the_other_side_outright():
    lightness = halves(128, 192)
    change = spread(lightness, gray(lightness), [Hint(95 / 192, 0.5, 60, 0)])[..., 0]
    assert change[64, 95] == pytest.approx(60, abs=0.01)
    assert change[:, 96:].max() < 0.05


def test_a_disc_keeps_its_colour_and_the_ground_its_own():
    lightness = disc(96)
    change = spread(lightness, gray(lightness), [Hint(0.5, 0.5, 60, 0)])[..., 0]
    inside = lightness > 60
    assert change[inside].min() > 50  # nowhere for the pull to go, so it fills the disc
    assert change[~inside].max() < 0.1


def test_a_diagonal_line_one_pixel_wide_holds():
    lightness = np.full((64, 64), 30, np.float32)
    lightness[np.arange(64), np.arange(64)] = 90
    change = spread(lightness, gray(lightness), [Hint(0.6, 0.4, 60, 0)])[..., 0]
    assert change[30, 34] > 30
    assert np.tril(change, -1).max() < 0.05


def test_a_slope_of_lightness_shortens_the_reach_along_it_only():
    lightness = ramp(96, 96) * 4 % 400  # 4 L* a pixel
    change = spread(lightness, gray(lightness), [Hint(0.5, 0.5, 60, 0)])[..., 0]
    assert change[48, 60] < change[60, 48] - 1


def test_the_variation_of_the_prediction_stays_under_a_hint():
    lightness = np.full((48, 48), 50, np.float32)
    chroma = predicted(lightness)
    change = spread(lightness, chroma, [RED]) - chroma
    rough = spread(
        lightness, gray(lightness), [RED._replace(a=60 - chroma[24, 12, 0], b=30 - chroma[24, 12, 1])]
    )
    assert np.abs(change - rough).max() < 1e-4


def test_a_gray_hint_takes_the_colour_away():
    lightness = halves(48, 64)
    chroma = np.full((48, 64, 2), 25, np.float32)
    found = spread(lightness, chroma, [parse_hint("25%,50%=gray", 640, 480)])
    assert np.abs(found[24, 16]).max() < 0.01
    assert np.linalg.norm(found[24, 20]) < 15
    assert np.abs(found[:, 32:] - 25).max() < 0.1


@pytest.mark.parametrize("lightness", SCENES.values(), ids=SCENES)
def test_a_mirrored_picture_gives_the_mirrored_result(lightness):
    chroma = predicted(lightness)
    hints = [Hint(0.26, 0.51, 50, -20), Hint(0.81, 0.13, -30, 5)]
    found = spread(lightness, chroma, hints)
    across = spread(lightness[:, ::-1], chroma[:, ::-1], [hint._replace(x=1 - hint.x) for hint in hints])
    turned = spread(
        lightness.T, chroma.transpose(1, 0, 2), [Hint(hint.y, hint.x, hint.a, hint.b) for hint in hints]
    )
    assert np.abs(found - across[:, ::-1]).max() < 1e-4
    assert np.abs(found - turned.transpose(1, 0, 2)).max() < 1e-4


def test_the_result_is_linear_in_the_colours():
    lightness = noise(40, 56, 10)
    places = [(0.3, 0.4), (0.7, 0.6), (0.5, 0.1)]
    one, two = np.random.default_rng(2).uniform(-50, 50, (2, 3, 2))

    def pulled(colours: np.ndarray) -> np.ndarray:
        hints = [Hint(x, y, a, b) for (x, y), (a, b) in zip(places, colours, strict=True)]
        return spread(lightness, gray(lightness), hints)

    assert np.abs(pulled(2 * one - 0.5 * two) - (2 * pulled(one) - 0.5 * pulled(two))).max() < 1e-3


@pytest.mark.parametrize(
    "scene", [lambda s: halves(s, s), disc, lambda s: ramp(s, s), lambda s: disc(s) * 0 + 50]
)
def test_the_same_scene_at_another_size_gives_a_like_result(scene):
    hints = [Hint(0.4, 0.52, 60, 0), Hint(0.8, 0.8, 0, -60)]
    small, large = (spread(scene(size), gray(scene(size)), hints) for size in (64, 128))
    again = large.reshape(64, 2, 64, 2, 2).mean((1, 3))
    assert np.abs(small - again).mean() < 1.0
    assert np.quantile(np.abs(small - again), 0.99) < 10  # of 60: discs and edges fall between pixels


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    contrast=st.sampled_from([0.0, 3.0, 20.0, 50.0]),
    reach=st.sampled_from([0.001, 0.05, REACH, LONGEST_REACH]),
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
def test_differences_never_leave_the_range_of_nothing_and_those_given(shape, contrast, reach, hints):
    lightness = noise(*shape, contrast)
    chroma = predicted(lightness)
    change = spread(lightness, chroma, hints, reach) - chroma
    points = [
        (min(int(hint.y * shape[0]), shape[0] - 1), min(int(hint.x * shape[1]), shape[1] - 1))
        for hint in hints
    ]
    given = np.array(
        [np.array([hint.a, hint.b]) - chroma[point] for hint, point in zip(hints, points, strict=True)]
    )
    assert np.isfinite(change).all()
    assert (change <= np.maximum(given.max(0), 0) + 1e-3).all()
    assert (change >= np.minimum(given.min(0), 0) - 1e-3).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 3)])
def test_pictures_one_pixel_wide_are_coloured_too(shape):
    lightness = np.full(shape, 50, np.float32)
    found = spread(lightness, gray(lightness), [Hint(0.5, 0.5, 60, 30)])
    assert found.shape == (*shape, 2)
    assert found[shape[0] // 2, shape[1] // 2] == pytest.approx([60, 30], abs=0.01)


def test_the_lightness_is_read_in_any_layout():
    lightness, chroma = noise(30, 40, 20), predicted(np.zeros((30, 40)))
    strided = np.asfortranarray(lightness), np.asfortranarray(chroma)
    assert np.array_equal(spread(lightness, chroma, [RED]), spread(*strided, [RED]))


@pytest.mark.parametrize(
    ("text", "x", "y"),
    [
        ("120,80=#c83232", 120.5 / 600, 80.5 / 400),
        ("30%,40%=#c83232", 0.3, 0.4),
        (" 0 , 100% = rgb(200, 50, 50) ", 0.5 / 600, 1.0),
        ("599,12.5%=#C83232", 599.5 / 600, 0.125),
    ],
)
def test_a_hint_is_read_in_pixels_or_percent(text, x, y):
    found = parse_hint(text, 600, 400)
    assert found[:2] == pytest.approx((x, y))
    assert found[2:] == pytest.approx((58.196, 36.489), abs=0.01)


def test_colours_agree_with_an_independent_library():
    skimage_color = pytest.importorskip("skimage.color")
    for name, rgb in {"orange": (255, 165, 0), "navy": (0, 0, 128), "#123": (17, 34, 51)}.items():
        expected = skimage_color.rgb2lab(np.array(rgb, float) / 255)[1:]
        assert parse_hint(f"1,1={name}", 9, 9)[2:] == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("name", ["gray", "#808080", "black", "white", "rgb(1, 1, 1)"])
def test_gray_means_exactly_no_colour(name):
    assert parse_hint(f"0,0={name}", 9, 9)[2:] == (0.0, 0.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "should be `120,80=#c83232`"),
        ("120,80", "Found `120,80`"),
        ("120=#c83232", "should be `120,80=#c83232`"),
        ("1,2,3=red", "should be"),
        ("a,2=red", "Found `a` in"),
        ("1.5,2=red", "Found `1.5` in"),
        ("nan%,2=red", "Found `nan%` in"),
        ("600,80=red", "0 to 599 pixels"),
        ("-1,80=red", "0 to 599 pixels"),
        ("5,400=red", "0 to 399 pixels"),
        ("101%,5=red", "Found `101%` in"),
        ("1,1=rouge", "Found `rouge` in"),
        ("1,1=#c8323280", "opaque"),
        ("1,1=rgb(300, 0, 0)", "opaque"),
        ("1,1= ", "should name an opaque colour"),
    ],
)
def test_nonsense_is_refused_in_words(text, said):
    with pytest.raises(ConfigError) as caught:
        parse_hint(text, 600, 400)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "hint", [Hint(1.2, 0, 0, 0), Hint(0, -0.1, 0, 0), Hint(math.nan, 0, 0, 0), Hint(0, 0, math.inf, 0)]
)
def test_hints_outside_the_picture_or_not_finite_are_refused(hint):
    with pytest.raises(ConfigError, match="`hints` should have x and y within 0 to 1"):
        spread(SCENES["disc"], gray(SCENES["disc"]), [hint])


@pytest.mark.parametrize("reach", [0.0, -1.0, 1.1, math.nan])
def test_reach_out_of_range_is_refused(reach):
    with pytest.raises(ConfigError, match="`reach` should be a fraction of the picture's diagonal"):
        spread(SCENES["disc"], gray(SCENES["disc"]), [RED], reach)


def test_shapes_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match=r"`lightness` and `chroma` should be of shapes \(h, w\)"):
        spread(np.zeros((4, 5), np.float32), np.zeros((5, 4, 2), np.float32), [])
