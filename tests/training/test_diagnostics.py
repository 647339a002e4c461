"""Diagnostics: known gradients give known numbers, and looking changes nothing."""

import pytest
import torch

from knowhue.data.loaders import ProcessShare, TrainingBatches
from knowhue.models.multitask import build_discriminator, build_model
from knowhue.objectives.losses import chroma_l1, cross_entropy
from knowhue.training.diagnostics import diagnose
from knowhue.training.train import run_arm


@pytest.fixture
def setting(tiny, make_work):
    """A model whose colour head has learnt a little, its opponent, a batch."""

    def make(**changes):
        config = tiny(**changes)
        work = make_work(config, unlabelled=3)
        model, discriminator = build_model(config, 2), build_discriminator(config)
        torch.manual_seed(0)
        torch.nn.init.normal_(model.colour.out.weight, std=0.05)
        batch, _ = next(
            iter(TrainingBatches(work.prepared, 12, 0, 0, 0, ProcessShare(), torch.device("cpu")))
        )
        return work.engine, model, discriminator, batch, config

    return make


def state(*modules):
    return [value.clone() for module in modules for value in module.state_dict().values()]


def test_looking_changes_nothing(setting):
    engine, model, discriminator, batch, config = setting()
    before, mode = state(model, discriminator), discriminator.training
    diagnose(engine, model, discriminator, batch, config)
    assert all(torch.equal(a, b) for a, b in zip(before, state(model, discriminator), strict=True))
    assert all(p.grad is None for p in (*model.parameters(), *discriminator.parameters()))
    assert discriminator.training == mode


def test_cosine_and_norms_are_those_of_plain_gradients(setting):
    engine, model, discriminator, batch, config = setting()
    found = diagnose(engine, model, discriminator, batch, config)
    pyramid = model.features(batch.lightness)
    prediction = model(batch.lightness, pyramid)
    entropy = cross_entropy(prediction.logits, batch.label, batch.label_weight, 0.0)
    class_ = torch.autograd.grad(10 * entropy, pyramid[-1], retain_graph=True)[0].flatten()
    l1 = torch.autograd.grad(100 * chroma_l1(prediction.chroma, batch.chroma), pyramid[-1])[0].flatten()
    assert found["norm_class"] == pytest.approx(class_.norm().item(), rel=1e-4)
    assert found["norm_l1"] == pytest.approx(l1.norm().item(), rel=1e-4)
    cosine = (class_ @ l1 / (class_.norm() * l1.norm())).item()
    assert found["cosine_l1"] == pytest.approx(cosine, abs=1e-4)
    assert abs(found["cosine_colour"]) <= 1


def test_affinity_is_the_other_loss_after_the_step(setting):
    """The class task's affinity to itself would be positive: a small step along its gradient lowers its loss."""
    engine, model, discriminator, batch, config = setting(training__finetune__encoder_rate=1e-5)
    found = diagnose(engine, model, discriminator, batch, config)
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
        1 - after.item() / loss_before(setting, config), abs=1e-5
    )


def loss_before(setting, config):
    _, model, discriminator, batch, _ = setting(training__finetune__encoder_rate=1e-5)
    discriminator.eval()
    chroma = model(batch.lightness).chroma
    colour = config.colour.l1_weight * chroma_l1(chroma, batch.chroma)
    return (colour + (discriminator(batch.lightness, chroma) - 1).square().mean()).item()


def test_plain_regression_has_no_adversarial_row(setting):
    engine, model, _, batch, config = setting(colour__adversarial_weight=0)
    found = diagnose(engine, model, None, batch, config)
    assert "cosine_adversarial" not in found
    assert found["cosine_colour"] == pytest.approx(found["cosine_l1"])


def test_diagnosed_run_ends_with_the_same_weights(tiny, make_work):
    weights = {}
    for every in (0, 1):
        config = tiny(evaluation__diagnose_every_steps=every)
        folder = run_arm(make_work(config, f"every-{every}"), config, "multi")
        weights[every] = (folder / "model.safetensors").read_bytes()
        log = (folder / "log.jsonl").read_text()
        assert ("cosine_l1" in log) == bool(every)
    assert weights[0] == weights[1]
