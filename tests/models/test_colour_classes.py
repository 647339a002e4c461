"""The classification head: its loss, its sizes, what it learns, and what rare colours count."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from knowhue.models.colour_classes import ColourClasses
from knowhue.models.encoder import Encoder
from knowhue.models.multitask import MultiTask
from knowhue.models.quantised import centres, count_bins

ENCODERS = {
    "resnet18": ((64, 64, 128, 256, 512), (2, 4, 8, 16, 32)),
    "convnext": ((6, 8, 12, 16), (4, 8, 16, 32)),
    "shallow": ((4, 8), (4, 8)),
    "quarter": ((8,), (4,)),
    "finer than a quarter": ((4, 8), (1, 2)),
    "empty": ((1,), (1,)),
}


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_head(encoder="convnext", skips=True, width=4):
    torch.manual_seed(0)
    channels, strides = ENCODERS[encoder]
    return ColourClasses(channels, strides, width, skips).eval()


def make_pyramid(head, encoder="convnext", batch=2, size=32):
    channels, strides = ENCODERS[encoder]
    return tuple(noise(batch, channels[t], size // strides[t], size // strides[t], seed=t) for t in head.taps)


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
    assert head.loss(pyramid, noise(2, 1, 32, 32), 30 * noise(2, 2, 32, 32)).shape == ()


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (50, 70), (33, 32), (8, 8)])
def test_it_colours_images_of_any_size_on_a_real_encoder(size, skips):
    encoder = Encoder("tf_efficientnet_lite0").eval()
    model = MultiTask(encoder, ColourClasses(encoder.channels, encoder.strides, 4, skips), None).eval()
    lightness = 50 + 20 * noise(2, 1, *size)
    with torch.no_grad():
        assert model(lightness).chroma.shape == (2, 2, *size)
        loss = model.colour.loss(model.features(lightness), lightness, 30 * noise(2, 2, *size))
    assert loss.isfinite()


def test_it_reads_no_map_finer_than_its_logits():
    assert make_head("resnet18").taps == (1, 2, 3, 4)
    assert make_head("resnet18", skips=False).taps == (4,)
    assert make_head("finer than a quarter").taps == (1,)


@pytest.mark.parametrize("encoder", ["resnet18", "convnext"])
def test_every_parameter_learns_from_the_loss(encoder):
    head = make_head(encoder, width=16)
    head.loss(make_pyramid(head, encoder), noise(2, 1, 32, 32), 30 * noise(2, 2, 32, 32)).backward()
    assert [n for n, p in head.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_answer_is_the_annealed_mean_upsampled():
    head = make_head()
    head.out.weight.data.mul_(300)
    pyramid = make_pyramid(head)
    share = np.exp(head.logits(pyramid).detach().double().numpy() / 0.38)
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
    pyramid, chroma = make_pyramid(head), 40 * noise(2, 2, *size)
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
    found = head.loss(pyramid, noise(2, 1, *size), chroma)
    assert found.item() == pytest.approx(np.mean(losses), rel=1e-4)


def test_the_loss_is_in_full_precision_under_autocast():
    head = make_head()
    pyramid, chroma = make_pyramid(head), 40 * noise(2, 2, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reduced = head.loss(pyramid, noise(2, 1, 32, 32), chroma)
        assert head(pyramid).dtype == torch.float32
    assert reduced.dtype == torch.float32
    torch.testing.assert_close(reduced, head.loss(pyramid, noise(2, 1, 32, 32), chroma), rtol=0.01, atol=0.01)


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
    alike = (noise(1, 8, 8, 8).expand(10, -1, -1, -1),)  # nothing tells the nine gray images from the red one
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


def test_counts_of_nothing_are_refused():
    with pytest.raises(ValueError, match="not all 0"):
        make_head().learn_prior(torch.zeros(313))
