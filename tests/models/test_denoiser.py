"""The denoiser: sizes, a zero start, hearing the noise level, seeing the whole image, one image at a time."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from knowhue.errors import ConfigError
from knowhue.models.denoiser import Attention, Denoiser


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
def test_every_parameter_gets_a_gradient(make_denoiser, attentive):
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
