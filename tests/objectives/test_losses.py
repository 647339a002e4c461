"""Losses agree with golden values, torch's own losses and the formulas of the papers."""

import pytest
import torch
from torch.nn import functional as F

from knowhue.objectives.losses import (
    GAN_LOSSES,
    chroma_l1,
    cross_entropy,
    patch_accuracy,
    surrogate_loss,
)


@pytest.fixture
def scores():
    return 3 * torch.randn(4, 1, 5, 5, generator=torch.Generator().manual_seed(0))


def test_chroma_error_is_on_the_scale_of_pix2pix():
    assert chroma_l1(torch.full((1, 2, 3, 3), 55.0), torch.full((1, 2, 3, 3), -55.0)).item() == 1.0
    assert chroma_l1(torch.ones(1, 2, 3, 3), torch.ones(1, 2, 3, 3)).item() == 0.0


REFERENCE = {
    "bce": (
        lambda s: F.binary_cross_entropy_with_logits(s, torch.ones_like(s)),
        lambda s: F.binary_cross_entropy_with_logits(s, torch.zeros_like(s)),
        lambda s: F.binary_cross_entropy_with_logits(s, torch.ones_like(s)),
    ),
    "lsgan": (
        lambda s: F.mse_loss(s, torch.ones_like(s)),
        lambda s: F.mse_loss(s, torch.zeros_like(s)),
        lambda s: F.mse_loss(s, torch.ones_like(s)),
    ),
    "hinge": (
        lambda s: -torch.minimum(s - 1, torch.zeros_like(s)).mean(),
        lambda s: -torch.minimum(-s - 1, torch.zeros_like(s)).mean(),
        lambda s: -s.mean(),
    ),
}


@pytest.mark.parametrize("name", GAN_LOSSES)
def test_adversarial_losses_are_their_formulas(name, scores):
    loss = GAN_LOSSES[name]
    for ours, theirs in zip((loss.real, loss.fake, loss.generator), REFERENCE[name], strict=True):
        torch.testing.assert_close(ours(scores), theirs(scores))


@pytest.mark.parametrize(
    ("name", "golden"),
    [("bce", (0.3132617, 1.3132617, 0.3132617)), ("lsgan", (0.0, 1.0, 0.0)), ("hinge", (0.0, 2.0, -1.0))],
)
def test_adversarial_losses_of_a_score_of_one(name, golden):
    loss = GAN_LOSSES[name]
    one = torch.ones(2, 1, 2, 2)
    assert [f(one).item() for f in (loss.real, loss.fake, loss.generator)] == pytest.approx(golden)


@pytest.mark.parametrize("name", GAN_LOSSES)
def test_generator_wants_high_scores_and_discriminator_the_opposite(name, scores):
    loss = GAN_LOSSES[name]
    low = torch.full((1, 1, 1, 1), loss.threshold - 0.5)
    high = low + 0.8
    assert loss.generator(high) < loss.generator(low)
    assert loss.real(high) < loss.real(low)
    assert loss.fake(high) > loss.fake(low)
    assert loss.generator(scores * 1e4).isfinite()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs_mean_over_the_labelled(smoothing):
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([0, -1, 2, 1, -1, 2])
    weight = (label >= 0) * 6 / 4
    theirs = F.cross_entropy(logits, label, ignore_index=-1, label_smoothing=smoothing)
    torch.testing.assert_close(cross_entropy(logits, label, weight, smoothing), theirs)


def test_unlabelled_images_get_no_gradient():
    logits = torch.zeros(3, 2, requires_grad=True)
    label = torch.tensor([-1, 1, -1])
    cross_entropy(logits, label, (label >= 0) * 3.0, 0.0).backward()
    assert logits.grad[[0, 2]].tolist() == [[0, 0], [0, 0]]
    assert logits.grad[1].tolist() == [0.5, -0.5]


def test_cross_entropy_of_indifference_is_log_of_the_classes():
    label = torch.tensor([0, 3])
    assert cross_entropy(torch.zeros(2, 5), label, torch.ones(2), 0.0).item() == pytest.approx(1.6094379)


def test_the_surrogate_loss_has_the_value_and_the_gradient():
    chroma = torch.randn(2, 2, 3, 3, requires_grad=True)
    gradient = torch.randn(2, 2, 3, 3, requires_grad=True)
    loss = surrogate_loss(chroma, gradient, torch.tensor(0.75))
    loss.backward()
    assert loss.item() == pytest.approx(0.75)
    assert torch.equal(chroma.grad, gradient)
    assert gradient.grad is None


def test_shares_judged_right():
    real, fake = torch.tensor([0.9, 0.4, 0.6, 0.7]), torch.tensor([0.1, 0.9, 0.8, 0.2])
    assert [share.item() for share in patch_accuracy(real, fake, 0.5)] == [0.75, 0.5]
