"""The network's input, and painting that preserves lightness, hue and everything except chroma."""

from threading import Event
from threading import enumerate as enumerate_threads

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from scipy.ndimage import uniform_filter
from skimage.color import lab2rgb, rgb2lab

from knowhue.color import colourfulness, rgb_to_lab
from knowhue.inference import pixels as module
from knowhue.inference.pixels import (
    LONGEST,
    chroma_lines,
    enlarge,
    lightness,
    network_input,
    paint,
    taps,
    working_size,
)

LARGEST = {np.uint8: 0.5, np.uint16: 0.01}
DEPTHS = list(LARGEST)
GUIDE = np.full((1, 1), 50, np.float32)
COMPILED = module.kernels.build_kernels()


def scene(seed: int, shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
    """Noise with black, white and dark parts."""
    top = np.iinfo(dtype).max
    found = np.random.default_rng(seed).integers(0, top, shape, dtype, endpoint=True)
    found[: shape[0] // 4] = 0
    found[shape[0] // 4 : shape[0] // 2] //= 40
    found[shape[0] - shape[0] // 4 :] = top
    return found


def small(seed: int, height: int = 5, width: int = 7, largest: float = 150) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    chroma = generator.uniform(-largest, largest, (height, width, 2)).astype(np.float32)
    return chroma, generator.uniform(0, 100, (height, width)).astype(np.float32)


def flat(a: float, b: float) -> np.ndarray:
    return np.full((1, 1, 2), (a, b), np.float32)


def codes(dtype: type) -> np.ndarray:
    """Every gray of a depth, or many of them."""
    return np.linspace(0, np.iinfo(dtype).max, 4096).round().astype(dtype).reshape(64, 64, 1)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([1, 3]),
    st.sampled_from(DEPTHS),
    st.sampled_from([0, 0.01, 3, 30, 150]),
)
def test_lightness_is_kept_whatever_the_chroma(seed, height, width, rows, columns, channels, dtype, largest):
    image = scene(seed, (height, width, channels), dtype)
    painted, reach = paint(image, *small(seed, rows, columns, largest))
    assert painted.shape == (height, width, 3)
    assert painted.dtype == dtype
    assert np.abs(lightness(painted) - lightness(image)).max() <= LARGEST[dtype]
    assert (painted[(image == 0).all(-1)] == 0).all()
    assert (painted[(image == np.iinfo(dtype).max).all(-1)] == np.iinfo(dtype).max).all()
    assert np.isfinite(reach).all()


@pytest.mark.parametrize("dtype", DEPTHS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("largest", 10.0 ** np.arange(-6, 3))
def test_black_and_white_stay_exactly(dtype, channels, largest):
    ends = np.zeros((2, 512, channels), dtype)
    ends[1] = np.iinfo(dtype).max
    chroma = np.random.default_rng(0).uniform(-largest, largest, (2, 512, 2)).astype(np.float32)
    painted, _ = paint(ends, chroma, np.full((2, 512), 50, np.float32))
    assert (painted == ends).all()


@given(arrays.arrays(np.uint8, (4, 6, 3)))
@settings(max_examples=30, deadline=None)
def test_lightness_agrees_with_scikit_image_and_with_the_network_s(image):
    assert np.allclose(lightness(image), rgb2lab(image)[..., 0], atol=1e-3)
    ours = rgb_to_lab(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)[0]
    assert np.allclose(lightness(image), ours[0, 0], atol=1e-3)


@pytest.mark.parametrize("dtype", DEPTHS)
def test_all_grays_have_the_lightness_of_scikit_image(dtype):
    gray = codes(dtype)
    true = rgb2lab(np.repeat(gray, 3, -1) / np.iinfo(dtype).max)[..., 0]
    assert np.allclose(lightness(gray), true, atol=2e-4)
    assert np.allclose(lightness(np.repeat(gray, 3, -1)), true, atol=2e-4)


@pytest.mark.parametrize("dtype", DEPTHS)
def test_no_chroma_gives_the_same_grays(dtype):
    painted, reach = paint(codes(dtype), np.zeros((3, 3, 2), np.float32), np.ones((3, 3), np.float32))
    assert (painted == codes(dtype)).all()
    assert reach == (0, 0, 0)


@pytest.mark.parametrize("dtype", DEPTHS)
def test_colours_in_gamut_agree_with_scikit_image(dtype):
    top = np.iinfo(dtype).max
    gray = (np.linspace(0.25, 0.75, 40 * 40).reshape(40, 40, 1) * top).astype(dtype)
    painted, reach = paint(gray, flat(12, -18), GUIDE)
    lab = np.concatenate([lightness(gray)[..., None], np.broadcast_to(flat(12, -18), (40, 40, 2))], -1)
    assert np.abs(painted - lab2rgb(lab.astype(np.float64)) * top).max() < (0.6 if top == 255 else 4)
    assert reach.reduced == 0
    assert reach.chroma == pytest.approx(np.hypot(12, 18), rel=1e-4)


def test_an_image_s_own_colours_are_given_back():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    image[0, :3] = 255 * np.eye(3)
    lab = rgb2lab(image).astype(np.float32)
    painted, reach = paint(image, lab[..., 1:], lab[..., 0])
    assert np.abs(painted.astype(int) - image).max() <= 1
    assert reach.reduced < 0.02


@pytest.mark.parametrize("degrees", range(0, 360, 15))
def test_a_colour_that_srgb_lacks_keeps_its_hue_and_what_fits_of_its_chroma(degrees):
    direction = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    painted, reach = paint(np.full((8, 8, 1), 30000, np.uint16), flat(*(150 * np.array(direction))), GUIDE)
    found = rgb2lab(painted / 65535)[0, 0]
    assert reach.reduced == 1
    assert np.degrees(np.arctan2(found[2], found[1])) % 360 == pytest.approx(degrees, abs=0.02 * 360 / 150)
    assert reach.chroma == pytest.approx(np.hypot(*found[1:]), abs=0.05)
    assert min(painted[0, 0].min(), 65535 - painted[0, 0].max()) < 60  # of the gamut's surface


def test_much_saturation_turns_no_hue_over():
    down, across = np.mgrid[0:1:12j, 0 : 2 * np.pi : 18j]
    chroma = (25 * (0.3 + 0.7 * down)[..., None] * np.stack([np.cos(across), np.sin(across)], -1)).astype(
        np.float32
    )
    rows = np.linspace(25, 230, 96)[:, None] + 12 * np.sin(np.arange(144) / 3)
    image = rows.round().astype(np.uint8)[..., None]
    lab = [rgb2lab(paint(image, chroma, lightness(image)[::8, ::8], saturation=much)[0]) for much in (1, 4)]
    assert np.abs(lab[1][..., 0] - lab[0][..., 0]).max() < 0.6
    hues = [np.arctan2(each[..., 2], each[..., 1]) for each in lab]
    coloured = np.hypot(lab[0][..., 1], lab[0][..., 2]) > 8
    turned = np.abs((hues[1] - hues[0] + np.pi) % (2 * np.pi) - np.pi)[coloured]
    assert coloured.mean() > 0.5
    assert np.degrees(np.quantile(turned, 0.99)) < 6
    assert np.degrees(turned.max()) < 20


def test_saturation_is_a_factor():
    image = np.full((10, 10, 1), 128, np.uint8)
    assert paint(image, flat(10, 10), GUIDE, saturation=0)[1].chroma == 0
    assert paint(image, flat(10, 10), GUIDE, saturation=2)[1].chroma == pytest.approx(800**0.5, rel=1e-3)


def test_constant_chroma_stays_constant():
    guide = np.random.default_rng(0).uniform(0, 100, (6, 8)).astype(np.float32)
    gray = np.full((50, 70, 1), 140, np.uint16) * 257
    painted, _ = paint(gray, np.full((6, 8, 2), (15, -20), np.float32), guide)
    assert np.ptp(painted.astype(int), (0, 1)).max() <= 2


@pytest.mark.parametrize("axis", [0, 1])
def test_a_mirrored_image_is_painted_mirrored(axis):
    image = scene(2, (33, 47, 3))
    chroma, guide = small(2, largest=40)
    straight, _ = paint(image, chroma, guide)
    mirrored = (np.ascontiguousarray(np.flip(each, axis)) for each in (image, chroma, guide))
    turned, _ = paint(*mirrored)
    assert np.abs(np.flip(turned, axis).astype(int) - straight).max() <= 1


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("length", [80, 4096])
def test_a_step_of_chroma_lands_where_it_is(axis, length):
    chroma = np.zeros((1, 8, 2), np.float32)
    chroma[:, 4:, 0] = 40
    image = np.full((4, length, 1), 128, np.uint8)
    guide = np.full((1, 8), 50, np.float32)
    if axis == 0:
        chroma, image, guide = (np.ascontiguousarray(each.swapaxes(0, 1)) for each in (chroma, image, guide))
    redness = rgb2lab(paint(image, chroma, guide)[0])[..., 1].mean(1 - axis)
    share = (
        np.arange(length) + 0.5
    ) * 8 / length - 3.5  # 0 at the middle of one small pixel, 1 at the next one's
    assert np.allclose(redness, 40 * share.clip(0, 1), atol=1)


def test_wide_images_are_painted_as_their_parts_are():
    image = scene(5, (3, 5000, 3))
    painted, _ = paint(image, flat(20, -30), GUIDE)
    alone, _ = paint(image[:, 4000:].copy(), flat(20, -30), GUIDE)
    assert (painted[:, 4000:] == alone).all()


@pytest.mark.parametrize("dtype", DEPTHS)
def test_threads_do_not_change_the_numbers(monkeypatch, dtype):
    image = scene(3, (64, 50, 3), dtype)
    whole = paint(image, *small(3))
    monkeypatch.setattr(module, "BAND_PIXELS", 500)
    monkeypatch.setattr(module, "THREADS", 1)
    one, seen = paint(image, *small(3)), lightness(image)
    monkeypatch.setattr(module, "THREADS", 2)
    two = paint(image, *small(3))
    assert (one[0] == two[0]).all()
    assert one[1] == two[1]
    assert (lightness(image) == seen).all()
    assert (one[0] == whole[0]).all()
    assert one[1] == pytest.approx(whole[1])


def test_input_may_be_read_only():
    image, (chroma, guide), (added, _) = scene(6, (9, 9, 3)), small(6), small(7, 4, 4)
    for each in (image, chroma, guide, added):
        each.flags.writeable = False
    paint(image, chroma, guide, saturation=2, added=added)


@pytest.mark.parametrize("size", [(1, 1), (4, 11), (30, 3000)])
def test_what_is_added_lies_on_the_chroma_at_any_size_and_saturation(size):
    image = np.full((30, 3000, 1), 32896, np.uint16)  # wider than what is worked on at a time
    added = small(1, *size, largest=15)[0]
    painted, _ = paint(image, flat(6, -8), GUIDE, saturation=0.5, added=added)
    expected = np.stack([3 + enlarge(added[..., 0], 30, 3000), enlarge(added[..., 1], 30, 3000) - 4], -1)
    assert rgb2lab(painted / 65535)[..., 1:] == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    ("added", "message"),
    [
        (np.zeros((3, 3), np.float32), r"`added` should be .* Found `added.shape = \(3, 3\)`"),
        (np.zeros((3, 0, 2), np.float32), r"Found `added.shape = \(3, 0, 2\)`"),
        (np.full((1, 1, 2), np.nan, np.float32), "NaN or infinity"),
    ],
)
def test_what_cannot_be_added_is_refused(added, message):
    with pytest.raises(ValueError, match=message):
        paint(np.zeros((3, 3, 3), np.uint8), flat(0, 0), GUIDE, added=added)


@pytest.mark.parametrize("dtype", DEPTHS)
def test_colourfulness_is_the_evaluation_s(dtype):
    painted, reach = paint(scene(4, (30, 30, 1), dtype), *small(4, largest=60))
    rgb = torch.from_numpy(255.0 * painted / np.iinfo(dtype).max).permute(2, 0, 1)[None]
    assert reach.colourfulness == pytest.approx(colourfulness(rgb).item(), rel=1e-4)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((3, 3), np.uint8), r"`pixels` should be \(H, W, 1 or 3\)"),
        (np.zeros((3, 3, 2), np.uint8), r"`pixels` should be \(H, W, 1 or 3\)"),
        (np.zeros((0, 3, 3), np.uint8), r"Found `pixels.shape = \(0, 3, 3\)`"),
        (np.zeros((3, 3, 3)), "`pixels` should be uint8 or uint16. Found `pixels.dtype = float64`"),
        (np.zeros((3, 3, 3), ">u2"), "`pixels` should be uint8 or uint16. Found `pixels.dtype = >u2`"),
        (np.zeros((3, 6, 3), np.uint8)[:, ::2], "`pixels` should be C-contiguous.*numpy.ascontiguousarray"),
    ],
)
def test_other_pixels_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        lightness(image)
    with pytest.raises(ValueError, match=message):
        paint(image, flat(0, 0), GUIDE)


