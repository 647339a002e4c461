"""PatchGAN: what one score sees, and how many there are."""

import pytest
import torch

from knowhue.models.discriminator import Discriminator, receptive_field


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_receptive_field_is_what_one_score_depends_on(layers):
    side = 2 * receptive_field(layers)
    chroma = torch.randn(1, 2, side, side, requires_grad=True)
    scores = Discriminator(4, layers)(torch.zeros(1, 1, side, side), chroma)
    centre = scores.shape[-1] // 2
    scores[0, 0, centre, centre].backward()
    seen = chroma.grad.abs().sum((0, 1)) > 0
    assert int(seen.any(1).sum()) == int(seen.any(0).sum()) == receptive_field(layers)


@pytest.mark.parametrize(("layers", "patches"), [(1, 31), (2, 15), (3, 7), (4, 3)])
def test_one_score_a_patch(layers, patches):
    scores = Discriminator(4, layers)(torch.rand(2, 1, 64, 64), torch.rand(2, 2, 64, 64))
    assert scores.shape == (2, 1, patches, patches)
    assert scores.dtype == torch.float32


def test_an_image_is_judged_by_itself():
    discriminator = Discriminator(4, 3).eval()
    lightness, chroma = torch.rand(3, 1, 64, 64) * 100, torch.randn(3, 2, 64, 64) * 30
    with torch.no_grad():
        together, alone = discriminator(lightness, chroma)[:1], discriminator(lightness[:1], chroma[:1])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_lightness_counts_and_every_parameter_learns():
    discriminator = Discriminator(4, 3)
    lightness = (torch.rand(2, 1, 64, 64) * 100).requires_grad_()
    discriminator(lightness, torch.randn(2, 2, 64, 64) * 30).square().sum().backward()
    assert lightness.grad.abs().sum() > 0
    assert [n for n, p in discriminator.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_layers_are_spectrally_normalised():
    discriminator = Discriminator(8, 3)
    for _ in range(30):  # each training pass is one power iteration
        discriminator(torch.rand(1, 1, 64, 64), torch.rand(1, 2, 64, 64))
    norms = [m.weight.flatten(1).svd().S[0].item() for m in discriminator.body if hasattr(m, "weight")]
    assert norms == pytest.approx([1.0] * 4, abs=0.05)
