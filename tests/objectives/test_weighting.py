"""Weighted gradients: known values, and what a step makes of them."""

import copy

import pytest
import torch

from knowhue.data.loaders import Share, TrainingBatches
from knowhue.errors import ConfigError
from knowhue.models.multitask import build_discriminator, build_model
from knowhue.objectives.weighting import WEIGHTINGS, gramian, open_weighting
from knowhue.training.step import Players, train_step

CONFLICT = [torch.tensor([1.0, 0.0]), torch.tensor([-0.5, 2.0])]


def test_gramian_is_all_inner_products():
    assert torch.equal(gramian(CONFLICT), torch.tensor([[1.0, -0.5], [-0.5, 4.25]]))


def test_pcgrad_projects_each_gradient_off_the_other():
    """Yu et al. 2020, by hand: g1 + 0.5/4.25 g2, and g2 + 0.5 g1."""
    weights = open_weighting("pcgrad")(gramian(CONFLICT))
    torch.testing.assert_close(weights, torch.tensor([1 + 0.5, 1 + 0.5 / 4.25]))


def test_mgda_finds_the_shortest_vector():
    weights = open_weighting("mgda")(gramian(CONFLICT))
    shares = torch.linspace(0, 1, 10_001)
    lengths = (shares[:, None] * CONFLICT[0] + (1 - shares[:, None]) * CONFLICT[1]).norm(dim=1)
    assert weights[0].item() == pytest.approx(shares[lengths.argmin()].item(), abs=2e-3)


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_order_of_the_tasks_does_not_matter(name):
    weighting = open_weighting(name)
    there, back = weighting(gramian(CONFLICT)), weighting(gramian(CONFLICT[::-1]))
    torch.testing.assert_close(there, back.flip(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_joined_gradient_conflicts_with_no_task(name):
    weights = open_weighting(name)(gramian(CONFLICT))
    joined = sum(w * g for w, g in zip(weights, CONFLICT, strict=True))
    assert all((joined @ g).item() >= -1e-5 for g in CONFLICT)


def test_unknown_and_missing_are_said_with_the_remedy(monkeypatch):
    with pytest.raises(ConfigError, match=r"one of sum, pcgrad, .*Found `training\.aggregator = best`"):
        open_weighting("best")
    monkeypatch.setitem(__import__("sys").modules, "torchjd", None)
    with pytest.raises(ConfigError, match=r"pip install 'knowhue\[aggregators\]'"):
        open_weighting("mgda")


@pytest.fixture
def step(tiny, make_work):
    """Gradients of a step under a weighting, by parameter."""
    config = tiny()
    work = make_work(config)
    model, discriminator = build_model(config, 2).eval(), build_discriminator(config).eval()
    torch.manual_seed(0)
    torch.nn.init.normal_(model.colour.out.weight, std=0.05)
    batch, _ = next(iter(TrainingBatches(work.prepared, 12, 0, 0, 0, Share(), torch.device("cpu"))))

    def run(weighting):
        own, opponent = copy.deepcopy(model), copy.deepcopy(discriminator)
        optimizers = [torch.optim.SGD(each.parameters(), 0.0) for each in (own, opponent)]
        players = Players(own, optimizers[0], opponent, optimizers[1], weighting)
        losses = train_step(work.engine, players, batch, config)
        return losses, {n: p.grad for n, p in own.named_parameters() if p.grad is not None}

    return run


def test_step_joins_the_tasks_at_the_base_and_nowhere_else(step):
    plain = step(None)[1]
    colour, class_ = (step(lambda _, w=w: torch.tensor(w))[1] for w in ([1.0, 0.0], [0.0, 1.0]))
    losses, joined = step(lambda _: torch.tensor([0.25, 3.0]))
    assert (losses["weight_colour"], losses["weight_class"]) == (0.25, 3.0)
    for name, gradient in joined.items():
        of_base = name.startswith("encoder")
        expected = 0.25 * colour[name] + 3 * class_[name] if of_base else plain[name]
        torch.testing.assert_close(
            gradient, expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item() + 1e-9
        )


def test_weights_of_one_are_the_sum(step):
    plain, joined = step(None)[1], step(lambda product: torch.ones(len(product)))[1]
    assert plain.keys() == joined.keys()
    for name, gradient in joined.items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-4, atol=1e-7)