def test_enlarging_keeps_flat_maps_and_ends():
    assert (enlarge(np.full((2, 3), 4, np.float32), 20, 31) == 4).all()
    ramp = enlarge(np.array([[0, 1]], np.float32), 1, 100)
    assert ramp[0, 0] == 0
    assert ramp[0, -1] == 1
    assert (np.diff(ramp) >= 0).all()


def test_constant_chroma_stays_whatever_the_guide():
    guide = np.random.default_rng(0).uniform(0, 100, (9, 11)).astype(np.float32)
    chroma = np.full((9, 11, 2), (20, -5), np.float32)
    slope, offset = np.split(chroma_lines(chroma, guide), 2, -1)
    assert np.allclose(slope * guide[..., None] + offset, chroma, atol=1e-3)


def test_chroma_that_follows_lightness_is_found_as_its_line():
    guide = np.random.default_rng(0).uniform(0, 100, (20, 20)).astype(np.float32)
    chroma = np.stack([0.3 * guide - 10, -0.1 * guide + 5], -1)
    slope = chroma_lines(chroma, guide, epsilon=1e-3)[..., :2]
    assert np.allclose(slope, (0.3, -0.1), atol=1e-3)


def test_what_is_flat_has_no_slope():
    guide = np.full((8, 8), 50, np.float32) + np.random.default_rng(0).normal(0, 0.1, (8, 8)).astype(
        np.float32
    )
    chroma = np.random.default_rng(1).normal(0, 20, (8, 8, 2)).astype(np.float32)
    assert np.abs(chroma_lines(chroma, guide)[..., :2]).max() < 0.5


