"""Balances: each paper's formula by hand or by autograd, and a stored one goes on as if it had not been."""

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from knowhue.errors import ConfigError
from knowhue.objectives.balance import TASKS, Balance, DynamicWeightAverage, GradNorm, Uncertainty
from knowhue.objectives.early_stopping import TaskConstrained

BALANCES = {
    "static": Balance,
    "uncertainty": Uncertainty,
    "dwa": DynamicWeightAverage,
    "gradnorm": GradNorm,
    "task_constrained": TaskConstrained,
}

amounts = st.floats(0.01, 100)
pairs = st.fixed_dictionaries(dict.fromkeys(TASKS, amounts))
course = st.lists(st.tuples(pairs, pairs), min_size=1, max_size=12)


def errors(colour, class_):
    return dict(zip(TASKS, (colour, class_), strict=True))


def feed(balance, pairs_seen):
    """A step and an epoch of each pair; the factors after each."""
    found = []
    for first, second in pairs_seen:
        balance.observe_step(first, second)
        balance.observe_epoch(first, second)
        found.append(balance.weights())
    return found


@pytest.mark.parametrize("name", BALANCES)
def test_factors_begin_at_1(name):
    assert BALANCES[name]().weights() == errors(1.0, 1.0)


@pytest.mark.parametrize("name", BALANCES)
def test_nothing_is_a_parameter_and_all_numbers_are_exact(name):
    balance = BALANCES[name]()
    assert not list(balance.parameters())
    assert {b.dtype for b in balance.buffers()} <= {torch.float64, torch.int64}


@pytest.mark.parametrize("name", BALANCES)
@given(course, st.integers(0, 12))
@settings(max_examples=25, deadline=None)
def test_stored_and_restored_continues_exactly(name, pairs_seen, cut):
    kwargs = {"strip_epochs": 2, "threshold": 0.1} if name == "task_constrained" else {}
    straight = feed(BALANCES[name](**kwargs), pairs_seen)
    first = BALANCES[name](**kwargs)
    feed(first, pairs_seen[:cut])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = BALANCES[name](**kwargs)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert feed(second, pairs_seen[cut:]) == straight[cut:]


@given(course)
@settings(max_examples=25, deadline=None)
def test_static_never_moves(pairs_seen):
    assert feed(Balance(), pairs_seen)[-1] == errors(1.0, 1.0)


@given(course, st.sampled_from(["dwa", "gradnorm"]))
@settings(max_examples=50, deadline=None)
def test_factors_are_never_negative_and_sum_to_the_number_of_tasks(pairs_seen, name):
    for factors in feed(BALANCES[name](), pairs_seen):
        assert sum(factors.values()) == pytest.approx(2)
        assert min(factors.values()) >= (GradNorm.FLOOR if name == "gradnorm" else 0)


def test_uncertainty_descends_the_likelihoods_as_autograd_and_torch_adam_do():
    balance = Uncertainty(rate=0.05)
    s = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([s], lr=0.05)
    for step in range(20):
        colour, class_ = 5 + math.sin(step), 0.4 + 0.1 * math.cos(step)
        balance.observe_step(errors(colour, class_), None)
        optimizer.zero_grad()
        laplace = colour / s[0].exp() + s[0]
        softmax = class_ * torch.exp(-s[1]) + s[1] / 2
        (laplace + softmax).backward()
        optimizer.step()
    assert list(balance.weights().values()) == pytest.approx(torch.exp(-s).tolist(), rel=1e-9)


def test_uncertainty_settles_where_the_likelihood_is_the_largest():
    """Laplace: b = L, factor 1 / L. Softmax: sigma^2 = 2 L, factor 1 / (2 L)."""
    balance = Uncertainty(rate=0.02)
    for _ in range(1500):
        balance.observe_step(errors(4.0, 0.25), None)
    assert balance.weights() == pytest.approx(errors(0.25, 2.0), rel=1e-4)


def test_dwa_is_the_softmax_of_the_last_two_epochs_ratio():
    balance = DynamicWeightAverage()
    validation = errors(9.0, 9.0)
    balance.observe_epoch(errors(4.0, 2.0), validation)
    assert balance.weights() == errors(1.0, 1.0)
    balance.observe_epoch(errors(3.0, 0.5), validation)
    balance.observe_epoch(errors(3.0, 0.1), validation)
    powers = np.exp(np.array([3.0 / 3.0, 0.1 / 0.5]) / 2)
    assert list(balance.weights().values()) == pytest.approx(2 * powers / powers.sum())


