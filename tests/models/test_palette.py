"""Palette: its loss is the papers', learns, and its samples repeat, differ, and stay each image's own."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from knowhue.color import lab_to_rgb, rgb_to_lab
from knowhue.config import PaletteSettings
from knowhue.errors import ConfigError
from knowhue.models.heads import scale_chroma, unscale_chroma
from knowhue.models.palette import SAMPLERS, Attention, Denoiser, Palette, diversity, signal_levels

SPACES = ("rgb", "ab")


@pytest.fixture
def make_palette():
    """A tiny Palette of which no layer is at zero, so that its answers depend on what it sees."""

    def make(space="rgb", **changes):
        torch.manual_seed(0)
        palette = Palette(
            PaletteSettings(space=space, **({"width": 8, "multipliers": (1, 2), "sample_steps": 4} | changes))
        ).eval()
        for parameter in palette.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
        return palette

    return make


def images(count=3, height=8, width=12):
    """Gray pyramid, L* and a*b* of random sRGB images."""
    rgb = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))
    lightness, chroma = rgb_to_lab(rgb)
    return (lightness / 50 - 1,), lightness, chroma


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("space", SPACES)
def test_samples_have_the_images_size_and_stay_within_the_scale(make_palette, space, sampler):
    palette = make_palette(space, sampler=sampler)
    assert palette.taps == (0,)
    assert palette.stride == 2
    pyramid, *_ = images()
    answer, several = palette(pyramid), palette.samples(pyramid, 2)
    assert answer.shape == (3, 2, 8, 12)
    assert several.shape == (2, 3, 2, 8, 12)
    assert answer.dtype == several.dtype == torch.float32
    assert several.abs().max() <= 1
    assert not several.requires_grad


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sample_repeats_and_two_differ(make_palette, sampler):
    palette = make_palette(sampler=sampler)
    pyramid, *_ = images()
    torch.manual_seed(1)
    first = palette(pyramid)
    torch.manual_seed(2)  # prediction does not draw from the global generator, nor move it
    state = torch.get_rng_state()
    several = palette.samples(pyramid, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(several[0], first)
    assert (several[0] - several[1]).abs().mean() > 0.01


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("space", SPACES)
def test_an_image_alone_is_as_in_a_batch(make_palette, space, sampler):
    palette = make_palette(space, sampler=sampler)
    (gray,), *_ = images()
    torch.testing.assert_close(palette((gray[1:2],)), palette((gray,))[1:2], rtol=1e-3, atol=1e-4)


def test_ancestral_and_ddim_part_ways(make_palette):
    pyramid, *_ = images()
    one, other = (make_palette(sampler=sampler)(pyramid) for sampler in SAMPLERS)
    assert (one - other).abs().mean() > 0.01


@pytest.mark.parametrize("space", SPACES)
def test_an_oracle_gives_back_the_true_colours(make_palette, monkeypatch, space):
    """Where the denoiser knows the truth, sampling finds it: the target and its inverse fit, lightness dropped."""
    palette = make_palette(space)
    pyramid, lightness, chroma = images()
    truth = 2 * lab_to_rgb(lightness, chroma) - 1 if space == "rgb" else scale_chroma(chroma)

    def oracle(noisy, gray, level):
        level = level[:, None, None, None]
        noise = (noisy - level.sqrt() * truth) / (1 - level).sqrt()
        return level.sqrt() * noise - (1 - level).sqrt() * truth

    monkeypatch.setattr(palette, "_velocity", oracle)
    torch.testing.assert_close(unscale_chroma(palette(pyramid)), chroma, rtol=0, atol=0.05)


@pytest.mark.parametrize("space", SPACES)
def test_loss_is_the_mean_square_error_of_the_noise(make_palette, space):
    """Recomputed from the paper's formula with the same draws; the target is padded by its edge."""
    palette = make_palette(space)
    _, lightness, chroma = images(3, 7, 11)
    pyramid = (F.pad(lightness / 50 - 1, (0, 1, 0, 1), mode="replicate"),)
    torch.manual_seed(3)
    loss = palette.loss(pyramid, lightness, chroma)
    torch.manual_seed(3)
    step, share = torch.randint(1, 1001, (3,)), torch.rand(3)
    levels = signal_levels("cosine", 1000).float()
    gamma = (levels[step - 1] + share * (levels[step] - levels[step - 1])).reshape(3, 1, 1, 1)
    truth = 2 * lab_to_rgb(lightness, chroma) - 1 if space == "rgb" else chroma / 110
    truth = torch.cat((truth, truth[..., -1:]), 3)
    truth = torch.cat((truth, truth[..., -1:, :]), 2)
    noise = torch.randn(truth.shape)
    noisy = gamma.sqrt() * truth + (1 - gamma).sqrt() * noise
    velocity = palette._velocity(noisy, pyramid[0], gamma.flatten())
    error = (1 - gamma).sqrt() * noisy + gamma.sqrt() * velocity - noise
    torch.testing.assert_close(loss, error.square().mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("space", SPACES)
def test_every_parameter_gets_a_gradient(make_palette, space):
    palette = make_palette(space, width=16)
    palette.train().loss(*images()).backward()
    assert [
        n for n, p in palette.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
    ] == []


@pytest.mark.parametrize("space", SPACES)
def test_it_learns_two_flat_images(space):
    torch.manual_seed(0)
    palette = Palette(PaletteSettings(space=space, width=8, multipliers=(1, 2), sample_steps=10))
    rgb = torch.tensor([[0.8, 0.2, 0.1], [0.1, 0.3, 0.7]])[:, :, None, None].expand(-1, -1, 8, 8)
    lightness, chroma = rgb_to_lab(rgb.repeat(4, 1, 1, 1))
    seen = ((lightness / 50 - 1,), lightness, chroma)
    optimizer = torch.optim.Adam(palette.parameters(), 5e-3)
    untrained = mean_loss(palette, *seen)
    for _ in range(120):
        optimizer.zero_grad()
        palette.loss(*seen).backward()
        optimizer.step()
    assert mean_loss(palette, *seen) < untrained / 2
    error = (unscale_chroma(palette(seen[0])) - chroma).abs().mean()
    assert error < chroma.abs().mean()  # nearer than gray


@torch.no_grad()
def mean_loss(palette, *seen):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return torch.stack([palette.loss(*seen) for _ in range(20)]).mean()


def test_under_bfloat16_the_diffusion_stays_float32(make_palette):
    palette = make_palette()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, answer = palette.loss(*images()), palette(images()[0])
    assert loss.dtype == answer.dtype == torch.float32
    torch.testing.assert_close(answer, palette(images()[0]), rtol=0, atol=0.3)


def test_diversity_of_equal_samples_is_zero_and_of_others_their_spread():
    flat = torch.zeros(2, 3, 2, 4, 4)
    assert diversity(flat).tolist() == [0, 0, 0]
    flat[0, 1, 0], flat[1, 1, 0] = 3, -3  # a*: variance 18
    flat[0, 1, 1], flat[1, 1, 1] = 4, -4  # b*: variance 32
    assert diversity(flat).tolist() == pytest.approx([0, 50**0.5, 0])


@pytest.mark.parametrize("setting", [{"space": "lab"}, {"sampler": "euler"}, {"schedule": "sigmoid"}])
def test_an_unknown_setting_is_refused(setting):
    with pytest.raises(ValidationError, match=next(iter(setting))):
        PaletteSettings(**setting)


def test_more_sampling_steps_than_steps_are_refused():
    with pytest.raises(ConfigError, match=r"`sample_steps` should be from 1 to the 10"):
        Palette(PaletteSettings(steps=10, sample_steps=11))


@pytest.mark.parametrize("shape", [(1, 3, 2, 4, 4), (2, 3, 3, 4, 4), (3, 2, 4, 4)])
def test_diversity_needs_two_samples_of_chroma(shape):
    with pytest.raises(ValueError, match=r"`samples` should be \(count, B, 2, H, W\)"):
        diversity(torch.zeros(shape))


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def make_denoiser():
    """A denoiser of which no layer is at zero."""

    def make(*args, **kwargs):
        torch.manual_seed(0)
        denoiser = Denoiser(*args, **kwargs)
        for parameter in denoiser.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
        return denoiser.eval()

    return make


@pytest.mark.parametrize(
    ("multipliers", "blocks", "size"),
    [
        ((1, 2, 2), 1, (8, 12)),
        ((1,), 2, (5, 7)),
        ((1, 2, 4, 8), 2, (16, 8)),
        ((1, 1, 2, 2, 4, 4), 1, (32, 32)),
    ],
)
def test_answer_is_as_large_as_the_image_and_starts_at_zero(multipliers, blocks, size):
    denoiser = Denoiser(4, 3, 8, multipliers, blocks)
    assert denoiser.stride == 2 ** (len(multipliers) - 1)
    answer = denoiser(noise(2, 4, *size), torch.tensor([0.1, 0.9]))
    assert answer.shape == (2, 3, *size)
    assert not answer.any()


@pytest.mark.parametrize("attentive", [0, 1, 3])
def test_denoiser_every_parameter_gets_a_gradient(make_denoiser, attentive):
    denoiser = make_denoiser(4, 3, 16, (1, 2, 2), 2, attentive)
    denoiser(noise(2, 4, 16, 16), torch.tensor([0.1, 0.9])).square().sum().backward()
    assert [n for n, p in denoiser.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_answer_depends_on_the_level_and_each_image_on_its_own(make_denoiser):
    denoiser = make_denoiser(4, 3, 8)
    images, level = noise(3, 4, 8, 8), torch.tensor([0.1, 0.5, 0.9])
    together = denoiser(images, level)
    for index in range(3):
        alone = denoiser(images[index : index + 1], level[index : index + 1])
        torch.testing.assert_close(together[index : index + 1], alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(denoiser(images, level + 0.01), together, atol=1e-3)


@pytest.mark.parametrize(("channels", "heads"), [(8, 1), (128, 2)])
def test_attention_is_torchs_multi_head_attention(channels, heads):
    torch.manual_seed(0)
    attention, reference = Attention(channels), nn.MultiheadAttention(channels, heads, batch_first=True)
    nn.init.normal_(attention.project.weight, std=0.1)
    with torch.no_grad():
        reference.in_proj_weight.copy_(attention.query_key_value.weight[:, :, 0, 0])
        reference.in_proj_bias.copy_(attention.query_key_value.bias)
        reference.out_proj.weight.copy_(attention.project.weight[:, :, 0, 0])
    features = noise(2, channels, 3, 5)
    pixels = attention.norm(features).flatten(2).transpose(1, 2)
    expected = features + reference(pixels, pixels, pixels)[0].transpose(1, 2).reshape(features.shape)
    torch.testing.assert_close(attention(features), expected, rtol=1e-4, atol=1e-5)


def test_multiply_adds_are_those_of_the_docstring():
    denoiser = Denoiser(4, 3, 32, (1, 2, 2)).to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        denoiser(torch.zeros(1, 4, 64, 64, device="meta"), torch.ones(1, device="meta"))
    assert f"{counter.get_total_flops() / 2e9:.2f} billion multiply-adds" in str(Denoiser.__doc__)


def test_a_size_that_does_not_halve_is_refused_with_the_size_that_does():
    with pytest.raises(ConfigError, match=r"multiples of 4\. Found 10 x 16\. Pad them to 12 x 16"):
        Denoiser(1, 1, 8)(noise(1, 1, 10, 16), torch.ones(1))
