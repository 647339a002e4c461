"""The multi-task model: its heads are independent, and building it leaves other random streams unchanged."""

import numpy as np
import pytest
import torch
from torch import nn

from knowhue.models.multitask import MultiTask, build_discriminator, build_model


def equal(first, second):
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_a_head_starts_alike_whatever_else_there_is(tiny):
    both = build_model(tiny(), 3)
    colour, label = (
        build_model(tiny(tasks__names=("colour",)), 3),
        build_model(tiny(tasks__names=("class",)), 3),
    )
    assert equal(both.colour, colour.colour)
    assert equal(both.classifier, label.classifier)
    assert equal(both.encoder, colour.encoder)
    assert equal(both.encoder, label.encoder)


def test_another_seed_starts_elsewhere(tiny):
    first, second = build_model(tiny(), 3), build_model(tiny(seed=1), 3)
    assert not equal(first.classifier, second.classifier)
    assert not equal(first.encoder, second.encoder)
    assert not equal(build_discriminator(tiny()), build_discriminator(tiny(seed=1)))


def test_building_leaves_the_global_generators_alone(tiny):
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    build_model(tiny(), 3)
    build_discriminator(tiny())
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_a_head_that_is_not_there_answers_none(tiny):
    lightness = torch.full((2, 1, 32, 32), 50.0)
    both = build_model(tiny(), 3).eval()(lightness)
    assert both.chroma.shape == (2, 2, 32, 32)
    assert both.logits.shape == (2, 3)
    assert build_model(tiny(tasks__names=("class",)), 3).eval()(lightness).chroma is None
    assert build_model(tiny(tasks__names=("colour",)), 3).eval()(lightness).logits is None


def test_gradients_of_both_tasks_lie_in_memory_as_the_shared_features_do(tiny):
    model = build_model(tiny(), 3)
    features = [each.detach().requires_grad_() for each in model.features(100 * torch.rand(2, 1, 64, 64))]
    seen = []
    for each in features:
        each.register_hook(seen.append)
    prediction = model(torch.full((2, 1, 64, 64), 50.0), features)
    (prediction.logits.sum() + prediction.chroma.sum()).backward()
    assert len(seen) == len(features)
    for gradient in seen:
        assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("decoder", ["transposed", "auto"])
def test_features_at_hand_serve_as_well(tiny, decoder):
    model = build_model(tiny(colour__decoder=decoder), 3).eval()
    torch.nn.init.normal_(model.colour.out.weight)
    lightness = 100 * torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        fresh, reused = model(lightness), model(lightness, model.features(lightness))
    assert torch.equal(fresh.chroma, reused.chroma)
    assert torch.equal(fresh.logits, reused.logits)


@pytest.mark.parametrize("change", [{"tasks__names": ("class",)}, {"colour__adversarial_weight": 0}])
def test_without_an_adversary_there_is_none(tiny, change):
    assert build_discriminator(tiny(**change)) is None


def test_saturation_scales_predictions_and_not_what_is_trained(tiny):
    plain, vivid = (
        build_model(tiny(colour__method="feedforward", colour__saturation=value), 5) for value in (1.0, 1.5)
    )
    for each in (plain, vivid):
        torch.nn.init.constant_(each.colour.out.bias, 0.1)
    seen = torch.full((2, 1, 32, 32), 50.0)
    truth = torch.zeros(2, 2, 32, 32)
    for is_training in (True, False):  # of the modules: a later epoch begins in the mode that scoring left
        plain.train(is_training), vivid.train(is_training)
        assert torch.equal(plain(seen, truth=truth).chroma, vivid(seen, truth=truth).chroma)
        answers = plain(seen).chroma, vivid(seen).chroma
        assert answers[0].abs().min() > 1
        torch.testing.assert_close(1.5 * answers[0], answers[1])


class OwnRule(nn.Module):
    """A colour head as a newcomer would write it: its maps, its padding, its loss."""

    taps, stride = (4,), 7

    def forward(self, pyramid):
        return pyramid[0].mean((1, 2, 3), keepdim=True).expand(-1, 2, 35, 35)

    def loss(self, pyramid, lightness, chroma):
        return chroma.square().mean()


def test_a_head_that_brings_its_own_padding_and_loss_is_asked_for_them(tiny):
    encoder = build_model(tiny(), 3).encoder
    model = MultiTask(encoder, OwnRule(), None)
    lightness, truth = torch.full((1, 1, 30, 33), 50.0), torch.full((1, 2, 30, 33), 3.0)
    assert model.pyramid(lightness)[0].shape[2:] == encoder(torch.zeros(1, 1, 35, 35))[0].shape[2:]
    assert model(lightness).chroma.shape == truth.shape
    trained = model(lightness, truth=truth)
    assert (trained.chroma, trained.colour_loss.item()) == (None, 9.0)