CHROMA, SMALL_GUIDE = np.zeros((3, 4, 2), np.float32), np.zeros((3, 4), np.float32)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"chroma": CHROMA[..., 0]}, r"`chroma` should be \(h, w, 2\).*Found `chroma.shape = \(3, 4\)`"),
        ({"chroma": CHROMA[:0], "guide": SMALL_GUIDE[:0]}, r"`chroma` should be \(h, w, 2\)"),
        (
            {"guide": SMALL_GUIDE[:2]},
            r"`guide` should be \(h, w\) as chroma is, \(3, 4\), and finite. Found `guide.shape = \(2, 4\)`",
        ),
        ({"chroma": CHROMA * np.nan}, "`chroma` should be .*, and finite. Found .* with NaN or infinity."),
        ({"guide": SMALL_GUIDE + np.inf}, r"`guide` should be .* Found .*\(3, 4\)` with NaN or infinity"),
        ({"saturation": -1.0}, "`saturation` should be 0 or more, finite. Found `saturation = -1.0`"),
        ({"saturation": float("nan")}, "`saturation` should be 0 or more, finite. Found `saturation = nan`"),
    ],
)
def test_what_does_not_fit_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        chroma_lines(**({"chroma": CHROMA, "guide": SMALL_GUIDE} | changed))


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 30),
    st.sampled_from([1, 9, 3000]),
    st.sampled_from([1, 3]),
    st.sampled_from(DEPTHS),
    st.sampled_from([0, 3, 60]),
    st.booleans(),
)
def test_arrays_and_compiled_code_paint_the_same(seed, height, width, channels, dtype, largest, is_added):
    image = scene(seed, (height, width, channels), dtype)
    added = small(seed + 1, 3, 8, 20)[0] if is_added else None
    painted = []
    for compiled_from in (2**62, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module.kernels, "COMPILED_FROM", compiled_from)
            patch.setattr(module, "_lazy_kernels", module.kernels.LazyKernels())
            patch.setattr(module.kernels, "build_kernels", lambda: COMPILED)
            painted.append(paint(image, *small(seed, largest=largest), added=added))
    (by_arrays, one), (by_code, other) = painted
    assert (by_arrays == by_code).all()
    assert one == pytest.approx(other, rel=1e-12)


