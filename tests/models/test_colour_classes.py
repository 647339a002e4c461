"""The 313 colours: their values, encoding and decoding, and weights of rare colours."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import ConvexHull, cKDTree
from skimage.color import rgb2lab
from torch.nn import functional as F

from knowhue.color import chroma_bins
from knowhue.models.colour_classes import (
    ColourClasses,
    annealed_mean,
    centres,
    count_bins,
    rebalancing,
    smooth,
    soft_encode,
)
from knowhue.models.encoder import Encoder
from knowhue.models.multitask import MultiTask

# First and last b* of each row of a*, of the points published with the paper's code.
PUBLISHED = {
    **{-90: (50, 90), -80: (20, 90), -70: (0, 90), -60: (-20, 90), -50: (-30, 100), -40: (-40, 100)},
    **{-30: (-50, 100), -20: (-50, 100), -10: (-60, 100), 0: (-70, 100), 10: (-80, 90), 20: (-80, 90)},
    **{30: (-90, 90), 40: (-100, 90), 50: (-100, 80), 60: (-110, 80), 70: (-110, 80), 80: (-110, 70)},
    **{90: (-110, 70), 100: (-90, 0)},
}
HALF_DIAGONAL = 50**0.5


def random_counts(seed, largest, share):
    """Counts of the colours, up to `largest`, of which about `share` occur."""
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.integers(0, largest + 1, 313) * (rng.random(313) < share))


priors = st.builds(
    random_counts, st.integers(0, 2**32 - 1), st.integers(1, 10**6), st.floats(0.001, 1)
).filter(torch.Tensor.any)


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
    chroma_bins.cache_clear()
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


ENCODERS = {
    "resnet18": ((64, 64, 128, 256, 512), (2, 4, 8, 16, 32)),
    "convnext": ((6, 8, 12, 16), (4, 8, 16, 32)),
    "shallow": ((4, 8), (4, 8)),
    "quarter": ((8,), (4,)),
    "finer than a quarter": ((4, 8), (1, 2)),
    "empty": ((1,), (1,)),
}


def colour_classes_noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_head(encoder="convnext", skips=True, width=4, temperature=0.38, logit_adjustment=0.0):
    torch.manual_seed(0)
    channels, strides = ENCODERS[encoder]
    return ColourClasses(channels, strides, width, skips, temperature, logit_adjustment).eval()


def make_pyramid(head, encoder="convnext", batch=2, size=32):
    channels, strides = ENCODERS[encoder]
    return tuple(
        colour_classes_noise(batch, channels[t], size // strides[t], size // strides[t], seed=t)
        for t in head.taps
    )


def flat(*colours, size=32):
    return torch.tensor(colours, dtype=torch.float32)[:, :, None, None].expand(-1, -1, size, size)


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_answer_is_as_large_as_the_image_and_logits_a_quarter_of_it(encoder, skips):
    head = make_head(encoder, skips)
    pyramid = make_pyramid(head, encoder)
    assert head(pyramid).shape == (2, 2, 32, 32)
    side = 32 // min(4, ENCODERS[encoder][1][-1])
    assert head.logits(pyramid).shape == (2, 313, side, side)
    assert head(pyramid).abs().max() <= 1
    assert (
        head.loss(pyramid, colour_classes_noise(2, 1, 32, 32), 30 * colour_classes_noise(2, 2, 32, 32)).shape
        == ()
    )


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (50, 70), (33, 32), (8, 8)])
def test_it_colours_images_of_any_size_on_a_real_encoder(size, skips):
    encoder = Encoder("tf_efficientnet_lite0").eval()
    model = MultiTask(encoder, ColourClasses(encoder.channels, encoder.strides, 4, skips), None).eval()
    lightness = 50 + 20 * colour_classes_noise(2, 1, *size)
    with torch.no_grad():
        assert model(lightness).chroma.shape == (2, 2, *size)
        loss = model.colour.loss(model.features(lightness), lightness, 30 * colour_classes_noise(2, 2, *size))
    assert loss.isfinite()


def test_it_reads_no_map_finer_than_its_logits():
    assert make_head("resnet18").taps == (1, 2, 3, 4)
    assert make_head("resnet18", skips=False).taps == (4,)
    assert make_head("finer than a quarter").taps == (1,)


@pytest.mark.parametrize("encoder", ["resnet18", "convnext"])
def test_every_parameter_learns_from_the_loss(encoder):
    head = make_head(encoder, width=16)
    head.loss(
        make_pyramid(head, encoder),
        colour_classes_noise(2, 1, 32, 32),
        30 * colour_classes_noise(2, 2, 32, 32),
    ).backward()
    assert [n for n, p in head.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_colours_are_the_same_for_whoever_asks_first():
    known = chroma_bins()
    chroma_bins.cache_clear()
    with torch.device("meta"):  # as a model is built whose weights come from a file
        make_head()
    np.testing.assert_array_equal(chroma_bins(), known)


@pytest.mark.parametrize("temperature", [0.38, 0.8])
def test_the_answer_is_the_annealed_mean_upsampled(temperature):
    head = make_head(temperature=temperature)
    head.out.weight.data.mul_(300)
    pyramid = make_pyramid(head)
    share = np.exp(head.logits(pyramid).detach().double().numpy() / temperature)
    share /= share.sum(1, keepdims=True)
    small = torch.tensor(np.einsum("bqhw,qc->bchw", share, centres().double().numpy()))
    large = F.interpolate(small, size=(32, 32), mode="bilinear", align_corners=False)
    assert large.std() > 5
    torch.testing.assert_close(110 * head(pyramid).double(), large, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("size", [(32, 32), (30, 27), (17, 5)])
def test_the_loss_is_as_an_independent_one(size):
    head = make_head()
    head.out.weight.data.mul_(300)
    head.learn_prior(torch.arange(313) ** 3)
    pyramid, chroma = make_pyramid(head), 40 * colour_classes_noise(2, 2, *size)
    true = np.pad(
        chroma.double().numpy(), ((0, 0), (0, 0), (0, 32 - size[0]), (0, 32 - size[1])), mode="edge"
    )
    logits, bins = head.logits(pyramid).detach().double().numpy(), centres().double().numpy()
    losses = []
    for b, y, x in np.ndindex(2, 8, 8):
        colour = true[b, :, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].mean((1, 2))
        distance = np.linalg.norm(bins - colour, axis=1)
        target = np.where(distance <= np.sort(distance)[4], np.exp(-(distance**2) / (2 * 5**2)), 0)
        target /= target.sum()
        log_share = logits[b, :, y, x] - np.log(np.exp(logits[b, :, y, x]).sum())
        losses.append(-head.rebalance[target.argmax()].item() * (target * log_share).sum())
    found = head.loss(pyramid, colour_classes_noise(2, 1, *size), chroma)
    assert found.item() == pytest.approx(np.mean(losses), rel=1e-4)


def test_the_loss_is_in_full_precision_under_autocast():
    head = make_head()
    pyramid, chroma = make_pyramid(head), 40 * colour_classes_noise(2, 2, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reduced = head.loss(pyramid, colour_classes_noise(2, 1, 32, 32), chroma)
        assert head(pyramid).dtype == torch.float32
    assert reduced.dtype == torch.float32
    torch.testing.assert_close(
        reduced, head.loss(pyramid, colour_classes_noise(2, 1, 32, 32), chroma), rtol=0.01, atol=0.01
    )


@pytest.mark.parametrize("skips", [False, True])
def test_an_image_does_not_depend_on_its_batch(skips):
    head = make_head(skips=skips).train()
    head.out.weight.data.mul_(300)
    pyramid = make_pyramid(head, batch=3)
    with torch.no_grad():
        together, alone = head(pyramid)[:1], head(tuple(m[:1] for m in pyramid))
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def learn(head, pyramid, chroma, steps=60, rate=0.01):
    optimizer = torch.optim.Adam(head.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        head.loss(pyramid, chroma[:, :1], chroma).backward()
        optimizer.step()
    with torch.no_grad():
        return 110 * head(pyramid)


def test_it_learns_two_flat_colours():
    head = make_head("shallow", width=8)
    true = flat((40, 50), (-20, -30))
    found = learn(head, make_pyramid(head, "shallow"), true)
    assert (found - true).norm(dim=1).max() < 2


@pytest.mark.parametrize(("taught", "low", "high"), [(False, 0, 5), (True, 30, 75)])
def test_with_the_prior_a_rare_colour_is_not_averaged_away(taught, low, high):
    head = make_head("quarter")
    alike = (
        colour_classes_noise(1, 8, 8, 8).expand(10, -1, -1, -1),
    )  # nothing tells the nine gray images from the red one
    true = flat(*9 * [(0, 0)], (80, 70))
    if taught:
        head.learn_prior(count_bins(true))
    found = learn(head, alike, true, steps=100, rate=0.1).norm(dim=1).mean()
    assert low <= found < high


def test_what_colours_count_is_kept_with_the_weights():
    head, other = make_head(), make_head()
    assert head.rebalance.tolist() == [1.0] * 313
    head.learn_prior(torch.arange(313))
    other.load_state_dict(head.state_dict())
    assert torch.equal(head.rebalance, other.rebalance)
    assert len(head.rebalance.unique()) > 100


def test_adjusted_wholly_it_answers_the_mean_of_what_it_has_seen_though_rare_colours_counted_more():
    """One gray input, four of five times blue and once red: nothing tells which, and red counts more in training."""
    blue, red = (0.0, -40.0), (60.0, 40.0)
    counts = count_bins(flat(blue, blue, blue, blue, red))
    trained, answers = make_head(width=8, temperature=1.0).train(), {}
    trained.learn_prior(counts)
    pyramid = tuple(each[:1].expand(5, -1, -1, -1) for each in make_pyramid(trained))
    learn(trained, pyramid, flat(blue, blue, blue, blue, red), rate=0.03)
    for adjustment in (0.0, 0.5, 1.0):  # which training does not depend on
        head = make_head(width=8, temperature=1.0, logit_adjustment=adjustment)
        head.load_state_dict(trained.state_dict())
        with torch.no_grad():
            answers[adjustment] = 110 * head(pyramid)[0].mean((1, 2))
    expected = torch.tensor([12.0, -24.0])
    off = {each: (answer - expected).norm().item() for each, answer in answers.items()}
    assert off[1.0] < 3 < off[0.5] < off[0.0]
    assert off[0.0] > 15  # red, that counts more, is where the answer leans


def test_adjusting_changes_predictions_and_the_logits_given_with_them_and_nothing_that_is_trained():
    plain, adjusted = make_head(), make_head(logit_adjustment=0.5)
    pyramid, chroma = make_pyramid(plain), 30 * colour_classes_noise(2, 2, 32, 32)
    counts = torch.arange(1, 314)
    for head in (plain, adjusted):
        head.learn_prior(counts)
    losses = [head.loss(pyramid, torch.zeros(2, 1, 32, 32), chroma) for head in (plain, adjusted)]
    assert losses[0] == losses[1]
    given = plain.logits(pyramid) - 0.5 * rebalancing(counts).log()[:, None, None]
    torch.testing.assert_close(adjusted.adjusted_logits(adjusted.logits(pyramid)), given)
    torch.testing.assert_close(adjusted(pyramid), adjusted.decode(given))
    assert plain.adjusted_logits(plain.logits(pyramid)).equal(plain.logits(pyramid))
