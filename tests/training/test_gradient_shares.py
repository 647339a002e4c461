"""Shares of the losses are those of plain gradients, and looking at them changes nothing."""

import pytest
import torch

from knowhue.objectives.losses import chroma_l1, cross_entropy
from knowhue.storage import read_json
from knowhue.training.gradient_shares import measure_shares
from knowhue.training.loop import training_batches
from knowhue.training.train import _session, run_arm

SHORT = {
    "training__heads__epochs": 1,
    "training__finetune__epochs": 2,
    "evaluation__networks": (),
    "evaluation__perceptual": (),
    "evaluation__diagnose_every_steps": 0,
}


@pytest.fixture
def setting(tiny, make_work):
    """A model whose colour head has learnt a little, its opponent, batches."""

    def make(**changes):
        config = tiny(**changes)
        work = make_work(config)
        session = _session(work, config)
        torch.manual_seed(0)
        torch.nn.init.normal_(session.model.colour.out.weight, std=0.05)
        batches = [batch for batch, _ in training_batches(work, config, "finetune", 0)]
        return work.engine, session.model, session.discriminator, batches, config

    return make


def norm(loss, model):
    found = torch.autograd.grad(loss, list(model.encoder.parameters()), allow_unused=True)
    return torch.cat([each.flatten() for each in found if each is not None]).norm().item()


def test_norms_are_those_of_plain_gradients_at_all_parameters_of_the_encoder(setting):
    engine, model, discriminator, batches, config = setting(colour__adversarial_weight=7.0)
    found = measure_shares(engine, model, discriminator, batches[:2], config)
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


def test_looking_changes_nothing(setting):
    engine, model, discriminator, batches, config = setting()
    state = [value.clone() for m in (model, discriminator) for value in m.state_dict().values()]
    modes = [module.training for m in (model, discriminator) for module in m.modules()]
    drawn = torch.random.get_rng_state()
    measure_shares(engine, model, discriminator, batches, config)
    after = [value for m in (model, discriminator) for value in m.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(state, after, strict=True))
    assert [module.training for m in (model, discriminator) for module in m.modules()] == modes
    assert all(p.grad is None for m in (model, discriminator) for p in m.parameters())
    assert torch.equal(torch.random.get_rng_state(), drawn)


def test_measured_run_ends_with_the_same_weights(tiny, make_work):
    weights = {}
    for batches in (0, 2):
        config = tiny(evaluation__gradient_batches=batches, **SHORT)
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
    """Stands for a power cut."""


def test_a_resumed_run_measured_what_an_uninterrupted_one_did(tiny, make_work):
    config = tiny(tasks__names=("colour",), **SHORT)
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
    config = tiny(**SHORT | {"training__finetune__epochs": 1}, **changes)
    folder = run_arm(make_work(config), config, "arm")
    found = read_json(folder / "gradient_shares.json")
    assert [set(found[moment]["norms"]) for moment in ("fork", "end")] == [losses] * 2


def test_an_encoder_that_rests_is_not_measured(tiny, make_work):
    config = tiny(
        tasks__names=("class",), **SHORT | {"training__finetune": {"epochs": 1, "encoder_learning_rate": 0.0}}
    )
    assert not (run_arm(make_work(config), config, "class") / "gradient_shares.json").exists()