@pytest.mark.parametrize("radius", [1, 2, 3])
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (24, 32)])
def test_lines_are_those_of_the_guided_filter_over_windows_that_continue_the_edges(size, radius):
    chroma, guide = small(0, *size)
    guide[: len(guide) // 2] = 50  # flat, where the variance is none but for rounding
    light = guide.astype(np.float64)

    def mean(values):
        return uniform_filter(values, 2 * radius + 1, mode="nearest")

    for channel in range(2):
        colour = (chroma[..., channel] * np.float32(1.3)).astype(np.float64)
        covariance = mean(light * colour) - mean(light) * mean(colour)
        slope = mean(covariance / (mean(light**2) - mean(light) ** 2 + module.GUIDE_EPSILON))
        found = chroma_lines(chroma, guide, 1.3, radius)[..., channel::2]
        assert np.allclose(found, np.stack([slope, colour - slope * light], -1), atol=1e-6)


def test_compiled_code_takes_over_once_it_pays(monkeypatch):
    monkeypatch.setattr(module.kernels, "build_kernels", lambda: "compiled")
    work, byte = module.kernels.LazyKernels(), np.dtype(np.uint8)
    assert work.compiled(module.kernels.COMPILED_FROM, byte) is None
    work.add(1)
    assert work.compiled(module.kernels.COMPILED_FROM - 1, byte) is None
    assert work.compiled(module.kernels.COMPILED_FROM, byte) == "compiled"
    assert work.compiled(1, byte) == "compiled"  # it is there now


def test_who_does_not_wait_for_compiled_code_gets_it_once_its_depth_is_ready(monkeypatch):
    begun, may_go_on = [], {np.dtype(dtype): Event() for dtype in DEPTHS}

    def paint_first(pixels, *_):
        begun.append(pixels.dtype)
        may_go_on[pixels.dtype].wait(30)

    made = module.kernels.CompiledKernels(paint_first, lambda *_: None)
    monkeypatch.setattr(module.kernels, "build_kernels", lambda: made)
    work, much = module.kernels.LazyKernels(), module.kernels.COMPILED_FROM + 1
    work.waits = False
    threads = {}
    for dtype in may_go_on:
        others = set(enumerate_threads())
        assert work.compiled(much, dtype) is None
        assert work.compiled(much, dtype) is None  # which begins no other
        (threads[dtype],) = set(enumerate_threads()) - others
    for dtype in reversed(may_go_on):
        may_go_on[dtype].set()
        threads[dtype].join()
        assert [work.compiled(1, each) is made for each in may_go_on] == [
            not threads[each].is_alive() for each in may_go_on
        ]
    assert len(begun) == 2  # each once
    work.waits = True
    assert work.compiled(1, np.dtype(np.uint8)) is made


def test_a_compiler_that_fails_meanwhile_is_told_once_and_painted_without(monkeypatch, caplog):
    def fail():
        raise OSError("no space left")

    monkeypatch.setattr(module.kernels, "build_kernels", fail)
    work, byte = module.kernels.LazyKernels(), np.dtype(np.uint8)
    work.waits = False
    others = set(enumerate_threads())
    for _ in range(2):
        assert work.compiled(module.kernels.COMPILED_FROM + 1, byte) is None
        for thread in set(enumerate_threads()) - others:
            thread.join()
    assert [record.getMessage() for record in caplog.records] == [
        "not compiled, so that painting stays ten times as slow: no space left"
    ]


@pytest.mark.parametrize("dtype", DEPTHS)
def test_what_is_compiled_meanwhile_is_all_that_images_of_a_depth_need(monkeypatch, dtype):
    made = module.kernels.build_kernels()
    module.kernels._call_once(made, np.dtype(dtype))
    known = [len(function.signatures) for function in made]
    monkeypatch.setattr(module.kernels, "COMPILED_FROM", 0)
    monkeypatch.setattr(module.kernels, "build_kernels", lambda: made)
    monkeypatch.setattr(module, "_lazy_kernels", module.kernels.LazyKernels())
    for channels in (1, 3):
        image = scene(0, (600, 900, channels), dtype)
        for added in (None, small(1)[0]):
            paint(image, *small(0), added=added)
        for size_px in (32, 700):  # of means of blocks, and of the codes themselves
            network_input(image, size_px)
    assert [len(function.signatures) for function in made] == known


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 40), st.integers(1, 40))
def test_enlarging_keeps_constants_and_never_leaves_the_range(rows, columns, height, width):
    values = np.random.default_rng(rows * 10 + columns).normal(0, 1, (rows, columns)).astype(np.float32)
    found = enlarge(values, height, width)
    assert found.shape == (height, width)
    assert values.min() - 1e-6 <= found.min() <= found.max() <= values.max() + 1e-6
    assert (enlarge(np.full((rows, columns), 4, np.float32), height, width) == 4).all()


