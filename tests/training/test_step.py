"""One training step: shortcuts for speed give the same gradients as the direct computation."""

import copy
from dataclasses import replace

import pytest
import torch

from knowhue.data.loaders import ProcessShare, TrainingBatches
from knowhue.models.multitask import build_discriminator, build_model
from knowhue.objectives.losses import GAN_LOSSES, chroma_l1, cross_entropy
from knowhue.presets import edit
from knowhue.training.phases import Networks, TrainState
from knowhue.training.step import discriminator_step, train_step

NAMES = {
    ("colour",): {"l1", "generator", "discriminator", "discriminator_real", "discriminator_fake"},
    ("class",): {"cross_entropy"},
}


@pytest.fixture
def setting(tiny, make_work):
    """Model and discriminator that have learnt a little, plain SGD, and a batch with an unlabelled image."""

    def make(rate=0.0, **changes):
        config = tiny(encoder={"name": "tf_efficientnet_lite0"}, **changes)
        work = make_work(config, unlabelled=3)
        model, discriminator = build_model(config, 2).eval(), build_discriminator(config)
        if model.colour is not None:
            torch.manual_seed(0)
            torch.nn.init.normal_(model.colour.out.weight, std=0.05)
        discriminator_optimizer = None
        if discriminator is not None:
            discriminator.eval()  # so that spectral normalisation makes no power iteration
            discriminator_optimizer = torch.optim.SGD(discriminator.parameters(), rate)
        optimizer = torch.optim.SGD(model.parameters(), rate)
        state = TrainState(
            work.engine,
            config,
            "finetune",
            Networks(model, discriminator),
            model,
            optimizer,
            discriminator,
            discriminator_optimizer,
        )
        batch, _ = next(
            iter(TrainingBatches(work.prepared, 12, 0, 0, 0, ProcessShare(), torch.device("cpu")))
        )
        return state, batch

    return make


def plain_gradients(state, batch):
    """The direct computation: one forward pass of the discriminator for its own loss and one for the generator's."""
    config = state.config
    model, discriminator = copy.deepcopy(state.model), copy.deepcopy(state.discriminator)
    loss = GAN_LOSSES[config.colour.gan_loss]
    prediction = model(batch.lightness)
    generator = loss.generator(discriminator(batch.lightness, prediction.chroma))
    colour = config.colour.l1_weight * chroma_l1(prediction.chroma, batch.chroma)
    total = config.tasks.weights.colour * (colour + config.colour.adversarial_weight * generator)
    if prediction.logits is not None:
        total = total + config.tasks.weights.class_ * cross_entropy(
            prediction.logits, batch.label, batch.label_weight, 0.0
        )
    total.backward()
    real = loss.real(discriminator(batch.lightness, batch.chroma))
    fake = loss.fake(discriminator(batch.lightness, prediction.chroma.detach()))
    discriminator.zero_grad()
    ((real + fake) / 2).backward()
    return gradients(model), gradients(discriminator)


def gradients(module):
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("gan_loss", GAN_LOSSES)
@pytest.mark.parametrize("tasks", [("colour",), ("colour", "class")])
def test_one_shared_pass_gives_the_gradients_of_two(setting, gan_loss, tasks):
    state, batch = setting(tasks__names=tasks, colour__gan_loss=gan_loss, colour__adversarial_weight=20.0)
    expected = plain_gradients(state, batch)
    train_step(state, batch)
    for got, want in zip((gradients(state.model), gradients(state.discriminator)), expected, strict=True):
        assert got.keys() == want.keys()
        largest = max(gradient.abs().max().item() for gradient in want.values())
        for name in want:
            torch.testing.assert_close(got[name], want[name], rtol=1e-4, atol=1e-6 * largest, msg=name)


def test_adversary_does_reach_the_model(setting):
    state, batch = setting(tasks__names=("colour",))
    train_step(state, batch)
    before = gradients(state.model)["colour.out.weight"].clone()
    louder = edit(state.config, {"colour": {"adversarial_weight": 50.0}})
    train_step(replace(state, config=louder), batch)
    assert not torch.allclose(gradients(state.model)["colour.out.weight"], before, rtol=1e-3)


def test_both_answer_what_the_other_was_before(setting):
    moving, still = setting(rate=0.5), setting(rate=0.0)
    steps = [train_step(state, batch) for state, batch in (moving, still)]
    assert {k: v.item() for k, v in steps[0].items()} == {k: v.item() for k, v in steps[1].items()}
    first, second = (gradients(case[0].model) for case in (moving, still))
    assert all(torch.equal(first[name], second[name]) for name in second)


def test_discriminator_step_leaves_no_gradient_in_the_model(setting):
    state, batch = setting(tasks__names=("colour",))
    chroma = state.model(batch.lightness).chroma
    direction = discriminator_step(state, batch, chroma, {})
    assert direction.shape == chroma.shape
    assert not direction.requires_grad
    assert gradients(state.model) == {}


@pytest.mark.parametrize("tasks", [("colour",), ("class",), ("colour", "class")])
def test_losses_are_those_of_the_tasks(setting, tasks):
    state, batch = setting(tasks__names=tasks)
    losses = train_step(state, batch)
    assert set(losses) == set().union(*(NAMES[(task,)] for task in tasks))
    assert all(value.ndim == 0 and value.isfinite() for value in losses.values())


def test_without_an_adversary_there_is_plain_regression(setting):
    state, batch = setting(tasks__names=("colour",), colour__adversarial_weight=0)
    assert state.discriminator is None
    assert set(train_step(state, batch)) == {"l1"}


def test_head_gradients_do_not_mix(setting):
    both, alone = setting(), setting(tasks__names=("class",))
    for state, batch in (both, alone):
        state.model.encoder.requires_grad_(False)
        train_step(state, batch)
    first, second = (gradients(case[0].model)["classifier.linear.weight"] for case in (both, alone))
    assert torch.equal(first, second)


def test_batch_without_any_label_trains_colour_only(setting):
    state, batch = setting()
    blank = batch._replace(label=torch.full_like(batch.label, -1), label_weight=torch.zeros(len(batch.label)))
    losses = train_step(state, blank)
    assert losses["cross_entropy"].item() == 0
    assert not gradients(state.model)["classifier.linear.weight"].any()
    assert gradients(state.model)["colour.out.weight"].any()
