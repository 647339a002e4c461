"""Every score agrees with an independent implementation; run with `-s` to see the table."""

from collections.abc import Callable
from typing import Any

import colour
import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from skimage.color import deltaE_ciede2000
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.classification import multiclass_calibration_error
from torchmetrics.functional.image import peak_signal_noise_ratio as torchmetrics_psnr
from torchmetrics.functional.image import structural_similarity_index_measure as torchmetrics_ssim
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from knowhue.color import colourfulness
from knowhue.evaluation import similarity
from knowhue.evaluation.calibration import calibration_bins, calibration_error
from knowhue.evaluation.features import frechet, kernel_distance

# Sharma, Wu and Dalal 2005, table 1: L1 a1 b1 L2 a2 b2 CIEDE2000.
SHARMA = """
50.0000 2.6772 -79.7751 50.0000 0.0000 -82.7485 2.0425
50.0000 3.1571 -77.2803 50.0000 0.0000 -82.7485 2.8615
50.0000 2.8361 -74.0200 50.0000 0.0000 -82.7485 3.4412
50.0000 -1.3802 -84.2814 50.0000 0.0000 -82.7485 1.0000
50.0000 -1.1848 -84.8006 50.0000 0.0000 -82.7485 1.0000
50.0000 -0.9009 -85.5211 50.0000 0.0000 -82.7485 1.0000
50.0000 0.0000 0.0000 50.0000 -1.0000 2.0000 2.3669
50.0000 -1.0000 2.0000 50.0000 0.0000 0.0000 2.3669
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0009 7.1792
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0010 7.1792
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0011 7.2195
50.0000 2.4900 -0.0010 50.0000 -2.4900 0.0012 7.2195
50.0000 -0.0010 2.4900 50.0000 0.0009 -2.4900 4.8045
50.0000 -0.0010 2.4900 50.0000 0.0010 -2.4900 4.8045
50.0000 -0.0010 2.4900 50.0000 0.0011 -2.4900 4.7461
50.0000 2.5000 0.0000 50.0000 0.0000 -2.5000 4.3065
50.0000 2.5000 0.0000 73.0000 25.0000 -18.0000 27.1492
50.0000 2.5000 0.0000 61.0000 -5.0000 29.0000 22.8977
50.0000 2.5000 0.0000 56.0000 -27.0000 -3.0000 31.9030
50.0000 2.5000 0.0000 58.0000 24.0000 15.0000 19.4535
50.0000 2.5000 0.0000 50.0000 3.1736 0.5854 1.0000
50.0000 2.5000 0.0000 50.0000 3.2972 0.0000 1.0000
50.0000 2.5000 0.0000 50.0000 1.8634 0.5757 1.0000
50.0000 2.5000 0.0000 50.0000 3.2592 0.3350 1.0000
60.2574 -34.0099 36.2677 60.4626 -34.1751 39.4387 1.2644
63.0109 -31.0961 -5.8663 62.8187 -29.7946 -4.0864 1.2630
61.2901 3.7196 -5.3901 61.4292 2.2480 -4.9620 1.8731
35.0831 -44.1164 3.7933 35.0232 -40.0716 1.5901 1.8645
22.7233 20.0904 -46.6940 23.0331 14.9730 -42.5619 2.0373
36.4612 47.8580 18.3852 36.2715 50.5065 21.2231 1.4146
90.8027 -2.0831 1.4410 91.1528 -1.6435 0.0447 1.4441
90.9257 -0.5406 -0.9208 88.6381 -0.8985 -0.7239 1.5381
6.7747 -0.2908 -2.4247 5.8714 -0.0985 -2.2286 0.6377
2.0776 0.0795 -1.1350 0.9033 -0.0636 -0.5514 0.9082
"""
Pair = tuple[Any, Any, float]


