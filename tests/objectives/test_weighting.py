"""Loss weightings agree with each paper's formula, and a restored one continues exactly."""

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from knowhue.config import Tasks
from knowhue.objectives.weighting import (
    LOSS_WEIGHTINGS,
    TASKS,
    DynamicWeightAverage,
    GradNorm,
    LossWeighting,
    TaskConstrained,
    Uncertainty,
    criterion,
)

WEIGHTINGS = {"static": LossWeighting, **LOSS_WEIGHTINGS}

amounts = st.floats(0.01, 100)
pairs = st.fixed_dictionaries(dict.fromkeys(TASKS, amounts))
course = st.lists(st.tuples(pairs, pairs), min_size=1, max_size=12)


def errors(colour, class_):
    return dict(zip(TASKS, (colour, class_), strict=True))


def feed(weighting, pairs_seen):
    """A step and an epoch of each pair; the factors after each."""
    found = []
    for first, second in pairs_seen:
        weighting.observe_step(first, second)
        weighting.observe_epoch(first, second)
        found.append(weighting.weights())
    return found


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_factors_begin_at_1(name):
    assert WEIGHTINGS[name](Tasks()).weights() == errors(1.0, 1.0)


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_nothing_is_a_parameter_and_all_numbers_are_exact(name):
    weighting = WEIGHTINGS[name](Tasks())
    assert not list(weighting.parameters())
    assert {b.dtype for b in weighting.buffers()} <= {torch.float64, torch.int64}


@pytest.mark.parametrize("name", WEIGHTINGS)
@given(course, st.integers(0, 12))
@settings(max_examples=25, deadline=None)
def test_stored_and_restored_continues_exactly(name, pairs_seen, cut):
    tasks = Tasks(stop_strip_epochs=2, stop_threshold=0.1)
    straight = feed(WEIGHTINGS[name](tasks), pairs_seen)
    first = WEIGHTINGS[name](tasks)
    feed(first, pairs_seen[:cut])
    file = io.BytesIO()
    torch.save([each.state_dict() for each in (first, first.optimizer) if each is not None], file)
    file.seek(0)
    second = WEIGHTINGS[name](tasks)
    for each, stored in zip((second, second.optimizer), torch.load(file, weights_only=True), strict=False):
        each.load_state_dict(stored)
    assert feed(second, pairs_seen[cut:]) == straight[cut:]


@given(course)
@settings(max_examples=25, deadline=None)
def test_static_never_moves(pairs_seen):
    assert feed(LossWeighting(Tasks()), pairs_seen)[-1] == errors(1.0, 1.0)


@given(course, st.sampled_from(["dwa", "gradnorm"]))
@settings(max_examples=50, deadline=None)
def test_factors_are_never_negative_and_sum_to_the_number_of_tasks(pairs_seen, name):
    for factors in feed(WEIGHTINGS[name](Tasks()), pairs_seen):
        assert sum(factors.values()) == pytest.approx(2)
        assert min(factors.values()) >= (GradNorm.FLOOR if name == "gradnorm" else 0)


def test_uncertainty_descends_the_likelihoods_as_autograd_and_torch_adam_do():
    weighting = Uncertainty(Tasks(weighting_learning_rate=0.05))
    s = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([s], lr=0.05)
    for step in range(20):
        colour, class_ = 5 + math.sin(step), 0.4 + 0.1 * math.cos(step)
        weighting.observe_step(errors(colour, class_), None)
        optimizer.zero_grad()
        laplace = colour / s[0].exp() + s[0]
        softmax = class_ * torch.exp(-s[1]) + s[1] / 2
        (laplace + softmax).backward()
        optimizer.step()
    assert list(weighting.weights().values()) == pytest.approx(torch.exp(-s).tolist(), rel=1e-9)


def test_uncertainty_settles_where_the_likelihood_is_the_largest():
    """Laplace: b = L, factor 1 / L. Softmax: sigma^2 = 2 L, factor 1 / (2 L)."""
    weighting = Uncertainty(Tasks(weighting_learning_rate=0.02))
    for _ in range(1500):
        weighting.observe_step(errors(4.0, 0.25), None)
    assert weighting.weights() == pytest.approx(errors(0.25, 2.0), rel=1e-4)


