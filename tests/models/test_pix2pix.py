"""The generator of pix2pix: the paper's shape and size, one image at a time, and skips that carry detail."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from knowhue.errors import ConfigError
from knowhue.models.pix2pix import Pix2PixUNet, depth_for


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


@given(st.integers(-3, 6000))
def test_depth_halves_to_one_pixel_but_no_deeper_than_the_paper(size_px):
    if size_px < 16:
        with pytest.raises(ConfigError, match=f"at least 16.*Found `size_px = {size_px}`"):
            depth_for(size_px)
    elif size_px < 256:
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


@pytest.mark.parametrize("size", [(48, 64), (64, 65)])
def test_a_side_that_halves_to_no_whole_pixel_is_refused(size):
    with pytest.raises(ConfigError, match=f"multiples of 32. Found {size[0]} x {size[1]}. Pad them to 64 x "):
        Pix2PixUNet(2, 5)((_gray(1, *size),))


def test_one_halving_is_no_u_net():
    with pytest.raises(ConfigError, match=r"`depth` should be at least 2. Found `depth = 1`"):
        Pix2PixUNet(2, 1)
