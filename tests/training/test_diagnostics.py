"""Diagnostics: known gradients give known numbers, and measuring does not change training."""

import math
from functools import partial

import pytest
import torch

from knowhue.objectives.losses import PIXEL_LOSSES, chroma_l1, cross_entropy
from knowhue.storage import read_json
from knowhue.training.diagnostics import diagnose, measure_shares
from knowhue.training.loop import training_batches
from knowhue.training.phases import make_train_state
from knowhue.training.run import make_networks, run_arm

SEVERAL = {"evaluation__gradient_batches": 4}


@pytest.fixture
def tiny(tiny):
    """Several steps in an epoch."""
    return partial(tiny, training__batch_size=4)


@pytest.fixture
def setting(tiny, make_work):
    """A state of fine-tuning whose colour head has learnt a little, and batches."""

    def make(batch_size=12, unlabelled=3, **changes):
        config = tiny(training__batch_size=batch_size, **SEVERAL, **changes)
        work = make_work(config, unlabelled=unlabelled)
        networks = make_networks(work, config)
        torch.manual_seed(0)
        torch.nn.init.normal_(networks.model.colour.out.weight, std=0.05)
        batches = [batch for batch, _ in training_batches(work, config, "heads", 0)]
        return make_train_state(work.engine, networks, config, "finetune"), batches

    return make


def tensors(*modules):
    return [value.clone() for module in modules for value in module.state_dict().values()]


def test_looking_changes_nothing(setting):
    state, (batch,) = setting()
    model, discriminator = state.networks.model, state.networks.discriminator
    before, mode = tensors(model, discriminator), discriminator.training
    diagnose(state, batch)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(model, discriminator), strict=True))
    assert all(p.grad is None for p in (*model.parameters(), *discriminator.parameters()))
    assert discriminator.training == mode


def test_cosine_and_norms_are_those_of_plain_gradients(setting):
    state, (batch,) = setting()
    model = state.networks.model
    found = diagnose(state, batch)
    pyramid = model.features(batch.lightness)
    prediction = model(batch.lightness, pyramid)
    entropy = cross_entropy(prediction.logits, batch.label, batch.label_weight, 0.0)
    class_ = torch.autograd.grad(10 * entropy, pyramid[-1], retain_graph=True)[0].flatten()
    l1 = torch.autograd.grad(100 * chroma_l1(prediction.chroma, batch.chroma), pyramid[-1])[0].flatten()
    assert found["norm_class"] == pytest.approx(class_.norm().item(), rel=1e-4)
    assert found["norm_pixel"] == pytest.approx(l1.norm().item(), rel=1e-4)
    cosine = (class_ @ l1 / (class_.norm() * l1.norm())).item()
    assert found["cosine_pixel"] == pytest.approx(cosine, abs=1e-4)
    assert abs(found["cosine_colour"]) <= 1


