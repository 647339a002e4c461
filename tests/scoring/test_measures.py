"""Measures of an image agree with scikit-image, torchmetrics and independent formulas."""

import numpy as np
import pytest
import torch
from score_folders import paler, picture
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from knowhue.color import chroma_bins
from knowhue.errors import ImageError
from knowhue.evaluation import evaluate, similarity
from knowhue.scoring import measures
from knowhue.scoring.measures import (
    AREA,
    MEASURES,
    balanced_area,
    in_one_colour,
    measure_image,
    nearest_bins,
    prepare_image,
)
from knowhue.scoring.protocols import PROTOCOLS

ORIGINAL = PROTOCOLS["original"]
TRUE = picture(3, 40)
MADE = paler(TRUE, 0.6)


def measured(made=MADE, true=TRUE):
    return measure_image(prepare_image(made), prepare_image(true), ORIGINAL)


def colorfulness_of_colormf(pixels, absolute):
    """Hasler and Süsstrunk's M3 written out pixel by pixel."""
    red, green, blue = (pixels[..., k].astype(float) for k in range(3))
    rg, yb = red - green, 0.5 * (red + green) - blue
    if absolute:
        rg, yb = abs(rg), abs(yb)
    return np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())


def test_parity_with_scikit_image_and_the_formulas():
    columns, _ = measured()
    lab, true_lab = rgb2lab(MADE / 255), rgb2lab(TRUE / 255)
    expected = {
        "psnr_rgb": peak_signal_noise_ratio(TRUE, MADE, data_range=255),
        "ssim_rgb": structural_similarity(
            TRUE / 255, MADE / 255, data_range=1, channel_axis=2, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        ),
        "ciede2000": deltaE_ciede2000(true_lab, lab).mean(),
        "ab_l1": abs(lab - true_lab)[..., 1:].mean(),
        "colourfulness": colorfulness_of_colormf(MADE, False),
        "colourfulness_absolute": colorfulness_of_colormf(MADE, True),
        "mean_colourfulness_difference": abs(
            colorfulness_of_colormf(MADE, False) - colorfulness_of_colormf(TRUE, False)
        ),
        "mean_colourfulness_difference_absolute": abs(
            colorfulness_of_colormf(MADE, True) - colorfulness_of_colormf(TRUE, True)
        ),
        "lightness_change": abs(lab - true_lab)[..., 0].mean(),
        "lightness_changed": (abs(lab - true_lab)[..., 0] > 1).mean(),
    }  # fmt: skip
    for name, value in expected.items():
        assert columns[name] == pytest.approx(value, abs=1e-5), name


RANDOM = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), np.uint8)


@pytest.mark.parametrize(("made", "true", "within"), [(*RANDOM, 3e-8), (MADE, TRUE, 5e-7)])
def test_one_ssim_in_the_house(made, true, within):
    # products of matrices of other sizes are summed in another order by torch, in float32
    tensors = [
        torch.from_numpy(np.moveaxis(each, -1, 0)[None].astype(np.float32) / 255) for each in (made, true)
    ]
    assert evaluate.ssim is similarity.ssim
    assert measured(made, true)[0]["ssim_rgb"] == pytest.approx(
        float(similarity.ssim(*tensors)[0]), abs=within
    )


def test_arrays_and_tensors_have_one_ciede2000_and_one_psnr():
    made, true = prepare_image(MADE), prepare_image(TRUE)
    args = true.lightness, made.chroma, true.chroma, made.lightness
    tensors = [torch.from_numpy(each) for each in args]
    assert similarity.ciede2000(*args)[0] == pytest.approx(float(similarity.ciede2000(*tensors)[0]), abs=1e-5)
    arrays = [each.rgb.astype(np.float64) for each in (made, true)]
    rgb = [torch.from_numpy(each) for each in arrays]
    assert similarity.psnr(*arrays)[0] == pytest.approx(float(similarity.psnr(*rgb)[0]), abs=1e-9)


