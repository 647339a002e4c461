"""The oracle is given the true class: it starts as the colour arm, uses the class, and is only a control."""

from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from knowhue.errors import ConfigError, RunError
from knowhue.plan import make_plan
from knowhue.presets import arm_config, edit, head_config
from knowhue.runs import run_folder
from knowhue.training.deploy import deploy
from knowhue.training.loop import training_batches
from knowhue.training.phases import make_train_state, predict
from knowhue.training.run import make_networks, run_arm
from knowhue.training.step import train_step

HEADS = [
    {"method": "unet"},
    {"method": "gan"},
    {"method": "feedforward", "loss": "l2"},
    {"method": "feedforward", "loss": "classification"},
]
SHORT = {
    "training__heads__epochs": 1,
    "training__finetune__epochs": 1,
    "evaluation__networks": (),
    "evaluation__perceptual": (),
}


def both(config):
    return arm_config(config, "colour"), arm_config(config, "oracle")


@pytest.fixture
def tiny(tiny):
    """Several steps in an epoch."""
    return partial(tiny, training__batch_size=4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("colour", HEADS)
def test_it_starts_as_the_colour_arm_bit_for_bit(tiny, make_work, colour, precision):
    alone, oracle = both(tiny(colour=colour, training__precision=precision))
    work = make_work(alone, unlabelled=3)
    batch, _ = next(iter(training_batches(work, alone, "heads", 0)))
    sessions = [make_networks(work, config) for config in (alone, oracle)]
    answers = [predict(work.engine, session.model.eval(), batch).chroma for session in sessions]
    assert torch.equal(*answers)
    weights = [session.modules(with_encoder=True) for session in sessions]
    assert weights[1].keys() - weights[0].keys() == {"oracle"}
    for name, module in weights[0].items():
        other = weights[1][name].state_dict()
        assert all(torch.equal(value, other[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("colour", HEADS)
def test_it_learns_what_a_class_looks_like_and_nothing_of_unknown_ones(tiny, make_work, colour):
    _, oracle = both(tiny(colour=colour))
    work = make_work(oracle, classes=3)
    session = make_networks(work, oracle)
    state = make_train_state(work.engine, session, oracle, "heads")
    for seen, _ in training_batches(work, oracle, "heads", 0):
        batch = seen._replace(label=seen.label.where(seen.label != 2, -1))
        train_step(state, batch)
    moved = session.model.oracle.embedding.weight.abs().sum(1) > 0
    assert moved.tolist() == [True, True, False]
    told, other = (predict(work.engine, session.model.eval(), batch._replace(label=label)).chroma
                   for label in (torch.zeros_like(batch.label), torch.ones_like(batch.label)))  # fmt: skip
    unknown, third = (predict(work.engine, session.model, batch._replace(label=torch.full_like(batch.label, n))).chroma
                      for n in (-1, 2))  # fmt: skip
    assert not torch.equal(told, other)
    assert torch.equal(unknown, third)


def test_its_heads_phase_is_its_own_and_knows_the_placebo(tiny, tmp_path):
    alone, oracle = (head_config(config, "colour") for config in both(tiny()))
    assert run_folder(tmp_path, "colour", alone) != run_folder(tmp_path, "colour", oracle)
    shuffled = edit(oracle, {"supervision": {"placebo": "labels"}})
    assert head_config(shuffled, "colour") != oracle
    assert head_config(edit(alone, {"supervision": {"placebo": "labels"}}), "colour") == alone


def test_it_can_be_asked_for_and_is_not_among_the_default_arms(tiny):
    assert "oracle" not in make_plan(tiny()).arms
    plan = make_plan(tiny(), ["colour", "class", "multi", "oracle"])
    assert plan.run_config("oracle", 0).colour.oracle
    assert not any(plan.run_config(arm, 0).colour.oracle for arm in ("colour", "class", "multi"))


@pytest.mark.parametrize("method", ["pix2pix", "palette"])
def test_a_network_without_an_encoder_has_none(tiny, method):
    with pytest.raises(
        ConfigError, match=rf"`colour\.oracle` should be false where `colour\.method = {method}`"
    ):
        arm_config(tiny(colour={"method": method}), "oracle")


def test_a_run_keeps_what_it_knows_and_cannot_be_put_to_work(tiny, make_work):
    _, oracle = both(tiny(**SHORT))
    folder = run_arm(make_work(oracle), oracle, "oracle")
    assert load_file(folder / "model.safetensors")["oracle.embedding.weight"].abs().sum() > 0
    with pytest.raises(
        RunError, match=r"run of an oracle, which needs the true class of each image"
    ) as caught:
        deploy(folder)
    assert "\n" not in str(caught.value)
