"""Heads from features to chroma: sizes, the gray start, and no checkerboard whatever is learnt."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from knowhue.errors import ConfigError
from knowhue.models.decoders import Decoder, SmoothTransposedConv
from knowhue.models.encoder import ENCODERS, Encoder
from knowhue.models.multitask import MultiTask, build_model

sizes = st.integers(3, 6)


@pytest.fixture(scope="module")
def encoders():
    return {name: Encoder(name).eval() for name in ENCODERS}


@pytest.fixture
def make_model(encoders):
    def make(encoder, decoder, width=4):
        made = encoders[encoder]
        return MultiTask(
            made, Decoder(made.channels, made.strides, width, skips=decoder == "unet"), None
        ).eval()

    return make


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(64, 64), (50, 70), (33, 32), (8, 8)])
@pytest.mark.parametrize("decoder", ["transposed", "unet"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_chroma_is_as_large_as_the_image_and_starts_gray(make_model, encoder, decoder, size):
    model = make_model(encoder, decoder)
    with torch.no_grad():
        prediction = model(50 + 20 * noise(2, 1, *size))
    assert prediction.logits is None
    assert prediction.chroma.shape == (2, 2, *size)
    assert prediction.chroma.dtype == torch.float32
    assert not prediction.chroma.any()  # exactly 0


@pytest.mark.parametrize("decoder", ["transposed", "unet"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_parameter_gets_a_gradient(make_model, encoder, decoder):
    model = make_model(encoder, decoder, width=16)  # with fewer, each channel is a group of GroupNorm
    head = model.colour
    nn.init.normal_(head.out.weight)  # at 0 it lets no gradient past
    head(
        [1 + noise(2, model.encoder.channels[t], 64 // s, 64 // s) for t, s in taps(model)]
    ).square().sum().backward()
    assert [n for n, p in head.named_parameters() if p.grad is None or not p.grad.any()] == []


def taps(model):
    return [(tap, model.encoder.strides[tap]) for tap in model.taps]


@pytest.mark.parametrize("decoder", ["transposed", "unet"])
def test_an_output_stays_within_the_scale(make_model, decoder):
    model = make_model("resnet18", decoder)
    nn.init.normal_(model.colour.out.weight, std=100)
    chroma = model(50 + 20 * noise(1, 1, 64, 64)).chroma
    assert 100 < chroma.abs().max() <= 110


@pytest.mark.parametrize("decoder", ["transposed", "unet"])
def test_an_image_does_not_depend_on_its_batch(make_model, decoder):
    model = make_model("tf_efficientnet_lite0", decoder)
    nn.init.normal_(model.colour.out.weight, std=0.1)
    images = 50 + 20 * noise(3, 1, 64, 64)
    with torch.no_grad():
        together, alone = model(images).chroma[:1], model(images[:1]).chroma
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-3)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 5), sizes, sizes)
def test_constant_maps_stay_constant(seed, incoming, outgoing, height, width):
    layer = SmoothTransposedConv(incoming, outgoing)
    layer.weight.data = noise(incoming, outgoing, 3, 3, seed=seed)
    flat = noise(1, incoming, 1, 1, seed=seed + 1).expand(1, incoming, height, width)
    with torch.no_grad():
        inside = layer(flat)[..., 1:-1, 1:-1]  # the outermost pixels see the zeros beyond the edge
    torch.testing.assert_close(inside, inside[..., :1, :1].expand_as(inside), rtol=1e-5, atol=1e-5)


def test_a_plain_transposed_convolution_draws_a_checkerboard():
    torch.manual_seed(0)
    with torch.no_grad():
        inside = nn.ConvTranspose2d(4, 1, 4, 2, padding=1)(torch.ones(1, 4, 6, 6))[..., 1:-1, 1:-1]
    assert inside.std() > 0.05


def test_smooth_layer_is_a_transposed_convolution_with_a_boxed_kernel():
    layer = SmoothTransposedConv(3, 2)
    nn.init.normal_(layer.bias)
    kernel = torch.zeros(3, 2, 4, 4)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        kernel[:, :, row : row + 3, column : column + 3] += layer.weight.detach()
    features = noise(2, 3, 5, 7)
    expected = F.conv_transpose2d(features, kernel, layer.bias, stride=2, padding=1)
    torch.testing.assert_close(layer(features), expected, rtol=1e-5, atol=1e-5)
    assert expected.shape == (2, 2, 10, 14)


def test_unknown_decoder_lists_the_known(tiny):
    with pytest.raises(ConfigError, match=r"one of auto, transposed\. Found `colour\.decoder = palette`"):
        build_model(tiny(colour__decoder="palette"), 2)
