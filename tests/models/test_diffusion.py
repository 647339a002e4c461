"""Diffusion: the formulas of the papers, the chain against its marginals, the posterior against brute force."""

from itertools import pairwise
from math import cos, pi, prod, sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from knowhue.errors import ConfigError
from knowhue.models.palette import (
    SAMPLERS,
    SCHEDULES,
    ancestral,
    clean_from,
    ddim,
    draw_levels,
    noise_from,
    noised,
    signal_levels,
    spaced_levels,
)


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
        (lambda: signal_levels("sigmoid", 10), r"one of cosine, linear\. Found `sigmoid`"),
        (lambda: signal_levels("cosine", 0), r"at least 1\. Found `steps = 0`"),
        (lambda: signal_levels("linear", 20), r"above 20 .* Found `steps = 20`"),
        (lambda: spaced_levels(signal_levels("cosine", 10), 11), r"from 1 to the 10 steps .* = 11`"),
        (lambda: spaced_levels(signal_levels("cosine", 10), 0), r"Found `sample_steps = 0`"),
    ],
)
def test_what_cannot_be_done_is_said(call, match):
    with pytest.raises(ConfigError, match=match):
        call()