def images() -> tuple[torch.Tensor, torch.Tensor]:
    """Four images of 40 x 36 pixels and a noisy copy, RGB 0 to 1."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 3, 5, 5, generator=generator)
    true = torch.nn.functional.interpolate(coarse, size=(40, 36), mode="bilinear")
    return (true + 0.1 * torch.randn(true.shape, generator=generator)).clamp(0, 1), true


def arrays(rgb: torch.Tensor) -> np.ndarray:
    return rgb.permute(0, 2, 3, 1).double().numpy()


def sharma() -> Pair:
    rows = [[float(x) for x in line.split()] for line in SHARMA.split("\n") if line]
    table = torch.tensor(rows, dtype=torch.float64)
    assert len(table) == 34
    light, other = (table[:, column].reshape(-1, 1, 1, 1) for column in (3, 0))
    chromas = (table[:, columns].reshape(-1, 2, 1, 1) for columns in ([1, 2], [4, 5]))
    return similarity.ciede2000(light, *chromas, predicted_lightness=other), table[:, 6], 6e-5


def opposite() -> Pair:
    """Hues exactly opposite, of which the mean is that of their angles from 0 to 360 degrees."""
    one = torch.tensor([[8.0, 0], [-8, 0], [8, -0.0], [-8, -0.0], [0, 8], [0, -8]])
    both = [torch.cat((torch.full((6, 1), 50.0), each), 1).double() for each in (one, one * -6)]
    expected = colour.delta_E(*both, method="CIE 2000")
    chromas = (each[:, 1:].reshape(-1, 2, 1, 1) for each in both)
    return similarity.ciede2000(torch.full((6, 1, 1, 1), 50.0), *chromas), expected, 1e-4


def difference() -> Pair:
    generator = torch.Generator().manual_seed(0)
    lightness = 100 * torch.rand(3, 1, 40, 40, generator=generator)
    predicted, true = (40 * torch.randn(3, 2, 40, 40, generator=generator) for _ in range(2))
    predicted[0, :, :9], true[0, :, 5:12] = 0, 0  # grays on either side
    both = [torch.cat((lightness, x), 1).permute(0, 2, 3, 1).double().numpy() for x in (predicted, true)]
    expected = colour.delta_E(*both, method="CIE 2000").mean((1, 2))
    return similarity.ciede2000(lightness, predicted, true), expected, 1e-4


def difference_skimage() -> Pair:
    """Of colours from barely different to far beyond sRGB."""
    generator = torch.Generator().manual_seed(1)
    lightness = 100 * torch.rand(4, 1, 40, 40, generator=generator)
    spread = torch.tensor([0.3, 5.0, 40.0, 90.0]).reshape(-1, 1, 1, 1)
    predicted, true = (spread * torch.randn(4, 2, 40, 40, generator=generator) for _ in range(2))
    predicted[:, :, :10] = true[:, :, :10] + 1e-3
    both = [torch.cat((lightness, x), 1).permute(0, 2, 3, 1).double().numpy() for x in (predicted, true)]
    return similarity.ciede2000(lightness, predicted, true), deltaE_ciede2000(*both).mean((1, 2)), 2e-5


def psnr_skimage() -> Pair:
    pairs = zip(*map(arrays, images()), strict=True)
    return similarity.psnr(*images()), [peak_signal_noise_ratio(y, x, data_range=1) for x, y in pairs], 1e-4


def psnr_torchmetrics() -> Pair:
    expected = torchmetrics_psnr(*images(), data_range=1.0, reduction="none", dim=(1, 2, 3))
    return similarity.psnr(*images()), expected, 1e-4


def ssim_skimage() -> Pair:
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
    pairs = zip(*map(arrays, images()), strict=True)
    expected = [structural_similarity(x, y, channel_axis=-1, **options) for x, y in pairs]
    return similarity.ssim(*images()), expected, 1e-5


def ssim_flat() -> Pair:
    """On 80 x 64 pixels with flat areas, where variances are all rounding, against float64."""
    predicted, true = (torch.nn.functional.interpolate(x, size=(80, 64), mode="nearest") for x in images())
    predicted[:, :, :40], true[:, :, :32] = 1.0, 0.3
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
    pairs = zip(arrays(predicted), arrays(true), strict=True)
    expected = [structural_similarity(x, y, channel_axis=-1, **options) for x, y in pairs]
    return similarity.ssim(predicted, true), expected, 1e-6


def ssim_torchmetrics() -> Pair:
    """On images whose border of 10 pixels is flat, so that its reflection adds nothing but ones."""
    predicted, true = (torch.nn.functional.pad(x, (12,) * 4, value=0.5) for x in images())
    padded = torch.tensor([(40 + 24, 36 + 24)]).prod()
    inside = torch.tensor([(40 + 14, 36 + 14)]).prod()
    whole = torchmetrics_ssim(predicted, true, data_range=1.0, sigma=1.5, reduction="none")
    assert isinstance(whole, torch.Tensor)
    return similarity.ssim(predicted, true), 1 - (1 - whole) * padded / inside, 1e-4


def colourfulness_by_the_paper() -> Pair:
    """Hasler and Süsstrunk 2003, section 7, as most code on the web has it."""
    red, green, blue = (255 * arrays(images()[1])[..., i].astype(float) for i in range(3))
    rg, yb = red - green, 0.5 * (red + green) - blue
    spread = np.sqrt(rg.std((1, 2)) ** 2 + yb.std((1, 2)) ** 2)
    centre = np.sqrt(rg.mean((1, 2)) ** 2 + yb.mean((1, 2)) ** 2)
    return colourfulness(255 * images()[1].double()), spread + 0.3 * centre, 1e-4


def expected_calibration_error() -> Pair:
    logits = 2 * torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    label = torch.randint(4, (200,), generator=torch.Generator().manual_seed(1))
    probability, predicted = logits.softmax(1).max(1)
    found = calibration_error(
        [
            {"probability": p, "correct": int(c)}
            for p, c in zip(probability.tolist(), predicted == label, strict=True)
        ]
    )
    return found, multiclass_calibration_error(logits, label, 4, n_bins=15, norm="l1"), 1e-6


def features(count: int, seed: int, size: int = 24) -> np.ndarray:
    """Correlated, shifted rows, float32 as networks give them."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).normal(size=(size, size))
    return (rng.normal(size=(count, size)) @ mixing + 0.3 * seed).astype(np.float32)


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x.astype(float).mean(0), np.cov(x.astype(float), rowvar=False)


