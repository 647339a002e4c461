"""The 313 colours: which they are, there and back again, and what rare ones count."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import ConvexHull, cKDTree
from skimage.color import rgb2lab

from knowhue.models import quantised
from knowhue.models.quantised import annealed_mean, centres, count_bins, rebalancing, smooth, soft_encode

# First and last b* of each row of a*, of the points published with the paper's code.
PUBLISHED = {
    **{-90: (50, 90), -80: (20, 90), -70: (0, 90), -60: (-20, 90), -50: (-30, 100), -40: (-40, 100)},
    **{-30: (-50, 100), -20: (-50, 100), -10: (-60, 100), 0: (-70, 100), 10: (-80, 90), 20: (-80, 90)},
    **{30: (-90, 90), 40: (-100, 90), 50: (-100, 80), 60: (-110, 80), 70: (-110, 80), 80: (-110, 70)},
    **{90: (-110, 70), 100: (-90, 0)},
}
HALF_DIAGONAL = 50**0.5

priors = st.lists(st.integers(0, 10**6), min_size=313, max_size=313).filter(any).map(torch.tensor)


def colours(count=4000, seed=0):
    """Colours of sRGB, a*b* (count, 2), by an independent conversion."""
    rgb = np.random.default_rng(seed).random((count, 3))
    rgb[::2] = rgb[::2].round()  # half of them on the gamut's corners, edges included
    rgb[1::4, 0] = 0
    return rgb2lab(rgb)[:, 1:]


def as_map(points):
    return torch.tensor(np.asarray(points), dtype=torch.float32).T[None, :, :, None]


def logits_of(indices, values):
    """(1, n, h, w) of some bins to logits of all of them, no others possible."""
    return torch.full((1, 313, *indices.shape[2:]), -torch.inf).scatter(1, indices, values)


def test_the_centres_are_the_published_ones():
    published = [[a, b] for a, (first, last) in PUBLISHED.items() for b in range(first, last + 1, 10)]
    assert len(published) == 313
    assert centres().tolist() == published


def test_the_centres_are_the_corners_of_all_cells_that_the_gamuts_hull_touches():
    gamut = colours(40000)
    hull = ConvexHull(gamut)
    ring = gamut[hull.vertices]
    share = np.linspace(0, 1, 400)[:, None, None]
    edge = (ring * share + np.roll(ring, -1, 0) * (1 - share)).reshape(-1, 2)
    inner = np.stack(np.meshgrid(*2 * [np.arange(-110, 110, 2.0)]), -1).reshape(-1, 2)
    inner = inner[(inner @ hull.equations[:, :2].T + hull.equations[:, 2] <= 0).all(1)]
    grid = np.stack(np.meshgrid(*2 * [np.arange(-120, 121, 10)], indexing="ij"), -1).reshape(-1, 2)
    away, _ = cKDTree(np.concatenate((edge, inner))).query(grid, p=np.inf)
    np.testing.assert_array_equal(grid[away < 10], centres())


def test_the_centres_serve_training_whatever_mode_they_were_first_asked_for_in():
    quantised._corners_touched.cache_clear()
    with torch.inference_mode():
        centres()
    logits = torch.zeros(1, 313, 1, 1, requires_grad=True)
    annealed_mean(logits).sum().backward()
    assert logits.grad.any()


def test_a_colour_is_never_further_from_a_bin_than_half_a_cells_diagonal():
    indices, _ = soft_encode(as_map(colours()))
    back = annealed_mean(logits_of(indices[:, :1], torch.zeros(1, 1, *indices.shape[2:])), 1e-6)
    away = (back - as_map(colours())).norm(dim=1)
    assert away.max() <= HALF_DIAGONAL + 1e-4
    assert away.max() > 6  # there is something to bound


def test_a_soft_code_is_closer_to_its_colour_than_the_nearest_bin():
    points = as_map(colours())
    indices, weights = soft_encode(points)
    soft = (annealed_mean(logits_of(indices, weights.log()), 1) - points).norm(dim=1)
    hard = (annealed_mean(logits_of(indices[:, :1], weights[:, :1]), 1) - points).norm(dim=1)
    assert soft.mean() < hard.mean() / 2
    assert soft.max() < HALF_DIAGONAL


def test_a_soft_code_is_as_an_independent_one():
    points = np.random.default_rng(1).uniform(-128, 128, (500, 2))  # out of gamut too
    indices, weights = soft_encode(as_map(points))
    bins = centres().double().numpy()
    for n, point in enumerate(points):
        distance = np.linalg.norm(bins - point, axis=1)
        nearest = np.argsort(distance, kind="stable")[:5]
        share = np.exp(-(distance[nearest] ** 2) / 50)
        assert indices[0, :, n, 0].tolist() == nearest.tolist()
        if share.sum() > 1e-250:
            np.testing.assert_allclose(weights[0, :, n, 0], share / share.sum(), atol=2e-5)


def test_shares_sum_to_one_even_far_out_of_gamut():
    far = torch.tensor([[1e4, -1e4], [0.0, 0.0], [200.0, 200.0]])
    _, weights = soft_encode(as_map(far))
    torch.testing.assert_close(weights.sum(1), torch.ones(1, 3, 1))


def test_codes_lie_where_their_colours_did():
    chroma = 40 * torch.randn(2, 2, 3, 5, generator=torch.Generator().manual_seed(0))
    indices, weights = soft_encode(chroma)
    assert indices.shape == weights.shape == (2, 5, 3, 5)
    for b, y, x in [(0, 0, 0), (1, 2, 4), (1, 0, 3)]:
        alone = soft_encode(chroma[b : b + 1, :, y : y + 1, x : x + 1])
        assert torch.equal(alone[0].flatten(), indices[b, :, y, x])
        torch.testing.assert_close(alone[1].flatten(), weights[b, :, y, x])


def noise(seed=0):
    return 3 * torch.randn(2, 313, 3, 4, generator=torch.Generator().manual_seed(seed))


def test_at_temperature_one_it_is_the_expectation():
    share = np.exp(noise().double().numpy())
    share /= share.sum(1, keepdims=True)
    expected = np.einsum("bqhw,qc->bchw", share, centres().double().numpy())
    np.testing.assert_allclose(annealed_mean(noise(), 1), expected, atol=1e-3)


def test_towards_temperature_zero_it_is_the_mode():
    torch.testing.assert_close(
        annealed_mean(noise(), 1e-5), centres()[noise().argmax(1)].movedim(-1, 1), rtol=0, atol=1e-3
    )


def test_annealing_lies_between_the_two():
    mode = annealed_mean(noise(), 1e-5)
    away = [(annealed_mean(noise(), t) - mode).norm(dim=1).mean() for t in (0.1, 0.38, 1.0)]
    assert away == sorted(away)
    assert torch.equal(annealed_mean(noise()), annealed_mean(noise(), 0.38))


def test_reduced_precision_does_not_reach_the_colours():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reduced = annealed_mean(noise()), *soft_encode(as_map(colours(50)))
    full = annealed_mean(noise()), *soft_encode(as_map(colours(50)))
    assert all(torch.equal(one, two) for one, two in zip(reduced, full, strict=True))


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan")])
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(ValueError, match=f"above 0. Found `temperature = {temperature}`"):
        annealed_mean(noise(), temperature)


def test_pixels_are_counted_at_their_nearest_bin():
    chroma = 40 * torch.randn(3, 2, 160, 150, generator=torch.Generator().manual_seed(0))  # more than a chunk
    counts = count_bins(chroma)
    assert counts.dtype == torch.int64
    assert torch.equal(counts, soft_encode(chroma)[0][:, 0].flatten().bincount(minlength=313))
    assert counts.sum() == 3 * 160 * 150


def test_smoothing_shares_with_neighbours_by_a_gaussian():
    gray = (centres() == 0).all(1).float()
    spread = smooth(gray)
    at = {tuple(c): s.item() for c, s in zip(centres().tolist(), spread, strict=True)}
    assert at[10.0, 0.0] / at[0.0, 0.0] == pytest.approx(np.exp(-2), rel=1e-5)
    assert at[10.0, 10.0] / at[0.0, 0.0] == pytest.approx(np.exp(-4), rel=1e-5)


@given(priors)
def test_smoothing_loses_nothing(prior):
    prior = prior / prior.sum()
    assert smooth(prior).sum().item() == pytest.approx(1, abs=1e-5)
    assert (smooth(prior) >= 0).all()


@given(priors, st.floats(0.01, 1))
def test_the_expected_weight_is_one_and_rarer_colours_count_more(counts, share):
    weights, smoothed = rebalancing(counts, share), smooth(counts / counts.sum())
    assert (smoothed * weights).sum().item() == pytest.approx(1, abs=1e-4)
    by_rarity = weights[smoothed.argsort()]
    assert (by_rarity.diff() <= 1e-6 * by_rarity[:-1]).all()
    assert (weights > 0).all()


def test_weights_are_as_equation_four_says():
    counts = torch.randint(0, 1000, (313,), generator=torch.Generator().manual_seed(0))
    bins, prior = centres().double().numpy(), counts.double().numpy() / counts.sum().item()
    smoothed = np.zeros(313)
    for q in range(313):
        kernel = np.exp(-((bins - bins[q]) ** 2).sum(1) / (2 * 5**2))
        smoothed += prior[q] * kernel / kernel.sum()
    expected = 1 / (0.5 * smoothed + 0.5 / 313)
    expected /= (smoothed * expected).sum()
    np.testing.assert_allclose(rebalancing(counts), expected, rtol=1e-4)
    torch.testing.assert_close(rebalancing(counts / 7), rebalancing(counts))


def test_a_colour_that_never_occurs_counts_finitely_more():
    counts = torch.zeros(313)
    counts[centres().norm(dim=1) < 15] = 1000
    weights = rebalancing(counts)
    assert weights.max() / weights.min() > 10
    assert weights.isfinite().all()


@pytest.mark.parametrize(
    "prior", [torch.zeros(313), torch.ones(312), -torch.ones(313), torch.full((313,), torch.nan)]
)
def test_a_prior_that_is_none_is_refused(prior):
    with pytest.raises(ValueError, match="313 values from 0 up, not all 0"):
        rebalancing(prior)


@pytest.mark.parametrize("share", [0, 1.1, -0.5])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match=f"Found `uniform_share = {share}`"):
        rebalancing(torch.ones(313), share)