def test_affinity_is_the_other_loss_after_the_step(setting):
    """The class task's affinity to itself would be positive: a small step along its gradient lowers its loss."""
    state, (batch,) = setting(training__finetune__encoder_learning_rate=1e-5)
    model, discriminator = state.networks.model, state.networks.discriminator
    found = diagnose(state, batch)
    pyramid = model.features(batch.lightness)
    entropy = cross_entropy(model(batch.lightness, pyramid).logits, batch.label, batch.label_weight, 0.0)
    shared = list(model.encoder.parameters())
    gradients = torch.autograd.grad(entropy, shared, allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(shared, gradients, strict=True):
            if gradient is not None:
                parameter.sub_(1e-5 * gradient.sign())
        moved = model(batch.lightness)
        colour = 100 * chroma_l1(moved.chroma, batch.chroma)
        after = colour + (discriminator.eval()(batch.lightness, moved.chroma) - 1).square().mean()
    assert found["affinity_class_to_colour"] == pytest.approx(
        1 - after.item() / loss_before(setting), abs=1e-5
    )


def loss_before(setting):
    state, (batch,) = setting(training__finetune__encoder_learning_rate=1e-5)
    model, discriminator = state.networks.model, state.networks.discriminator.eval()
    chroma = model(batch.lightness).chroma
    colour = state.config.colour.l1_weight * chroma_l1(chroma, batch.chroma)
    return (colour + (discriminator(batch.lightness, chroma) - 1).square().mean()).item()


def test_plain_regression_has_no_adversarial_row(setting):
    state, (batch,) = setting(colour__adversarial_weight=0)
    found = diagnose(state, batch)
    assert "cosine_adversarial" not in found
    assert found["cosine_colour"] == pytest.approx(found["cosine_pixel"])


@pytest.mark.parametrize("loss", [*PIXEL_LOSSES, "classification"])
def test_every_loss_of_the_colour_head_is_diagnosed(setting, loss):
    state, (batch,) = setting(colour__method="feedforward", colour__loss=loss)
    model = state.networks.model
    found = diagnose(state, batch)
    pyramid = model.features(batch.lightness)
    prediction = model(batch.lightness, pyramid, batch.chroma)
    if loss in PIXEL_LOSSES:
        colour = 100 * PIXEL_LOSSES[loss](prediction.chroma, batch.chroma)
    else:
        colour = prediction.colour_loss
    gradient = torch.autograd.grad(colour, pyramid[-1], retain_graph=True)[0].flatten()
    entropy = cross_entropy(prediction.logits, batch.label, batch.label_weight, 0.0)
    class_ = torch.autograd.grad(entropy, pyramid[-1])[0].flatten()
    assert found["norm_pixel"] == pytest.approx(gradient.norm().item(), rel=1e-4) != 0
    cosine = torch.nn.functional.cosine_similarity(gradient, class_, 0, 1e-30)
    assert found["cosine_pixel"] == found["cosine_colour"] == pytest.approx(cosine.item(), abs=1e-4)
    assert all(math.isfinite(found[f"affinity_{pair}"]) for pair in ("class_to_colour", "colour_to_class"))


@pytest.mark.parametrize("loss", ["l1", "classification"])
def test_diagnosed_run_ends_with_the_same_weights(tiny, make_work, loss):
    weights = {}
    for every in (0, 1):
        method = "unet" if loss == "l1" else "feedforward"
        config = tiny(evaluation__diagnose_every_steps=every, colour={"method": method, "loss": loss})
        folder = run_arm(make_work(config, f"every-{every}"), config, "multi")
        weights[every] = (folder / "model.safetensors").read_bytes()
        log = (folder / "log.jsonl").read_text()
        assert ("cosine_pixel" in log) == bool(every)
    assert weights[0] == weights[1]


SHORT = {
    "training__heads__epochs": 1,
    "training__finetune__epochs": 2,
    "evaluation__networks": (),
    "evaluation__perceptual": (),
    "evaluation__diagnose_every_steps": 0,
}


def norm(loss, model):
    found = torch.autograd.grad(loss, list(model.encoder.parameters()), allow_unused=True)
    return torch.cat([each.flatten() for each in found if each is not None]).norm().item()


def test_norms_are_those_of_plain_gradients_at_all_parameters_of_the_encoder(setting):
    state, batches = setting(4, 0, colour__adversarial_weight=7.0)
    model, discriminator = state.networks.model, state.networks.discriminator
    found = measure_shares(state, batches[:2])
    model.eval()
    discriminator.eval()
    expected = {"class": 0.0, "pixel": 0.0, "adversarial": 0.0}
    for batch in batches[:2]:
        entropy = cross_entropy(model(batch.lightness).logits, batch.label, batch.label_weight, 0.0)
        expected["class"] += norm(10 * entropy, model) / 2
        expected["pixel"] += norm(100 * chroma_l1(model(batch.lightness).chroma, batch.chroma), model) / 2
        score = discriminator(batch.lightness, model(batch.lightness).chroma)
        expected["adversarial"] += norm(7 * (score - 1).square().mean(), model) / 2
    assert found["norms"] == pytest.approx(expected, rel=1e-4)
    assert sum(found["shares"].values()) == pytest.approx(1)
    assert found["shares"]["class"] == pytest.approx(expected["class"] / sum(expected.values()), rel=1e-4)


def test_measuring_shares_changes_nothing(setting):
    state, batches = setting(4, 0)
    model, discriminator = state.networks.model, state.networks.discriminator
    before = tensors(model, discriminator)
    modes = [module.training for m in (model, discriminator) for module in m.modules()]
    drawn = torch.random.get_rng_state()
    measure_shares(state, batches)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(model, discriminator), strict=True))
    assert [module.training for m in (model, discriminator) for module in m.modules()] == modes
    assert all(p.grad is None for m in (model, discriminator) for p in m.parameters())
    assert torch.equal(torch.random.get_rng_state(), drawn)


def test_measured_run_ends_with_the_same_weights(tiny, make_work):
    weights = {}
    for batches in (0, 2):
        config = tiny(**SHORT, evaluation__gradient_batches=batches)
        folder = run_arm(make_work(config, f"batches-{batches}"), config, "multi")
        weights[batches] = (folder / "model.safetensors").read_bytes()
        assert (folder / "gradient_shares.json").exists() == bool(batches)
    assert weights[0] == weights[2]
    found = read_json(folder / "gradient_shares.json")
    assert [set(found[moment]["norms"]) for moment in ("fork", "end")] == [
        {"class", "pixel", "adversarial"}
    ] * 2
    assert found["fork"]["norms"] != found["end"]["norms"]


class Interrupted(Exception):
    """Simulates a power cut."""


def test_a_resumed_run_measured_what_an_uninterrupted_one_did(tiny, make_work):
    config = tiny(tasks__names=("colour",), **SHORT, **SEVERAL)
    whole = run_arm(make_work(config, "whole"), config, "colour")
    seen = []

    def cut(event):
        seen.append(event["stage"])
        if seen.count("train") > 3 + 3 + 1:  # in the second epoch of fine-tuning
            raise Interrupted

    with pytest.raises(Interrupted):
        run_arm(make_work(config, "cut", cut), config, "colour")
    resumed = run_arm(make_work(config, "cut"), config, "colour")
    found, expected = (read_json(folder / "gradient_shares.json") for folder in (resumed, whole))
    assert found == expected
    assert set(found) == {"fork", "end"}


@pytest.mark.parametrize(
    ("changes", "losses"),
    [
        ({"tasks__names": ("class",)}, {"class"}),
        (
            {"tasks__names": ("colour",), "colour__method": "feedforward", "colour__loss": "classification"},
            {"pixel"},
        ),
    ],
)
def test_every_arm_that_trains_the_encoder_is_measured(tiny, make_work, changes, losses):
    config = tiny(**SHORT | {"training__finetune__epochs": 1}, **SEVERAL, **changes)
    folder = run_arm(make_work(config), config, "arm")
    found = read_json(folder / "gradient_shares.json")
    assert [set(found[moment]["norms"]) for moment in ("fork", "end")] == [losses] * 2


def test_an_encoder_that_rests_is_not_measured(tiny, make_work):
    config = tiny(
        tasks__names=("class",), **SHORT | {"training__finetune": {"epochs": 1, "encoder_learning_rate": 0.0}}
    )
    assert not (run_arm(make_work(config), config, "class") / "gradient_shares.json").exists()
