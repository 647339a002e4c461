"""Palette: formulas and loss of the papers, the sampling chain, and repeatable, independent samples."""

from itertools import pairwise
from math import cos, pi, prod, sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from knowhue.color import lab_to_rgb, rgb_to_lab
from knowhue.config import PaletteSettings
from knowhue.errors import ConfigError
from knowhue.models.heads import scale_chroma, unscale_chroma
from knowhue.models.palette import (
    SAMPLERS,
    SCHEDULES,
    Attention,
    Denoiser,
    Palette,
    ancestral,
    clean_from,
    ddim,
    diversity,
    draw_levels,
    noise_from,
    noised,
    signal_levels,
    spaced_levels,
)

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
    torch.manual_seed(2)  # prediction neither uses nor changes the global generator
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


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("steps", [50, 1000, 2000])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_levels_fall_from_one_to_about_zero(schedule, steps):
    levels = signal_levels(schedule, steps)
    assert levels.shape == (steps + 1,)
    assert levels[0] == 1
    assert levels[1] > 0.98
    assert 0 < levels[-1] < 1e-4
    assert (levels.diff() < 0).all()


def test_cosine_levels_are_the_papers_formula():
    """Nichol and Dhariwal: f(t) / f(0), f(t) = cos((t/T + s) / (1 + s) pi / 2)^2, until the last step is clipped."""
    levels = signal_levels("cosine", 1000)
    start = cos(0.008 / 1.008 * pi / 2) ** 2
    for step in (1, 100, 500, 900, 999):
        assert levels[step].item() == pytest.approx(cos((step / 1000 + 0.008) / 1.008 * pi / 2) ** 2 / start)
    assert levels[500].item() == pytest.approx(0.493844, abs=1e-6)
    assert (levels[1000] / levels[999]).item() == pytest.approx(0.001)  # the largest beta is 0.999


def test_linear_levels_are_the_papers():
    """Ho et al.: beta from 1e-4 to 0.02, which leaves about 4e-5 of the signal."""
    levels = signal_levels("linear", 1000)
    assert (1 - levels[1]).item() == pytest.approx(1e-4)
    assert (1 - levels[1000] / levels[999]).item() == pytest.approx(0.02)
    halfway = prod(1 - (1e-4 + step / 999 * (0.02 - 1e-4)) for step in range(500))
    assert levels[500].item() == pytest.approx(halfway)
    assert levels[1000].item() == pytest.approx(4.0358e-5, rel=1e-3)


