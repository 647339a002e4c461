"""PatchGAN: what one score sees, and how many there are."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from knowhue.color import LIGHTNESS_SCALE
from knowhue.errors import ConfigError
from knowhue.models.heads import scale_chroma
from knowhue.models.pix2pix import Discriminator, PatchGAN


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_receptive_field_is_what_one_score_depends_on(layers):
    discriminator, pixels = Discriminator(4, layers), 3 * 2 ** (layers + 1) - 2
    side = 2 * pixels
    chroma = torch.randn(1, 2, side, side, requires_grad=True)
    scores = discriminator(torch.zeros(1, 1, side, side), chroma)
    centre = scores.shape[-1] // 2
    scores[0, 0, centre, centre].backward()
    seen = chroma.grad.abs().sum((0, 1)) > 0
    assert int(seen.any(1).sum()) == int(seen.any(0).sum()) == pixels


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


def _images(count, height, width):
    return torch.rand(count, 1, height, width) * 100, torch.randn(count, 2, height, width) * 30


@pytest.mark.parametrize("place", [(7, 7), (6, 9)])
def test_one_score_convolves_exactly_70_pixels_on_a_side(place):
    patchgan = PatchGAN(4)
    _leave_out_normalisation(patchgan)  # its statistics see the whole image
    lightness, chroma = (x.requires_grad_() for x in _images(1, 144, 144))
    patchgan(lightness, chroma)[(0, 0, *place)].backward()
    for image in (lightness, chroma):
        seen = image.grad.abs().sum((0, 1)) > 0
        rows, columns = seen.any(1).nonzero().flatten(), seen.any(0).nonzero().flatten()
        start = [8 * index - (1 + 2 + 4 + 8 + 8) for index in place]  # each padding of 1, in input pixels
        assert rows.tolist() == list(range(start[0], start[0] + 70))
        assert columns.tolist() == list(range(start[1], start[1] + 70))


def _leave_out_normalisation(patchgan):
    for name, layer in patchgan.body.named_children():
        if isinstance(layer, nn.InstanceNorm2d):
            patchgan.body[int(name)] = nn.Identity()


@pytest.mark.parametrize(
    ("height", "width", "scores"), [(24, 24, (1, 1)), (64, 64, (6, 6)), (72, 256, (7, 30))]
)
def test_patchgan_one_score_a_patch(height, width, scores):
    answer = PatchGAN(2)(*_images(2, height, width))
    assert answer.shape == (2, 1, *scores)
    assert answer.dtype == torch.float32


def test_parameter_count_is_the_papers():
    """The authors' later code reports 2.769 million for 3 + 3 channels: the same sum with 6 for the 3."""

    def weights(channels):
        return 16 * (channels * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512 * 1)

    others = 2 * (128 + 256 + 512) + 64 + 1  # normalisations; biases of the layers that have none
    assert round((weights(6) + others) / 1e6, 3) == 2.769
    assert sum(p.numel() for p in PatchGAN().parameters()) == weights(3) + others == 2_765_633


def test_it_judges_lightness_and_chroma_scaled_to_one():
    patchgan = PatchGAN(4)
    lightness, chroma = _images(2, 32, 32)
    seen = []
    patchgan.body.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    patchgan(lightness, chroma)
    torch.testing.assert_close(seen[0][:, :1], lightness / (LIGHTNESS_SCALE / 2) - 1)
    torch.testing.assert_close(seen[0][:, 1:], scale_chroma(chroma))


def test_scores_equal_the_layers_written_out():
    torch.manual_seed(0)
    patchgan, (lightness, chroma) = PatchGAN(4), _images(2, 40, 48)
    with torch.no_grad():
        for layer in patchgan.body:
            if isinstance(layer, nn.InstanceNorm2d):
                layer.weight.fill_(1)
        kernels = [layer.weight for layer in patchgan.body if isinstance(layer, nn.Conv2d)]
        maps = torch.cat((lightness / 50 - 1, chroma / 110), 1)
        for index, (kernel, stride) in enumerate(zip(kernels, (2, 2, 2, 1, 1), strict=True)):
            maps = F.conv2d(maps, kernel, stride=stride, padding=1)
            if index in (1, 2, 3):
                variance, mean = torch.var_mean(maps, (2, 3), correction=0, keepdim=True)
                maps = (maps - mean) / (variance + 1e-5).sqrt()
            if index < 4:
                maps = torch.where(maps > 0, maps, 0.2 * maps)
        torch.testing.assert_close(patchgan(lightness, chroma), maps, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", [True, False])
def test_patchgan_an_image_is_judged_by_itself(mode):
    patchgan = PatchGAN(4).train(mode)
    lightness, chroma = _images(3, 64, 64)
    with torch.no_grad():
        together, alone = patchgan(lightness, chroma)[1:2], patchgan(lightness[1:2], chroma[1:2])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_patchgan_lightness_counts_and_every_parameter_learns():
    patchgan = PatchGAN(4)
    lightness, chroma = _images(2, 64, 64)
    lightness.requires_grad_()
    patchgan(lightness, chroma).square().sum().backward()
    assert lightness.grad.abs().sum() > 0
    assert [n for n, p in patchgan.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(("height", "width"), [(23, 64), (64, 16)])
def test_an_image_too_small_for_a_patch_is_refused(height, width):
    with pytest.raises(ConfigError, match=f"at least 24 pixels.*Found {height} x {width}.*`gan`"):
        PatchGAN(2)(*_images(1, height, width))
