"""Which weights train in a phase, and at which learning rate."""

import pytest
import torch

from knowhue.config import Phase
from knowhue.models.multitask import build_discriminator, build_model
from knowhue.training.phases import (
    first_epoch,
    learning_rate_factor,
    make_discriminator_optimizer,
    make_optimizer,
    set_learning_rates,
)

HEADS, FINETUNE = (
    Phase(epochs=2, learning_rate=1e-3),
    Phase(epochs=2, learning_rate=3e-4, encoder_learning_rate=1e-4),
)


def test_frozen_phase_trains_the_heads_alone(tiny):
    model = build_model(tiny(), 2)
    optimizer = make_optimizer(model, HEADS, 0.01)
    trained = {p for group in optimizer.param_groups for p in group["params"]}
    assert trained == {*model.colour.parameters(), *model.classifier.parameters()}
    assert not any(p.requires_grad for p in model.encoder.parameters())


def test_finetuning_trains_everything_after_a_frozen_phase(tiny):
    model = build_model(tiny(), 2)
    make_optimizer(model, HEADS, 0.01)
    optimizer = make_optimizer(model, FINETUNE, 0.01)
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    assert set(trained) == set(model.parameters())
    assert len(trained) == len(set(trained))
    assert all(p.requires_grad for p in trained)
    assert [group["peak"] for group in optimizer.param_groups] == [1e-4, 3e-4, 3e-4]


def test_tasks_have_groups_of_their_own(tiny):
    model = build_model(tiny(), 2)
    groups = [set(group["params"]) for group in make_optimizer(model, HEADS, 0.01).param_groups]
    assert groups == [set(model.colour.parameters()), set(model.classifier.parameters())]


def test_discriminator_has_its_own_rate_and_no_decay(tiny):
    (group,) = make_discriminator_optimizer(build_discriminator(tiny()), HEADS).param_groups
    assert (group["lr"], group["weight_decay"], group["betas"]) == (2e-4, 0.0, (0.5, 0.999))


@pytest.mark.parametrize("steps", [1, 2, 3, 50, 1000])
def test_rate_warms_up_then_falls_to_a_tenth(steps):
    factors = [learning_rate_factor(step, steps) for step in range(steps)]
    top = factors.index(max(factors))
    assert max(factors) <= 1
    assert top <= max(1, round(0.03 * steps))
    assert factors[:top] == sorted(factors[:top])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert min(factors[top:]) >= 0.1
    if steps >= 50:
        assert factors[-1] == pytest.approx(0.1, abs=0.01)


def test_rates_are_set_from_the_peak_each_time(tiny):
    optimizer = make_optimizer(build_model(tiny(), 2), FINETUNE, 0.0)
    for factor in (0.5, 0.5, 1.0):
        set_learning_rates([optimizer], factor)
        assert [group["lr"] for group in optimizer.param_groups] == [
            1e-4 * factor,
            3e-4 * factor,
            3e-4 * factor,
        ]


def test_epochs_count_over_both_phases(tiny):
    config = tiny(training__heads__epochs=7)
    assert (first_epoch(config, "heads"), first_epoch(config, "finetune")) == (0, 7)


def test_frozen_parameters_do_not_decay(tiny):
    model = build_model(tiny(), 2)
    optimizer = make_optimizer(model, HEADS, weight_decay=0.5)
    before = [p.clone() for p in model.encoder.parameters()]
    model(torch.full((2, 1, 32, 32), 50.0)).logits.sum().backward()
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.encoder.parameters(), strict=True))