def test_dwa_is_the_softmax_of_the_last_two_epochs_ratio():
    weighting = DynamicWeightAverage(Tasks())
    validation = errors(9.0, 9.0)
    weighting.observe_epoch(errors(4.0, 2.0), validation)
    assert weighting.weights() == errors(1.0, 1.0)
    weighting.observe_epoch(errors(3.0, 0.5), validation)
    weighting.observe_epoch(errors(3.0, 0.1), validation)
    powers = np.exp(np.array([3.0 / 3.0, 0.1 / 0.5]) / 2)
    assert list(weighting.weights().values()) == pytest.approx(2 * powers / powers.sum())


@given(pairs, st.floats(0.1, 2))
def test_dwa_of_equal_descent_is_even(before, ratio):
    weighting = DynamicWeightAverage(Tasks())
    weighting.observe_epoch(before, before)
    after = {task: ratio * error for task, error in before.items()}
    weighting.observe_epoch(after, after)
    assert weighting.weights() == pytest.approx(errors(1.0, 1.0))


def test_dwa_counts_a_task_at_0_as_not_descending():
    weighting = DynamicWeightAverage(Tasks())
    for _ in range(2):
        weighting.observe_epoch(errors(1.0, 0.0), errors(1.0, 1.0))
    assert weighting.weights() == errors(1.0, 1.0)