def frechet_scipy() -> Pair:
    first, second = features(200, 0), features(150, 1)
    (mean_1, cov_1), (mean_2, cov_2) = moments(first), moments(second)
    root = np.real(sqrtm(cov_1 @ cov_2))
    expected = ((mean_1 - mean_2) ** 2).sum() + np.trace(cov_1 + cov_2 - 2 * root)
    return frechet(first, second) / expected, 1.0, 1e-9


def frechet_torchmetrics() -> Pair:
    """With fewer images than dimensions, where covariances are singular."""
    first, second = features(20, 0), features(18, 1)
    expected = _compute_fid(*(torch.from_numpy(x) for pair in map(moments, (first, second)) for x in pair))
    return frechet(first, second) / expected.item(), 1.0, 1e-6


def kernel_torchmetrics() -> Pair:
    first, second = features(60, 0), features(60, 1)
    expected = poly_mmd(*(torch.from_numpy(x.astype(float)) for x in (first, second)), 3, None, 1.0)
    return kernel_distance(first, second) / expected.item(), 1.0, 1e-9


PARITY: dict[str, tuple[str, Callable[[], Pair]]] = {
    "CIEDE2000": ("Sharma et al. 2005, 34 pairs", sharma),
    "CIEDE2000 of opposite hues": ("colour-science", opposite),
    "ciede2000": ("colour-science", difference),
    "ciede2000 ": ("scikit-image", difference_skimage),
    "psnr_rgb": ("scikit-image", psnr_skimage),
    "psnr_rgb ": ("torchmetrics", psnr_torchmetrics),
    "ssim_rgb": ("scikit-image", ssim_skimage),
    "ssim_rgb  ": ("scikit-image, flat areas", ssim_flat),
    "ssim_rgb ": ("torchmetrics, flat borders", ssim_torchmetrics),
    "colourfulness": ("Hasler and Süsstrunk 2003", colourfulness_by_the_paper),
    "Frechet (relative)": ("scipy.linalg.sqrtm", frechet_scipy),
    "Frechet (relative) ": ("torchmetrics, singular", frechet_torchmetrics),
    "kernel distance (rel.)": ("torchmetrics", kernel_torchmetrics),
    "ece": ("torchmetrics", expected_calibration_error),
}


