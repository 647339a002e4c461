"""Palette: colours drawn from a conditional diffusion, in RGB as published or in a*b*."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from knowhue.color import lab_to_rgb, rgb_to_lab, scale_chroma
from knowhue.errors import ConfigError
from knowhue.models.denoiser import Denoiser
from knowhue.models.diffusion import (
    SAMPLERS,
    clean_from,
    draw_levels,
    noise_from,
    noised,
    signal_levels,
    spaced,
)
from knowhue.tensors import Chroma, Lightness, Pyramid

CHANNELS = {"rgb": 3, "ab": 2}


class Palette(nn.Module):
    """Colourisation by conditional diffusion: Saharia et al., "Palette" (SIGGRAPH 2022, arXiv:2111.05826).

    A U-Net sees the gray image and a noisy coloured one, is told how noisy, and says what the noise is; it
    is trained on the mean square error of that (the paper's L2, for which its samples vary more than for L1).
    Prediction starts from noise and takes it away step by step: other noise, other colours.

    `space="rgb"` is the paper's: the whole image, sRGB scaled to -1..1, is drawn, its a*b* is the answer, and its
    lightness is dropped, since the caller joins the true one. `space="ab"` draws a*b*/110 alone; it is ours, so
    that colour spaces can be compared at the same method.

    Where it differs from the paper:

    - What the network says is taken as v of Salimans and Ho (ICLR 2022), from which the noise follows exactly; the
      loss is still the paper's, on the noise. Taken as the noise itself, an error in the first steps is divided
      by sqrt(level), here under 1/10 000: after 600 steps of training at 32 pixels, at the same loss, DDIM's a*b*
      were wrong by 62 CIELAB units and speckled, with v by 24 and smooth.
    - The network's size, see `Denoiser`.
    - The gray image is one channel of L*/50 - 1.
    - The schedule is the cosine one, or Ho et al.'s linear one. The paper's are linear, from 1e-6 to 0.01 in 2000
      steps for training, and tuned again in 1000 steps for prediction.
    - Sampling takes a spaced subset of the training steps, by DDIM or by the posterior of Ho et al. with its
      own variance; the paper's takes 1000 ancestral steps of the variance of the forward process. The clean image
      is clipped to -1..1 at each step.
    - The moving average of the weights, which predicts, forgets by `average_decay`, 0.995 unless said otherwise, and
      faster in the first steps, by (1 + n) / (10 + n): the paper's 0.9999 is for half a million steps.

    All that is not the network is float32, whatever arithmetic the network runs in. In training, noise and levels
    come from torch's global generator; in prediction from one of a fixed seed, the same for each image of a batch,
    so that an image's colours do not hang on its batch. They do hang on its size, for which the noise is drawn.
    Prediction costs `sample_steps` passes of the network and lets no gradient past.

    `taps` and `stride` are what the model asks of a head: it reads the one map of an empty encoder, (gray,) with
    gray = L*/50 - 1, and the sides of that map should be whole multiples of `stride`.

    >>> palette = Palette(width=8, multipliers=(1, 2), sample_steps=2)
    >>> palette((torch.zeros(3, 1, 8, 12),)).shape
    torch.Size([3, 2, 8, 12])
    """

    def __init__(
        self,
        space: Literal["rgb", "ab"] = "rgb",
        width: int = 32,
        multipliers: tuple[int, ...] = (1, 2, 2),
        blocks: int = 1,
        attentive: int = 1,
        schedule: str = "cosine",
        steps: int = 1000,
        sampler: Literal["ddim", "ancestral"] = "ddim",
        sample_steps: int = 20,
        average_decay: float = 0.995,
        seed: int = 0,
    ) -> None:
        """Set up.

        Args:
            space: what is drawn: the whole image in RGB, or a*b* alone.
            width: channels of the denoiser at full size.
            multipliers: of `width`, one a size, from fine to coarse.
            blocks: residual blocks a size and way.
            attentive: sizes with self-attention, counted from the coarsest.
            schedule: see `diffusion.SCHEDULES`.
            steps: of the forward process.
            sampler: see `diffusion.SAMPLERS`.
            sample_steps: passes of the network a sample, at most `steps`.
            average_decay: of the moving average of the weights, 0 (the last ones) to below 1.
            seed: of the noise that prediction starts from.

        Raises:
            ConfigError: unknown space, schedule or sampler, or more sampling steps than steps.
        """
        super().__init__()
        if space not in CHANNELS:
            raise ConfigError(f"`space` should be one of {', '.join(CHANNELS)}. Found `{space}`.")
        if sampler not in SAMPLERS:
            raise ConfigError(f"`sampler` should be one of {', '.join(SAMPLERS)}. Found `{sampler}`.")
        self.taps: tuple[int, ...] = (0,)
        self.space, self.seed = space, seed
        self.channels = CHANNELS[space]
        self.denoiser = Denoiser(1 + self.channels, self.channels, width, multipliers, blocks, attentive)
        self.average = AveragedModel(self.denoiser, multi_avg_fn=partial(_drift, decay=average_decay))
        self.average.requires_grad_(False)
        self.stride = self.denoiser.stride
        levels = signal_levels(schedule, steps)
        self.way_back, self.step = spaced(levels, sample_steps), SAMPLERS[sampler]
        self.levels: Tensor
        self.register_buffer("levels", levels.float(), persistent=False)

    def loss(self, pyramid: Pyramid, lightness: Lightness, chroma: Chroma) -> Tensor:
        """Mean square error of the predicted noise, at a level and with noise drawn for each image.

        Args:
            pyramid: (gray,), (B, 1, H, W), -1 to 1.
            lightness: true L* (B, 1, h, w), h and w up to H and W; its edges repeat to H and W.
            chroma: true a*b* (B, 2, h, w).

        Returns:
            A scalar; an untrained network's is about 0.4, a perfect one's above 0.
        """
        if self.training:
            self.average.update_parameters(self.denoiser)
        (gray,) = pyramid
        clean = self._target(lightness, chroma)
        bottom, right = (whole - part for whole, part in zip(gray.shape[-2:], clean.shape[-2:], strict=True))
        clean = F.pad(clean, (0, right, 0, bottom), mode="replicate")
        level, noise = draw_levels(self.levels, len(clean)), torch.randn_like(clean)
        noisy = noised(clean, noise, level)
        return F.mse_loss(noise_from(noisy, self._velocity(noisy, gray, level), level), noise)

    def forward(self, pyramid: Pyramid) -> Tensor:
        """(gray,), (B, 1, H, W) in -1..1, to one sample of scaled a*b* (B, 2, H, W), always the same."""
        return self.samples(pyramid, 1)[0]

    @torch.no_grad()
    def samples(self, pyramid: Pyramid, count: int) -> Tensor:
        """Scaled a*b* (count, B, 2, H, W), each from noise of its own; the first is that of `forward`."""
        (gray,) = pyramid
        return torch.stack([self._sample(gray, self.seed + index) for index in range(count)])

    def _sample(self, gray: Tensor, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)

        def draw() -> Tensor:
            return torch.randn(1, self.channels, *gray.shape[-2:], generator=generator).to(gray.device)

        noisy = draw().expand(len(gray), -1, -1, -1)
        for level, earlier in self.way_back:
            velocity = self._velocity(noisy, gray, noisy.new_full((len(gray),), level))
            noisy = self.step(noisy, clean_from(noisy, velocity, level), level, earlier, draw())
        return self._scaled_chroma(noisy)

    def _velocity(self, noisy: Tensor, gray: Tensor, level: Tensor) -> Tensor:
        network = self.denoiser if self.training else self.average
        return network(torch.cat((noisy, gray.to(noisy)), 1), level).float()

    def _target(self, lightness: Lightness, chroma: Chroma) -> Tensor:
        return 2 * lab_to_rgb(lightness, chroma) - 1 if self.space == "rgb" else scale_chroma(chroma)

    def _scaled_chroma(self, image: Tensor) -> Tensor:
        return scale_chroma(rgb_to_lab((image + 1) / 2)[1]) if self.space == "rgb" else image


def _drift(
    averaged: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int, decay: float
) -> None:
    """Draw the average towards the weights, quickly at first, in place."""
    kept = min(decay, float((1 + updates) / (10 + updates)))
    for mean, value in zip(averaged, current, strict=True):
        mean.lerp_(value, 1 - kept)


def diversity(samples: Tensor) -> Tensor:
    """How far samples of the same image lie apart: sqrt(var a* + var b*) over samples, mean over pixels.

    The root of the per-pixel variance by which Deshpande et al. ("Learning Diverse Image Colorization", CVPR 2017)
    compare, so that it is in the units of colour. Palette itself reports the SSIM between pairs of samples, which
    in colourisation is mostly that of the lightness that all samples share.

    Args:
        samples: a*b* (count, B, 2, H, W), CIELAB units, count at least 2.

    Returns:
        (B,), CIELAB units, from 0 up; the variances are unbiased.

    Raises:
        ValueError: another shape, or a single sample.

    >>> diversity(torch.zeros(4, 3, 2, 8, 8)).tolist()
    [0.0, 0.0, 0.0]
    """
    if samples.ndim != 5 or samples.shape[2] != 2 or len(samples) < 2:
        raise ValueError(
            "`samples` should be (count, B, 2, H, W) with at least 2 samples. "
            f"Found `samples.shape = {tuple(samples.shape)}`. Draw more samples of each image."
        )
    return samples.float().var(0).sum(1).sqrt().mean((1, 2))
