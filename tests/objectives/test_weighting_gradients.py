"""Gradient weightings: known values, and their effect on a training step."""

import copy
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from knowhue.config import Tasks
from knowhue.data.loaders import ProcessShare, TrainingBatches
from knowhue.errors import ExtraError
from knowhue.models.multitask import build_discriminator, build_model
from knowhue.objectives.weighting import (
    GRADIENT_WEIGHTINGS,
    conflict_averse,
    gramian,
    make_weighting,
)
from knowhue.training.phases import Networks, TrainState
from knowhue.training.step import train_step

CONFLICT = [torch.tensor([1.0, 0.0]), torch.tensor([-0.5, 2.0])]
gradients = st.tuples(*[st.tuples(*[st.floats(-4, 4)] * 2)] * 2).map(lambda rows: torch.tensor(rows).double())


def make(name):
    return make_weighting(Tasks(weighting=name))


def test_gramian_is_all_inner_products():
    assert torch.equal(gramian(CONFLICT), torch.tensor([[1.0, -0.5], [-0.5, 4.25]]))


def test_pcgrad_projects_each_gradient_off_the_other():
    """Yu et al. 2020, by hand: g1 + 0.5/4.25 g2, and g2 + 0.5 g1."""
    weights = make("pcgrad")(gramian(CONFLICT))
    torch.testing.assert_close(weights, torch.tensor([1 + 0.5, 1 + 0.5 / 4.25]))


def test_mgda_finds_the_shortest_vector():
    weights = make("mgda")(gramian(CONFLICT))
    shares = torch.linspace(0, 1, 10_001)
    lengths = (shares[:, None] * CONFLICT[0] + (1 - shares[:, None]) * CONFLICT[1]).norm(dim=1)
    assert weights[0].item() == pytest.approx(shares[lengths.argmin()].item(), abs=2e-3)


