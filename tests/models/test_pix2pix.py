"""pix2pix: shapes and sizes of the papers, skip connections, and the discriminator's receptive field."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from knowhue.color import LIGHTNESS_SCALE
from knowhue.models.heads import scale_chroma
from knowhue.models.pix2pix import Discriminator, PatchGAN, Pix2PixUNet, depth_for


def _gray(count, height, width):
    return torch.rand(count, 1, height, width) * 2 - 1


@pytest.mark.parametrize(("depth", "height", "width"), [(6, 64, 64), (8, 256, 256), (4, 16, 48), (3, 32, 8)])
def test_colours_have_the_images_size(depth, height, width):
    unet = Pix2PixUNet(2, depth)
    assert unet.taps == (0,)
    assert unet.stride == 2**depth
    answer = unet((_gray(2, height, width),))
    assert answer.shape == (2, 2, height, width)
    assert answer.dtype == torch.float32


@pytest.mark.parametrize(("depth", "size_px"), [(6, 64), (8, 256)])
def test_the_bottleneck_is_one_pixel_and_not_normalised_to_zero(depth, size_px):
    unet = Pix2PixUNet(2, depth)
    seen = []
    unet.encoder[-1].register_forward_hook(lambda _, __, output: seen.append(output))
    unet((_gray(1, size_px, size_px),))
    assert seen[0].shape == (1, 16, 1, 1)
    assert seen[0].any()


def test_parameter_count_is_the_papers():
    """C64-C128-C256-C512-C512-C512-C512-C512 and back, the skips doubling what each later block takes in.

    The authors' later code reports 54.414 million for 3 -> 3 channels: the same sum with 3 for the 1 and the 2.
    """

    def weights(gray, colours):
        encoder = gray * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 4 * 512 * 512
        decoder = 512 * 512 + 3 * 1024 * 512 + 1024 * 256 + 512 * 128 + 256 * 64 + 128 * colours
        return 16 * (encoder + decoder)

    normalisation = 2 * (128 + 256 + 4 * 512) + 2 * (4 * 512 + 256 + 128 + 64)
    assert round((weights(3, 3) + normalisation) / 1e6, 3) == 54.414
    biases = 64 + 512 + 2  # first layer, bottleneck and last layer: those that are not normalised
    count = sum(p.numel() for p in Pix2PixUNet().parameters())
    assert count == weights(1, 2) + normalisation + biases == 54_410_434


def test_equals_the_network_written_as_nested_blocks():
    torch.manual_seed(0)
    unet, gray = Pix2PixUNet(4, 5).eval(), _gray(2, 32, 64)
    with torch.no_grad():
        for layer in unet.modules():
            if isinstance(layer, nn.InstanceNorm2d):
                layer.weight.fill_(1)  # what `_normalised` does
        expected = torch.tanh(_nested(dict(unet.named_parameters()), gray, 0, 5))
        torch.testing.assert_close(unet((gray,)), expected, rtol=1e-4, atol=1e-6)


def _nested(weights, outer, level, depth):
    """Independent form: a level halves, hands on to the next one within, doubles, and appends itself."""
    down = weights[f"encoder.{level}.weight" if level == 0 else f"encoder.{level}.1.weight"]
    inner = F.conv2d(F.leaky_relu(outer, 0.2) if level else outer, down, stride=2, padding=1)
    if level not in (0, depth - 1):
        inner = _normalised(inner)
    if level < depth - 1:
        inner = torch.cat((_nested(weights, inner, level + 1, depth), inner), 1)
    up = weights[f"decoder.{depth - 1 - level}.1.weight"]
    outer = F.conv_transpose2d(F.relu(inner), up, stride=2, padding=1)
    return _normalised(outer) if level else outer


def _normalised(maps):
    mean = maps.mean((2, 3), keepdim=True)
    variance = (maps - mean).square().mean((2, 3), keepdim=True)
    return (maps - mean) / (variance + 1e-5).sqrt()


@given(st.integers(16, 6000))
def test_depth_halves_to_one_pixel_but_no_deeper_than_the_paper(size_px):
    if size_px < 256:
        assert size_px // 2 ** depth_for(size_px) == 1
    else:
        assert depth_for(size_px) == 8


def test_colours_are_within_one_even_for_wild_weights():
    unet = Pix2PixUNet(2, 4)
    with torch.no_grad():
        unet.decoder[-1][-1].weight.mul_(1e4)
    answer = unet((_gray(2, 32, 32),))
    assert answer.abs().max() == 1
    assert answer.min() < 0 < answer.max()


@pytest.mark.parametrize("size", [(64, 64), (64, 128)])
def test_an_image_is_coloured_by_itself(size):
    unet, gray = Pix2PixUNet(4, 6).eval(), _gray(3, *size)
    with torch.no_grad():
        together, alone = unet((gray,))[1:2], unet((gray[1:2],))
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)


def test_dropout_draws_in_training_only():
    unet, gray = Pix2PixUNet(4, 6), _gray(1, 64, 64)
    with torch.no_grad():
        assert not torch.equal(unet((gray,)), unet((gray,)))
        unet.eval()
        assert torch.equal(unet((gray,)), unet((gray,)))


@pytest.mark.parametrize(("depth", "blocks"), [(8, [0, 1, 2]), (4, [0, 1, 2]), (3, [0, 1])])
def test_dropout_is_in_the_three_blocks_next_to_the_bottleneck(depth, blocks):
    decoder = Pix2PixUNet(2, depth).decoder
    dropouts = [[layer.p for layer in block if isinstance(layer, nn.Dropout)] for block in decoder]
    assert dropouts == [[0.5] if index in blocks else [] for index in range(depth)]


def test_every_parameter_learns():
    unet = Pix2PixUNet(4, 6)
    unet((_gray(4, 64, 64),)).square().sum().backward()
    assert [n for n, p in unet.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_weights_start_as_the_paper_draws_them():
    torch.manual_seed(0)
    layers = list(Pix2PixUNet(16, 5).modules())
    kernels = [m.weight for m in layers if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(kernels) == 10
    for kernel in kernels:
        assert kernel.std().item() == pytest.approx(0.02, rel=0.15)
        assert kernel.mean().abs() < 0.004
    assert not any(m.bias.any() for m in layers if getattr(m, "bias", None) is not None)


def test_skips_carry_fine_detail_past_the_bottleneck():
    """Learn colours that follow each pixel of fresh noise, then silence the bottleneck, or the skips."""
    torch.manual_seed(0)
    unet = Pix2PixUNet(8, 4)
    optimizer = torch.optim.Adam(unet.parameters(), 3e-3)
    for _ in range(150):
        loss = _detail_error(unet, _gray(4, 32, 32))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unet.eval()
    gray = _gray(8, 32, 32)
    with torch.no_grad():
        untinted_error, answer = gray.abs().mean() / 2, unet((gray,))
        silenced = unet.encoder[-1].register_forward_hook(lambda _, __, output: torch.zeros_like(output))
        assert not torch.equal(unet((gray,)), answer)
        assert _detail_error(unet, gray) < 0.2 * untinted_error
        silenced.remove()
        for block in unet.decoder[1:]:
            block.register_forward_pre_hook(_without_skip)
        assert _detail_error(unet, gray) > 0.9 * untinted_error


def _without_skip(_, inputs):
    features, skip = inputs[0].chunk(2, 1)
    return torch.cat((features, torch.zeros_like(skip)), 1)


def _detail_error(unet, gray):
    return (unet((gray,)) - torch.cat((gray, -gray), 1) / 2).abs().mean()


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


def test_the_discriminators_parameter_count_is_the_papers():
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
