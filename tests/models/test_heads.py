"""Heads: sizes, an initial prediction of gray, no checkerboard, and pooling of the coarsest map."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from knowhue.config import ENCODERS
from knowhue.errors import ConfigError
from knowhue.models.encoder import Encoder
from knowhue.models.heads import (
    CLASSIFIERS,
    AttentionClassifier,
    Classifier,
    Decoder,
    SmoothTransposedConv,
    scale_chroma,
    unscale_chroma,
)
from knowhue.models.multitask import MultiTask, build_model
from knowhue.randomness import initialised_by

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


def make(kind, channels=16, classes=3):
    with initialised_by(0, "class-head"):
        return CLASSIFIERS[kind](channels, classes)


def trained(channels=16):
    """An attention head with every parameter away from its start."""
    head = make("attention", channels)
    for seed, parameter in enumerate(head.parameters()):
        parameter.data = noise(*parameter.shape, seed=seed)
    return head


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 5), (8, 8)])
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_logits_of_maps_of_any_size(kind, size):
    logits = make(kind)((noise(2, 4, 16, 16), noise(2, 16, *size)))
    assert logits.shape == (2, 3)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


def test_the_linear_head_keeps_its_names():
    assert list(make("linear").state_dict()) == ["linear.weight", "linear.bias"]
    assert isinstance(make("linear"), Classifier)


def test_attention_starts_at_the_linear_heads_answer():
    maps = (noise(2, 16, 3, 4),)
    assert torch.equal(make("attention").linear.weight, make("linear").linear.weight)
    torch.testing.assert_close(make("attention")(maps), make("linear")(maps))


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_the_order_of_positions_does_not_matter(kind):
    head = trained() if kind == "attention" else make(kind)
    maps = noise(2, 16, 3, 4)
    mixed = maps.flatten(2)[..., torch.randperm(12, generator=torch.Generator().manual_seed(0))]
    torch.testing.assert_close(head((maps,)), head((mixed.unflatten(2, (4, 3)),)), rtol=1e-4, atol=1e-4)


def test_equal_positions_count_as_one():
    head, one = trained(), noise(2, 16, 1, 1)
    torch.testing.assert_close(head((one,)), head((one.expand(-1, -1, 4, 4),)), rtol=1e-4, atol=1e-4)


def test_classifier_an_image_does_not_depend_on_its_batch():
    head, maps = trained().train(), noise(3, 16, 3, 4)
    torch.testing.assert_close(head((maps,))[:1], head((maps[:1],)), rtol=1e-4, atol=1e-4)


def test_every_parameter_learns_once_the_last_is_not_zero():
    head = trained()
    head((noise(2, 16, 3, 4),)).square().sum().backward()
    assert [n for n, p in head.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(("channels", "heads"), [(16, 8), (12, 4), (10, 2), (7, 1), (512, 8), (320, 8)])
def test_heads_divide_the_channels(channels, heads):
    assert make("attention", channels).heads == heads


def test_it_is_torchs_attention_with_one_fixed_query():
    head, maps = trained(), noise(2, 16, 3, 4)
    theirs = nn.MultiheadAttention(16, head.heads, batch_first=True)
    width = 16 // head.heads
    query, key = torch.zeros(16), torch.zeros(16, 16)
    query[::width] = width**0.5  # undoes their scale; each head reads the first of its channels
    key[::width] = head.question.weight.data
    theirs.in_proj_weight.data = torch.cat((torch.zeros(16, 16), key, head.value.weight.data))
    theirs.in_proj_bias.data = torch.cat((query, torch.zeros(16), head.value.bias.data))
    theirs.out_proj.load_state_dict(head.out.state_dict())
    positions = maps.flatten(2).mT
    seen = head.norm(positions)
    found, _ = theirs(torch.zeros(2, 1, 16), seen, seen)
    expected = head.linear(positions.mean(1) + found[:, 0])
    torch.testing.assert_close(head((maps,)), expected, rtol=1e-4, atol=1e-4)


def marked(count, seed):
    """Maps in which the one marked position of 16 says the class, and the others say anything."""
    maps = noise(count, 8, 4, 4, seed=seed)
    label = (noise(count, seed=seed + 1) > 0).long()
    maps[:, 0] = maps[:, 0].sign()
    maps[:, 1] = 0
    maps[:, 0, 1, 2] = 2.0 * label - 1
    maps[:, 1, 1, 2] = 3
    return (maps,), label


def test_attention_finds_what_the_mean_drowns():
    right = {}
    for kind in CLASSIFIERS:
        head = make(kind, 8, 2)
        optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
        maps, label = marked(256, seed=0)
        for _ in range(120):
            optimizer.zero_grad()
            F.cross_entropy(head(maps), label).backward()
            optimizer.step()
        maps, label = marked(256, seed=5)
        right[kind] = (head(maps).argmax(1) == label).float().mean().item()
    assert right["linear"] < 0.8
    assert right["attention"] > 0.9


def test_the_table_makes_what_it_names():
    assert isinstance(make("attention"), AttentionClassifier)
    assert list(CLASSIFIERS) == ["linear", "attention"]


def test_scaling_goes_there_and_back():
    chroma = torch.tensor([-110.0, -55.0, 0.0, 110.0])
    assert scale_chroma(chroma).tolist() == [-1.0, -0.5, 0.0, 1.0]
    assert torch.equal(unscale_chroma(scale_chroma(chroma)), chroma)