ONE_CODE = 0.004  # L* between neighbours of 16 bits, at the steepest


def seen_by(way: str, pixels: np.ndarray, size_px: int, oversampling: int = 6) -> np.ndarray:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.kernels, "COMPILED_FROM", {"arrays": 2**62, "compiled code": 0}[way])
        patch.setattr(module, "_lazy_kernels", module.kernels.LazyKernels())
        patch.setattr(module.kernels, "build_kernels", lambda: COMPILED)
        return network_input(pixels, size_px, oversampling)


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.integers(32, 256))
def test_the_short_side_is_the_networks_and_the_long_one_bounded(height: int, width: int, size_px: int):
    found = working_size(height, width, size_px)
    assert min(found) == size_px
    assert max(found) <= LONGEST * size_px


@given(st.integers(50, 5000), st.integers(50, 5000))
def test_the_aspect_stays_within_a_pixel(height: int, width: int):
    found = working_size(height, width, 96)
    if max(found) < LONGEST * 96:
        assert found[1] / found[0] == pytest.approx(width / height, rel=1 / 96)


def test_sees_lightness_in_l_units():
    image = np.zeros((40, 60, 1), np.uint8)
    image[:, 30:] = 255
    seen = network_input(image, 32)
    assert seen.shape == (32, 48)
    assert seen.dtype == np.float32
    assert seen[:, :16].max() < 2
    assert seen[:, -16:].min() > 98