@pytest.mark.parametrize("name", PARITY)
def test_parity(name):
    reference, compare = PARITY[name]
    found, expected, tolerance = compare()
    largest = np.abs(np.asarray(found, float) - np.asarray(expected, float)).max()
    print(f"\n| {name.strip():24} | {reference:32} | {largest:.1e} |", end="")
    assert largest <= tolerance


def test_equal_colours_do_not_differ_and_sides_are_alike():
    generator = torch.Generator().manual_seed(0)
    lightness = 100 * torch.rand(3, 1, 8, 8, generator=generator)
    first, second = (60 * torch.randn(3, 2, 8, 8, generator=generator) for _ in range(2))
    assert similarity.ciede2000(lightness, first, first).tolist() == [0, 0, 0]
    torch.testing.assert_close(
        similarity.ciede2000(lightness, first, second), similarity.ciede2000(lightness, second, first)
    )


def test_one_image_by_both_conventions():
    """Signed and absolute part where opponent values cancel."""
    rgb = torch.zeros(1, 3, 2, 2)
    rgb[0, 0, 0], rgb[0, 1, 1] = 1, 1  # red above green
    assert colourfulness(255 * rgb).item() == pytest.approx(255 * (1 + 0.3 * 0.5))
    assert colourfulness(255 * rgb, absolute=True).item() == pytest.approx(255 * 0.3 * np.hypot(1, 0.5))


def test_probability_one_is_in_the_last_bin_and_edges_in_the_lower():
    bins = calibration_bins([{"probability": p, "correct": 1} for p in (1.0, 0.0, 0.2)])
    assert [n for n, each in enumerate(bins) if each.images] == [0, 2, 14]
    assert np.isnan(calibration_error([{"probability": 1.0, "correct": None}]))


@pytest.mark.parametrize("score", [similarity.psnr, similarity.ssim])
def test_rgb_scores_do_not_broadcast(score):
    with pytest.raises(ValueError, match=r"`predicted` should be of the shape of `true`, \(2, 3, 16, 16\)"):
        score(torch.zeros(1, 3, 16, 16), torch.zeros(2, 3, 16, 16))


def test_ciede2000_does_not_broadcast():
    with pytest.raises(ValueError, match="should be as large as `true`"):
        similarity.ciede2000(torch.zeros(1, 1, 4, 4), torch.zeros(2, 2, 4, 4), torch.zeros(2, 2, 4, 4))
    with pytest.raises(ValueError, match="11 pixels"):
        similarity.ssim(torch.zeros(1, 3, 10, 16), torch.zeros(1, 3, 10, 16))


@pytest.mark.parametrize("measure", [similarity.psnr, similarity.ssim])
@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
def test_codes_are_refused_where_shares_are_compared(measure, make):
    codes = make(np.zeros((1, 3, 16, 16), np.uint8))
    with pytest.raises(
        ValueError, match=r"from 0 to 1\. Found `predicted.dtype = .*uint8`: divide codes by 255"
    ):
        measure(codes, codes)