@pytest.mark.parametrize("size", [(11, 11), (42, 43), (74, 53), (53, 107)])
def test_strips_change_nothing(monkeypatch, size):
    true, made = (np.resize(each, (*size, 3)) for each in (TRUE, MADE))
    whole, counts = measured(made, true)
    monkeypatch.setattr(measures, "_CHUNK_PIXELS", 97)
    monkeypatch.setattr(measures, "_SIDE", 13)
    tiled, same = measured(made, true)
    np.testing.assert_array_equal(counts, same)
    assert tiled == pytest.approx(whole, rel=1e-6, abs=1e-9)
    rgb = [np.moveaxis(each, -1, 0)[None].astype(np.float32) / 255 for each in (made, true)]
    assert whole["ssim_rgb"] == pytest.approx(float(similarity.ssim(*rgb)[0]), abs=5e-7)


def test_the_truth_beside_itself_is_known_as_it_would_be_measured():
    measured_anew, counts = measure_image(prepare_image(TRUE), prepare_image(TRUE), ORIGINAL)
    truth = prepare_image(TRUE)
    known, same = measure_image(truth, truth, ORIGINAL)
    assert known == pytest.approx(measured_anew, abs=1e-7)
    assert known.keys() == measured_anew.keys()
    np.testing.assert_array_equal(counts, same)


def curve_of(errors):
    """The area under the share of errors up to t, t = 0 to 150, by trapezoids."""
    shares = [(errors <= t).mean() for t in range(151)]
    return np.trapezoid(shares) / 150


def test_the_area_under_the_curve_is_that_of_its_definition():
    lab, true_lab = rgb2lab(MADE / 255)[..., 1:], rgb2lab(TRUE / 255)[..., 1:]
    errors = np.hypot(*np.moveaxis(lab - true_lab, -1, 0))
    columns, counts = measured()
    assert columns["ab_auc"] == pytest.approx(curve_of(errors), abs=1e-5)
    assert counts.sum() == errors.size
    assert curve_of(np.array([0.0, 0.5, 1.0, 149.2, 150.0, 151.0])) == pytest.approx(
        AREA[[0, 1, 1, 150, 150, 151]].mean()
    )


def test_the_balanced_area_is_the_mean_over_the_true_colours_that_occur():
    true_lab = rgb2lab(TRUE / 255)[..., 1:].reshape(-1, 2)
    errors = np.hypot(*(rgb2lab(MADE / 255)[..., 1:].reshape(-1, 2) - true_lab).T)
    bins = ((np.rint(true_lab)[:, None] - chroma_bins()) ** 2).sum(-1).argmin(1)
    expected = np.mean([curve_of(errors[bins == each]) for each in np.unique(bins)])
    assert balanced_area(measured()[1]) == pytest.approx(expected, abs=1e-4)


def test_every_bin_is_its_own_nearest():
    places = chroma_bins() + 128
    np.testing.assert_array_equal(nearest_bins()[places[:, 0], places[:, 1]], np.arange(313))


def test_an_equal_image_is_perfect_and_a_finite_number():
    columns, counts = measured(TRUE)
    perfect = {"psnr_rgb": 100, "ssim_rgb": 1, "ciede2000": 0, "ab_l1": 0, "ab_auc": 1, "lightness_change": 0}
    assert {name: columns[name] for name in perfect} == perfect
    assert balanced_area(counts) == 1


def test_16_bits_are_measured_like_8():
    deep, _ = measured(MADE.astype(np.uint16) * 257, TRUE.astype(np.uint16) * 257)
    assert deep == pytest.approx(measured()[0], abs=1e-9)


def test_too_small_for_ssim_is_said():
    with pytest.raises(ImageError, match=r"it has 9 x 9 pixels, and SSIM needs 11 a side"):
        measured(picture(0, 9), picture(0, 9))


def test_gray_keeps_lightness_and_loses_colour():
    truth = prepare_image(TRUE)
    gray = prepare_image(in_one_colour(truth))
    assert abs(gray.lightness - truth.lightness).max() < 0.4  # a step of a code
    assert abs(gray.chroma).max() < 0.02
    coloured = prepare_image(in_one_colour(prepare_image(np.full((12, 12, 3), 128, np.uint8)), (20.0, -10.0)))
    assert abs(coloured.chroma.mean((0, 2, 3)) - [20, -10]).max() < 0.5


def test_every_measure_has_a_head_of_its_own():
    heads = [measure.head for measure in MEASURES.values()]
    assert len({*heads}) == len(heads)
    assert all(measure.short for measure in MEASURES.values())