@pytest.mark.parametrize("name", GRADIENT_WEIGHTINGS)
def test_order_of_the_tasks_does_not_matter(name):
    weighting = make(name)
    there, back = weighting(gramian(CONFLICT)), weighting(gramian(CONFLICT[::-1]))
    torch.testing.assert_close(there, back.flip(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", GRADIENT_WEIGHTINGS)
def test_joined_gradient_conflicts_with_no_task(name):
    weights = make(name)(gramian(CONFLICT))
    joined = weights @ torch.stack(CONFLICT)
    assert all((joined @ g).item() >= -1e-5 for g in CONFLICT)


def of_share(share, rows, c):
    """CAGrad's objective g_w . g0 + c |g0| |g_w| at w = (share, 1 - share)."""
    mean = rows.mean(dim=0)
    mixed = share[:, None] * rows[0] + (1 - share[:, None]) * rows[1]
    return mixed @ mean + c * mean.norm() * mixed.norm(dim=1)


@given(gradients, st.sampled_from([0.0, 0.2, 0.5, 0.9]))
@settings(max_examples=200, deadline=None)
def test_cagrad_finds_the_least_of_a_grid(rows, c):
    weights = conflict_averse(rows @ rows.T, c)
    pull = weights - 0.5
    assert pull.min() >= 0
    grid = of_share(torch.linspace(0, 1, 2001).double(), rows, c)
    if pull.sum() > 0:
        found = of_share((pull[0] / pull.sum())[None], rows, c)
        assert found.item() <= grid.min().item() + 1e-6 * (1 + grid.abs().max().item())


@given(gradients, st.sampled_from([0.2, 0.5, 0.9]))
@settings(max_examples=200, deadline=None)
def test_cagrad_gives_the_worse_off_task_the_most_that_the_ball_allows(rows, c):
    """The primal problem of the paper, on a grid of directions on the ball's rim."""
    mean = rows.mean(dim=0)
    found = conflict_averse(rows @ rows.T, c) @ rows
    size = mean.norm().item() * max(1.0, rows.norm().item())
    assert (found - mean).norm().item() <= c * mean.norm().item() * (1 + 1e-6) + 1e-9
    angles = torch.linspace(0, 2 * torch.pi, 2001).double()
    rim = mean + c * mean.norm() * torch.stack((angles.cos(), angles.sin()), dim=1)
    best = (rim @ rows.T).min(dim=1).values.max().item()
    assert (rows @ found).min().item() >= best - 1e-5 * size


def test_cagrad_by_hand():
    """Orthogonal, lengths 1: g_w is the mean, so that the mean grows by c. c = 0 is the mean itself."""
    torch.testing.assert_close(conflict_averse(torch.eye(2), 0.4), torch.tensor([0.7, 0.7]))
    torch.testing.assert_close(conflict_averse(gramian(CONFLICT), 0.0), torch.tensor([0.5, 0.5]))


def test_cagrad_of_a_vanished_or_opposite_gradient_is_the_mean():
    for product in ([[4.0, 0.0], [0.0, 0.0]], [[1.0, -1.0], [-1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]):
        torch.testing.assert_close(conflict_averse(torch.tensor(product)), torch.tensor([0.5, 0.5]))


def test_cagrad_needs_no_torchjd(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchjd", None)
    torch.testing.assert_close(make("cagrad")(torch.eye(2)), torch.tensor([0.75, 0.75]))


@given(gradients)
@settings(max_examples=50, deadline=None)
def test_pcgrad_of_two_tasks_is_twice_upgrad(rows):
    """Why UPGrad has no entry: the mean of the gradients' projections on the dual cone, by nonnegative least squares.

    The projection of g_i is J^T v with v = e_i + x, where x of 0 or more makes |g_i + J^T x| the least.
    """
    if min(rows.norm(dim=1)) < 1e-2:
        return
    upgrad = sum(np.eye(2)[i] + nnls(rows.T.numpy(), -rows[i].numpy())[0] for i in range(2)) / 2
    pcgrad = make("pcgrad")(rows @ rows.T).numpy()
    np.testing.assert_allclose(pcgrad @ rows.numpy(), 2 * upgrad @ rows.numpy(), atol=1e-6)


def test_a_missing_package_is_said_with_the_remedy(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchjd", None)
    with pytest.raises(ExtraError, match=r"pip install -e '\.\[aggregators\]'"):
        make("mgda")


@pytest.fixture
def step(tiny, make_work):
    """Gradients of a step under a weighting, by parameter."""
    config = tiny()
    work = make_work(config)
    model, discriminator = build_model(config, 2).eval(), build_discriminator(config).eval()
    torch.manual_seed(0)
    torch.nn.init.normal_(model.colour.out.weight, std=0.05)
    batch, _ = next(iter(TrainingBatches(work.prepared, 12, 0, 0, 0, ProcessShare(), torch.device("cpu"))))

    def run(weighting):
        own, opponent = copy.deepcopy(model), copy.deepcopy(discriminator)
        optimizers = [torch.optim.SGD(each.parameters(), 0.0) for each in (own, opponent)]
        state = TrainState(
            work.engine,
            config,
            "finetune",
            Networks(own, opponent),
            own,
            optimizers[0],
            opponent,
            optimizers[1],
            weighting,
        )
        losses = train_step(state, batch)
        return losses, {n: p.grad for n, p in own.named_parameters() if p.grad is not None}

    return run


def test_step_joins_the_tasks_at_the_encoder_and_nowhere_else(step):
    plain = step(None)[1]
    colour, class_ = (step(lambda _, w=w: torch.tensor(w))[1] for w in ([1.0, 0.0], [0.0, 1.0]))
    losses, joined = step(lambda _: torch.tensor([0.25, 3.0]))
    assert (losses["weight_colour"], losses["weight_class"]) == (0.25, 3.0)
    for name, gradient in joined.items():
        of_encoder = name.startswith("encoder")
        expected = 0.25 * colour[name] + 3 * class_[name] if of_encoder else plain[name]
        torch.testing.assert_close(
            gradient, expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item() + 1e-9
        )


def test_weights_of_one_are_the_sum(step):
    plain, joined = step(None)[1], step(lambda product: torch.ones(len(product)))[1]
    assert plain.keys() == joined.keys()
    for name, gradient in joined.items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-4, atol=1e-7)