def test_gradnorm_descends_its_loss_as_autograd_and_torch_adam_do():
    weighting = GradNorm(Tasks(gradnorm_alpha=1.5, weighting_learning_rate=0.02))
    w = torch.ones(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([w], lr=0.02)
    start = torch.tensor([6.0, 2.0], dtype=torch.float64)
    for step in range(30):
        loss = start * torch.tensor([0.9**step, 0.99**step])
        norm = torch.tensor([1 + 0.3 * math.sin(step), 2.0], dtype=torch.float64)
        weighting.observe_step(errors(*loss.tolist()), errors(*norm.tolist()))
        weighted, share = w * norm, loss / start
        target = (weighted.mean() * (share / share.mean()) ** 1.5).detach()
        optimizer.zero_grad()
        (weighted - target).abs().sum().backward()
        optimizer.step()
        w.data *= 2 / w.data.sum()
    assert list(weighting.weights().values()) == pytest.approx(w.tolist(), rel=1e-9)


def test_gradnorm_moves_weight_to_the_slower_task():
    weighting = GradNorm(Tasks())
    for step in range(50):
        weighting.observe_step(errors(0.9**step, 0.99**step), errors(1.0, 1.0))
    assert weighting.weights()["class"] > 1.1


def test_gradnorm_of_equal_rates_evens_the_norms():
    weighting = GradNorm(Tasks())
    for _ in range(500):
        weighting.observe_step(errors(1.0, 1.0), errors(3.0, 1.0))
    factors = weighting.weights()
    assert 3 * factors["colour"] == pytest.approx(factors["class"], rel=0.1)


def test_gradnorm_keeps_its_floor():
    weighting = GradNorm(Tasks(weighting_learning_rate=0.5))
    for step in range(40):
        weighting.observe_step(errors(0.1**step, 1.0), errors(1.0, 1e-3))
        assert weighting.weights()["colour"] >= GradNorm.FLOOR
    assert weighting.weights()["colour"] == pytest.approx(GradNorm.FLOOR)


def test_gradnorm_waits_for_norms_and_then_counts_from_the_first_step():
    weighting = GradNorm(Tasks())
    weighting.observe_step(errors(8.0, 1.0), None)
    assert weighting.weights() == errors(1.0, 1.0)
    weighting.observe_step(errors(2.0, 1.0), errors(1.0, 1.0))  # colour fell to a quarter, class not at all
    assert weighting.weights()["class"] > 1


def test_gradnorm_rests_once_no_loss_is_left():
    weighting = GradNorm(Tasks())
    weighting.observe_step(errors(1.0, 1.0), None)
    weighting.observe_step(errors(0.0, 0.0), errors(1.0, 1.0))
    assert weighting.weights() == errors(1.0, 1.0)


# k = 2, lambda = 1. At epoch t the strip is the training errors of t - 2, t - 1 and t:
#   t = 3: strip 4, 2, 1:     med 2,   trend 4 / (7 - 4)       = 4/3,  gap (1.6 - 1) / 1     = 0.6,   product 0.8
#   t = 4: strip 2, 1, 0.8:   med 1,   trend 2 / (3.8 - 2)     = 10/9, gap (1.4 - 0.8) / 0.8 = 0.75,  product 5/6
#   t = 5: strip 1, 0.8, 0.8: med 0.8, trend 1.6 / (2.6 - 1.6) = 1.6,  gap (1.5 - 0.8) / 0.8 = 0.875, product 1.4
#   t = 6: strip 0.8 thrice:           trend 1.6 / (2.4 - 1.6) = 2,    gap (1.6 - 0.8) / 0.8 = 1,     product 2
TRAIN = [4.0, 2.0, 1.0, 0.8, 0.8, 0.8]
VALIDATION = [4.0, 2.5, 1.6, 1.4, 1.5, 1.6]
VALUES = [None, None, 0.8, 5 / 6, 1.4, 2.0]


def trend(strip):
    """The criterion's first term: its product with a gap of 1."""
    return criterion(strip, lowest=1.0, validation=2.0, importance=1.0)


def generalisation(validation, lowest, importance):
    """Its second term: its product with a trend of 1."""
    return criterion([1.0, 1.0], lowest, validation, importance)


series = st.lists(st.tuples(st.floats(0.01, 10), st.floats(0, 10)), min_size=1, max_size=15)


def constrained(k=5, threshold=1.0, importance=1.0, main="colour"):
    """The auxiliary task's weight is `importance` times the main task's."""
    weights = dict.fromkeys(TASKS, importance) | {main: 1.0}
    tasks = Tasks(main=main, weights=weights, stop_strip_epochs=k, stop_threshold=threshold)
    return TaskConstrained(tasks)


def criterion_of(train, validation, k, importance):
    """The criterion of a whole series; None before epoch k + 1."""
    if len(train) <= k:
        return None
    return criterion(train[-k - 1 :], min(train), validation[-1], importance)


def stop(weighting, train, validation, task="class"):
    """The epoch at which the weighting stops a task; the other task's error stays at 1."""
    for own, held_out in zip(train, validation, strict=True):
        other = dict.fromkeys(TASKS, 1.0)
        weighting.observe_epoch(other | {task: own}, other | {task: held_out})
    return weighting.stopped_epoch[TASKS.index(task)].item()


@pytest.mark.parametrize("epoch", range(1, 7))
def test_criterion_is_the_papers_by_hand(epoch):
    value = criterion_of(TRAIN[:epoch], VALIDATION[:epoch], k=2, importance=1.0)
    assert value == pytest.approx(VALUES[epoch - 1])


@pytest.mark.parametrize(("threshold", "epoch"), [(0.7, 3), (0.82, 4), (1.0, 5), (1.5, 6), (2.5, -1)])
def test_task_is_stopped_at_the_epoch_that_first_exceeds_the_threshold(threshold, epoch):
    assert stop(constrained(k=2, threshold=threshold), TRAIN, VALIDATION) == epoch


def test_more_important_task_stays_longer():
    """Lambda of 1.5 makes epoch 5's 1.4 a 0.93 and epoch 6's 2 a 1.33."""
    assert stop(constrained(k=2, importance=1.5), TRAIN, VALIDATION) == 6


def test_stopped_task_counts_0_for_good():
    weighting = constrained(k=2)
    for epoch, (own, held_out) in enumerate(zip(TRAIN, VALIDATION, strict=True), 1):
        weighting.observe_epoch({"colour": 1.0, "class": own}, {"colour": 1.0, "class": held_out})
        assert weighting.weights() == {"colour": 1.0, "class": 1.0 if epoch < 5 else 0.0}
    for _ in range(5):
        weighting.observe_epoch({"colour": 1.0, "class": 0.1}, {"colour": 1.0, "class": 0.1})
    assert weighting.weights()["class"] == 0.0
    assert weighting.stopped_epoch.tolist() == [-1, 5]


def test_falling_fast_is_not_stopped_where_level_is():
    """Halved each epoch, k = 5: 5 * 6 / (63 - 30) = 10/11; level: 5. Both with validation half again as high."""
    falling, level = [32.0, 16.0, 8.0, 4.0, 2.0, 1.0], [1.0] * 6
    assert trend(falling) == pytest.approx(10 / 11)
    assert stop(constrained(), falling, [1.5 * error for error in falling]) == -1
    assert stop(constrained(), level, [1.5 * error for error in level]) == 6


@pytest.mark.parametrize("main", TASKS)
@given(series)
@settings(max_examples=25, deadline=None)
def test_main_task_is_never_stopped(main, pairs):
    weighting = constrained(k=1, threshold=0.0, main=main)
    assert stop(weighting, *zip(*pairs, strict=True), task=main) == -1
    assert weighting.weights()[main] == 1.0


@given(series, st.integers(1, 4), st.floats(0.1, 10), st.floats(0, 5))
@settings(max_examples=100, deadline=None)
def test_balance_stops_where_the_criterion_of_the_whole_series_does(pairs, k, importance, threshold):
    train, validation = zip(*pairs, strict=True)
    values = [
        criterion_of(train[:epoch], validation[:epoch], k, importance) for epoch in range(1, len(train) + 1)
    ]
    over = [epoch for epoch, value in enumerate(values, 1) if value is not None and value > threshold]
    weighting = constrained(k, threshold, importance)
    assert stop(weighting, train, validation) == (over[0] if over else -1)


@given(series, st.integers(1, 4), st.floats(0.1, 10))
def test_criterion_is_numpys(pairs, k, importance):
    train, validation = np.array(pairs).T
    strip, lowest = train[-k - 1 :], train.min()
    rest = strip.sum() - k * np.median(strip)
    value = criterion_of(train.tolist(), validation.tolist(), k, importance)
    if len(train) <= k or rest < 1e-9:
        assert value is None or rest > -1e-9
    else:
        first = k * np.median(strip) / rest
        assert value == pytest.approx(first * (validation[-1] - lowest) / (importance * lowest), rel=1e-6)


@given(st.floats(0.01, 100), st.integers(1, 8))
def test_trend_of_a_level_strip_is_k_at_any_size(error, k):
    assert trend([error] * (k + 1)) == pytest.approx(k)
    assert trend([0.0] * (k + 1)) == k


def test_sudden_fall_leaves_the_task_running():
    """3, 3, 3 and a last error x, k = 3: the denominator is 9 + x - 9 = x, and at 0 the trend has no value."""
    assert trend([3.0, 3.0, 3.0, 1.0]) == pytest.approx(9)
    assert trend([3.0, 3.0, 3.0, 0.0]) is None
    assert trend([4.0, 4.0, 4.0, 0.5, 0.5]) is None
    assert criterion_of([4.0, 4.0, 4.0, 0.5, 0.5], [9.0] * 5, k=4, importance=1.0) is None


def test_generalisation_at_a_training_error_of_0_is_its_limit():
    assert generalisation(0.5, 0.0, 2.0) == math.inf
    assert generalisation(0.0, 0.0, 2.0) == 0.0
    assert generalisation(0.5, 1.0, 1.0) == -0.5


def test_learned_by_heart_is_stopped_once_level():
    """Zeros after a fall: the median of 0 gives a trend of 0, and a strip of zeros k, against an infinite gap."""
    assert stop(constrained(k=2), [1.0, 0.0, 0.0], [1.0, 0.5, 0.5]) == -1
    assert stop(constrained(k=2), [1.0, 0.0, 0.0, 0.0], [1.0, 0.5, 0.5, 0.5]) == 4


@pytest.mark.parametrize(
    "setting",
    [
        {"weighting_learning_rate": 0.0},
        {"dwa_temperature": 0.0},
        {"gradnorm_alpha": -1.0},
        {"stop_strip_epochs": 0},
        {"stop_threshold": -1.0},
        {"main": "depth"},
        {"weights": {"class": 0.0}},
    ],
)
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ValidationError, match=next(iter(setting))):
        Tasks(**setting)