@given(pairs, st.floats(0.1, 2))
def test_dwa_of_equal_descent_is_even(before, ratio):
    balance = DynamicWeightAverage()
    balance.observe_epoch(before, before)
    after = {task: ratio * error for task, error in before.items()}
    balance.observe_epoch(after, after)
    assert balance.weights() == pytest.approx(errors(1.0, 1.0))


def test_dwa_counts_a_task_at_0_as_not_descending():
    balance = DynamicWeightAverage()
    for _ in range(2):
        balance.observe_epoch(errors(1.0, 0.0), errors(1.0, 1.0))
    assert balance.weights() == errors(1.0, 1.0)


def test_gradnorm_descends_its_loss_as_autograd_and_torch_adam_do():
    balance = GradNorm(alpha=1.5, rate=0.02)
    w = torch.ones(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([w], lr=0.02)
    start = torch.tensor([6.0, 2.0], dtype=torch.float64)
    for step in range(30):
        loss = start * torch.tensor([0.9**step, 0.99**step])
        norm = torch.tensor([1 + 0.3 * math.sin(step), 2.0], dtype=torch.float64)
        balance.observe_step(errors(*loss.tolist()), errors(*norm.tolist()))
        weighted, share = w * norm, loss / start
        target = (weighted.mean() * (share / share.mean()) ** 1.5).detach()
        optimizer.zero_grad()
        (weighted - target).abs().sum().backward()
        optimizer.step()
        w.data *= 2 / w.data.sum()
    assert list(balance.weights().values()) == pytest.approx(w.tolist(), rel=1e-9)


def test_gradnorm_moves_weight_to_the_slower_task():
    balance = GradNorm()
    for step in range(50):
        balance.observe_step(errors(0.9**step, 0.99**step), errors(1.0, 1.0))
    assert balance.weights()["class"] > 1.1


def test_gradnorm_of_equal_rates_evens_the_norms():
    balance = GradNorm()
    for _ in range(500):
        balance.observe_step(errors(1.0, 1.0), errors(3.0, 1.0))
    factors = balance.weights()
    assert 3 * factors["colour"] == pytest.approx(factors["class"], rel=0.1)


def test_gradnorm_keeps_its_floor():
    balance = GradNorm(rate=0.5)
    for step in range(40):
        balance.observe_step(errors(0.1**step, 1.0), errors(1.0, 1e-3))
        assert balance.weights()["colour"] >= GradNorm.FLOOR
    assert balance.weights()["colour"] == pytest.approx(GradNorm.FLOOR)


def test_gradnorm_waits_for_norms_and_then_counts_from_the_first_step():
    balance = GradNorm()
    balance.observe_step(errors(8.0, 1.0), None)
    assert balance.weights() == errors(1.0, 1.0)
    balance.observe_step(errors(2.0, 1.0), errors(1.0, 1.0))  # colour fell to a quarter, class not at all
    assert balance.weights()["class"] > 1


def test_gradnorm_rests_once_no_loss_is_left():
    balance = GradNorm()
    balance.observe_step(errors(1.0, 1.0), None)
    balance.observe_step(errors(0.0, 0.0), errors(1.0, 1.0))
    assert balance.weights() == errors(1.0, 1.0)


@pytest.mark.parametrize("name", ["uncertainty", "gradnorm"])
@pytest.mark.parametrize("losses", [errors(-0.1, 1.0), errors(math.nan, 1.0), {"colour": 1.0}])
def test_losses_without_a_meaning_are_refused(name, losses):
    with pytest.raises(ConfigError, match=r"`losses` should be finite and 0 or more.*Found `losses = "):
        BALANCES[name]().observe_step(losses, errors(1.0, 1.0))


def test_gradnorm_refuses_a_first_loss_of_0():
    with pytest.raises(ConfigError, match="above 0 at the first step"):
        GradNorm().observe_step(errors(0.0, 1.0), None)


def test_settings_out_of_range_are_said():
    for name, setting in (("uncertainty", "rate"), ("dwa", "temperature"), ("gradnorm", "rate")):
        with pytest.raises(ConfigError, match=f"`{setting}` should be above 0"):
            BALANCES[name](**{setting: 0.0})
    with pytest.raises(ConfigError, match="`alpha` should be 0 or more"):
        GradNorm(alpha=-1.0)