def test_gray_and_equal_rgb_look_alike():
    gray = np.random.default_rng(0).integers(0, 256, (50, 70, 1), np.uint8)
    assert np.allclose(network_input(gray, 32), network_input(np.repeat(gray, 3, 2), 32), atol=0.05)


def test_sixteen_bits_look_as_eight():
    gray = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    assert np.allclose(network_input(gray, 32), network_input(gray.astype(np.uint16) * 257, 32), atol=0.6)


def test_less_oversampling_sees_nearly_the_same_in_the_same_place():
    y, x = np.mgrid[:900, :1203]
    scene = (127 + 60 * np.sin(x / 40) + 60 * np.cos(y / 50))[..., None].round().astype(np.uint8)
    exact, quick = network_input(scene, 96), network_input(scene, 96, oversampling=1)
    assert quick.shape == exact.shape
    assert np.abs(quick - exact).max() < 2
    assert np.abs((quick - exact).mean()) < 0.05


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 700),
    st.integers(1, 700),
    st.sampled_from([1, 3]),
    st.sampled_from([np.uint8, np.uint16]),
)
def test_arrays_and_compiled_code_see_the_same(seed, height, width, channels, dtype):
    """Whole blocks are averaged before, from 384 pixels a side on."""
    generator, top = np.random.default_rng(seed), np.iinfo(dtype).max
    pixels = generator.integers(0, top, (height, width, channels), dtype, endpoint=True)
    by_arrays, by_code = seen_by("arrays", pixels, 32), seen_by("compiled code", pixels, 32)
    assert by_code.dtype == by_arrays.dtype
    assert np.abs(by_code - by_arrays).max() < ONE_CODE
    assert np.mean(np.abs(by_code - by_arrays) > 1e-4) < 0.02


@pytest.mark.parametrize("way", ["arrays", "compiled code"])
def test_sums_of_codes_do_not_overflow(way):
    assert seen_by(way, np.full((9_000_000, 1, 1), 65535, np.uint16), 32, oversampling=1).min() == 100


@pytest.mark.parametrize("dtype", DEPTHS)
@pytest.mark.parametrize("channels", [1, 3])
def test_bands_do_not_change_the_network_s_input(monkeypatch, dtype, channels):
    image = scene(2, (417, 398, channels), dtype)
    alone = seen_by("compiled code", image, 32)
    monkeypatch.setattr(module, "BAND_PIXELS", 500)
    monkeypatch.setattr(module, "THREADS", 3)
    assert (seen_by("compiled code", image, 32) == alone).all()


@pytest.mark.parametrize("way", ["arrays", "compiled code"])
def test_one_colour_stays_one(way):
    seen = seen_by(way, np.full((1000, 301, 3), 119, np.uint8), 32)
    assert np.ptp(seen) < 1e-4
    assert seen.mean() == pytest.approx(50.03, abs=0.01)


@pytest.mark.parametrize(("old", "new"), [(240, 96), (241, 96), (96, 96), (7, 96), (5000, 32), (1, 1)])
def test_values_are_weighted_as_pillow_does(old, new):
    row = np.random.default_rng(0).uniform(0, 255, old).astype(np.float32)
    places, weights = taps(old, old, new)
    expected = Image.fromarray(row[None]).resize((new, 1), Image.Resampling.LANCZOS)
    assert (row[places] * weights).sum(1) == pytest.approx(np.asarray(expected)[0], abs=1e-4)
