"""Gaussian diffusion on its cumulative signal levels: schedules, noising, and two samplers.

Pure functions. A level is the share of the signal's variance that is left, "alpha bar" in Ho, Jain and Abbeel (NeurIPS
2020) and gamma in Palette: 1 is the clean image, 0 is noise. A level, not the number of a step, is all that a step
needs to know, so sampling may leave steps out.
"""

from collections.abc import Callable
from itertools import pairwise
from math import pi, sqrt

import torch
from torch import Tensor

from knowhue.errors import ConfigError

# Nichol and Dhariwal: without it the first steps' noise is too faint to be predicted
COSINE_OFFSET = 0.008
# and without this the last step has no signal left to come back from
LARGEST_BETA = 0.999
LINEAR_FIRST, LINEAR_LAST, LINEAR_STEPS = 1e-4, 0.02, 1000

SamplerStep = Callable[[Tensor, Tensor, float, float, Tensor], Tensor]
"""(noisy, clean, level, earlier, fresh) to the image at the earlier level."""


def cosine_betas(steps: int) -> Tensor:
    """Nichol and Dhariwal (ICML 2021, section 3.2): alpha bar falls as a squared cosine, s = 0.008, beta <= 0.999.

    Returns:
        How much of the variance each step turns into noise, (steps,) float64.
    """
    share = torch.arange(steps + 1, dtype=torch.float64) / steps
    level = torch.cos((share + COSINE_OFFSET) / (1 + COSINE_OFFSET) * pi / 2).square()
    return (1 - level[1:] / level[:-1]).clamp(max=LARGEST_BETA)


def linear_betas(steps: int) -> Tensor:
    """Ho et al. (2020): from 1e-4 to 0.02 in 1000 steps; with others, both times 1000 / steps.

    Returns:
        As `cosine_betas`.

    Raises:
        ConfigError: so few steps that one would destroy all signal and more.
    """
    scale = LINEAR_STEPS / steps
    if scale * LINEAR_LAST >= 1:
        raise ConfigError(
            f"`steps` should be above {LINEAR_STEPS * LINEAR_LAST:.0f} for the linear schedule. "
            f"Found `steps = {steps}`. Take more steps, or the cosine schedule."
        )
    return torch.linspace(scale * LINEAR_FIRST, scale * LINEAR_LAST, steps, dtype=torch.float64)


SCHEDULES: dict[str, Callable[[int], Tensor]] = {"cosine": cosine_betas, "linear": linear_betas}


def signal_levels(schedule: str, steps: int) -> Tensor:
    """The levels after 0, 1, ... `steps` steps: (steps + 1,) float64, falling from exactly 1 to about 0.

    Raises:
        ConfigError: unknown schedule, or too few steps.

    >>> signal_levels("cosine", 4).round(decimals=3).tolist()
    [1.0, 0.847, 0.494, 0.144, 0.0]
    """
    if schedule not in SCHEDULES:
        raise ConfigError(f"`schedule` should be one of {', '.join(SCHEDULES)}. Found `{schedule}`.")
    if steps < 1:
        raise ConfigError(f"`steps` should be at least 1. Found `steps = {steps}`.")
    kept = 1 - SCHEDULES[schedule](steps)
    return torch.cat((kept.new_ones(1), kept.cumprod(0)))


def spaced_levels(levels: Tensor, count: int) -> list[tuple[float, float]]:
    """The (level, earlier level) of `count` evenly spaced steps from the noisiest level to the clean image.

    Raises:
        ConfigError: `count` is not from 1 to the number of steps.

    >>> spaced_levels(torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]), 2)
    [(0.0, 0.5), (0.5, 1.0)]
    """
    steps = len(levels) - 1
    if not 1 <= count <= steps:
        raise ConfigError(
            f"`sample_steps` should be from 1 to the {steps} steps of training. Found `sample_steps = {count}`."
        )
    kept = torch.linspace(steps, 0, count + 1, dtype=torch.float64).round().long()
    return list(pairwise(levels[kept].tolist()))


def draw_levels(levels: Tensor, count: int) -> Tensor:
    """A level for each of `count` images: a step drawn evenly, then evenly between the levels at its two ends.

    Palette, section 3, after WaveGrad (Chen et al. 2021). Draws from torch's global generator.

    Returns:
        (count,), of the levels' type.
    """
    step = torch.randint(1, len(levels), (count,), device=levels.device)
    return torch.lerp(levels[step - 1], levels[step], torch.rand(count, device=levels.device).to(levels))


def noised(clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """sqrt(level) clean + sqrt(1 - level) noise: what the forward process makes of an image (Ho et al., equation 4).

    Args:
        clean: (B, C, H, W), -1 to 1.
        noise: the same shape, standard normal.
        level: (B,), 0 to 1.
    """
    level = level[:, None, None, None]
    return level.sqrt() * clean + (1 - level).sqrt() * noise


def noise_from(noisy: Tensor, velocity: Tensor, level: Tensor) -> Tensor:
    """The noise in `noisy`, of a network that says v = sqrt(level) noise - sqrt(1 - level) clean.

    With v (Salimans and Ho, ICLR 2022) no error is blown up by 1 / sqrt(level) on the way to the clean image.

    Args:
        noisy: (B, C, H, W), see `noised`.
        velocity: v, the same shape.
        level: (B,).
    """
    level = level[:, None, None, None]
    return (1 - level).sqrt() * noisy + level.sqrt() * velocity


def clean_from(noisy: Tensor, velocity: Tensor, level: float) -> Tensor:
    """The clean image in `noisy` by the same v, clipped to -1..1."""
    return (sqrt(level) * noisy - sqrt(1 - level) * velocity).clamp(-1, 1)


def ancestral(noisy: Tensor, clean: Tensor, level: float, earlier: float, fresh: Tensor) -> Tensor:
    """A draw from the posterior q(earlier | noisy, clean) of Ho et al. (2020), equations 6 and 7.

    Between levels that are not neighbours it is the posterior of a process with only those steps.

    Args:
        noisy: (B, C, H, W) at `level`.
        clean: what the model takes the clean image to be, -1 to 1.
        level: where `noisy` is, under 1.
        earlier: where to go, above `level`; at 1 the answer is `clean`.
        fresh: standard normal, broadcast against `noisy`.
    """
    kept = level / earlier
    of_clean = sqrt(earlier) * (1 - kept) / (1 - level)
    of_noisy = sqrt(kept) * (1 - earlier) / (1 - level)
    deviation = sqrt((1 - kept) * (1 - earlier) / (1 - level))
    return of_clean * clean + of_noisy * noisy + deviation * fresh


def ddim(noisy: Tensor, clean: Tensor, level: float, earlier: float, fresh: Tensor) -> Tensor:
    """The deterministic step (eta = 0) of Song, Meng and Ermon (ICLR 2021), equation 12; arguments as `ancestral`.

    `fresh` is not used.
    """
    # taken so that all samplers are called alike
    del fresh
    # of the clipped `clean`, so that image and noise always fit; the paper does not clip
    noise = (noisy - sqrt(level) * clean) / sqrt(1 - level)
    return sqrt(earlier) * clean + sqrt(1 - earlier) * noise


SAMPLERS: dict[str, SamplerStep] = {"ddim": ddim, "ancestral": ancestral}