def test_linear_schedule_ends_alike_with_fewer_steps():
    """Scaled betas keep the sum of betas, and so about the logarithm of the level halfway."""
    assert signal_levels("linear", 250)[125].log().item() == pytest.approx(
        signal_levels("linear", 1000)[500].log().item(), rel=0.02
    )


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_marginal_has_the_mean_and_variance_of_the_formula(schedule):
    level = signal_levels(schedule, 100)[[10, 40, 90]]
    clean = torch.full((3, 1, 400, 500), 0.7, dtype=torch.float64)
    noisy = noised(clean, normal(*clean.shape), level)
    torch.testing.assert_close(noisy.mean((1, 2, 3)), 0.7 * level.sqrt(), atol=0.01, rtol=0)
    torch.testing.assert_close(noisy.var((1, 2, 3)), 1 - level, atol=0.01, rtol=0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_single_steps_compose_to_the_marginal(schedule):
    levels = signal_levels(schedule, 60)
    chain = torch.full((200_000,), 0.7, dtype=torch.float64)
    for step, beta in enumerate(SCHEDULES[schedule](60), 1):
        chain = (1 - beta).sqrt() * chain + beta.sqrt() * normal(len(chain), seed=step)
        if step in (5, 30, 60):
            assert chain.mean().item() == pytest.approx(0.7 * levels[step].sqrt().item(), abs=0.01)
            assert chain.var().item() == pytest.approx(1 - levels[step].item(), abs=0.01)


@pytest.mark.parametrize(("before", "after"), [(10, 11), (99, 100), (3, 40)])
def test_ancestral_step_is_the_posterior_of_a_brute_force_gaussian(before, after):
    """Bayes on a grid: N(earlier; clean) times N(noisy; earlier), neither formula of the paper's used."""
    levels = signal_levels("cosine", 100)
    earlier, level = levels[before].item(), levels[after].item()
    clean, noisy, kept = 0.3, -0.8, levels[after].item() / levels[before].item()
    grid = torch.linspace(-8, 8, 400_001, dtype=torch.float64)
    log_density = -((grid - sqrt(earlier) * clean) ** 2) / (2 * (1 - earlier))
    log_density -= (noisy - sqrt(kept) * grid) ** 2 / (2 * (1 - kept))
    density = log_density.softmax(0)
    mean = (density * grid).sum()
    deviation = (density * (grid - mean) ** 2).sum().sqrt()
    one, other = (
        ancestral(
            torch.tensor(noisy), torch.tensor(clean), level, earlier, torch.tensor(fresh, dtype=torch.float64)
        )
        for fresh in (0.0, 1.0)
    )
    assert one.item() == pytest.approx(mean.item(), abs=1e-6)
    assert (other - one).item() == pytest.approx(deviation.item(), abs=1e-6)


def test_ancestral_steps_keep_the_forward_marginal():
    """From q(noisy | clean), a step with the true clean image leads to q(earlier | clean)."""
    levels = signal_levels("cosine", 100)
    clean = torch.full((1, 1, 400, 500), 0.7, dtype=torch.float64)
    noisy = noised(clean, normal(*clean.shape), levels[[80]])
    back = ancestral(noisy, clean, levels[80].item(), levels[30].item(), normal(*clean.shape, seed=1))
    assert back.mean().item() == pytest.approx(0.7 * levels[30].sqrt().item(), abs=0.01)
    assert back.var().item() == pytest.approx(1 - levels[30].item(), abs=0.01)


@pytest.mark.parametrize("count", [1, 2, 7, 100])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_perfect_denoiser_leads_to_the_clean_image(sampler, schedule, count):
    clean, noisy = normal(2, 3, 4, 4).tanh(), normal(2, 3, 4, 4, seed=1)
    for level, earlier in spaced_levels(signal_levels(schedule, 100), count):
        noise = (noisy - sqrt(level) * clean) / sqrt(1 - level)
        found = clean_from(noisy, sqrt(level) * noise - sqrt(1 - level) * clean, level)
        torch.testing.assert_close(found, clean)
        noisy = SAMPLERS[sampler](noisy, found, level, earlier, normal(2, 3, 4, 4, seed=2))
    torch.testing.assert_close(noisy, clean)


def test_ddim_keeps_to_the_line_between_clean_and_noise():
    """Its step is the forward marginal at the earlier level, of the same clean image and the same noise."""
    levels = signal_levels("linear", 100)
    clean, noise = normal(2, 3, 4, 4).tanh(), normal(2, 3, 4, 4, seed=1)
    far, near = (noised(clean, noise, levels[step].expand(2)) for step in (90, 40))
    steps = [ddim(far, clean, levels[90].item(), levels[40].item(), normal(4, seed=s)) for s in (2, 3)]
    torch.testing.assert_close(steps[0], near)
    assert torch.equal(*steps)  # no chance in it


def test_noise_and_clean_image_follow_from_the_velocity():
    level = signal_levels("cosine", 100)[[1, 50, 100]]
    clean, noise = normal(3, 1, 4, 4).tanh(), normal(3, 1, 4, 4, seed=1)
    noisy, (signal, spread) = noised(clean, noise, level), (level.sqrt(), (1 - level).sqrt())
    velocity = signal[:, None, None, None] * noise - spread[:, None, None, None] * clean
    torch.testing.assert_close(noise_from(noisy, velocity, level), noise)
    for index in range(3):
        found = clean_from(noisy[index], velocity[index], level[index].item())
        torch.testing.assert_close(found, clean[index])


def test_the_clean_image_is_clipped():
    noisy, velocity = torch.tensor([-9.0, 0.1, 9.0]), torch.zeros(3)
    assert clean_from(noisy, velocity, 0.25).tolist() == pytest.approx([-1, 0.05, 1])


@given(st.sampled_from(sorted(SCHEDULES)), st.integers(25, 200), st.data())
def test_spaced_steps_join_up_from_noise_to_clean(schedule, steps, data):
    levels = signal_levels(schedule, steps)
    count = data.draw(st.integers(1, steps))
    way = spaced_levels(levels, count)
    assert len(way) == count
    assert way[0][0] == levels[-1].item()
    assert way[-1][1] == 1
    assert all(level < earlier for level, earlier in way)
    assert [earlier for _, earlier in way[:-1]] == [level for level, _ in way[1:]]
    assert {level for level, _ in way} <= set(levels.tolist())


def test_drawn_levels_are_even_in_steps_and_lie_between_them():
    levels = signal_levels("cosine", 4)
    torch.manual_seed(0)
    drawn = draw_levels(levels, 40_000)
    counts = torch.histc(drawn[drawn <= levels[3]], 10, 0, levels[3].item())
    assert counts.min() > 850  # each a tenth of a quarter, even within
    assert counts.max() < 1150
    for earlier, level in pairwise(levels):
        assert ((drawn > level) & (drawn <= earlier)).double().mean().item() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: signal_levels("linear", 20), r"above 20 .* Found `steps = 20`"),
        (lambda: spaced_levels(signal_levels("cosine", 10), 11), r"from 1 to the 10 steps .* = 11`"),
    ],
)
def test_what_cannot_be_done_is_said(call, match):
    with pytest.raises(ConfigError, match=match):
        call()
