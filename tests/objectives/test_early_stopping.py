"""Task-wise early stopping: the paper's criterion by hand, and what it stops and leaves."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowhue.errors import ConfigError
from knowhue.objectives.balance import TASKS
from knowhue.objectives.early_stopping import TaskConstrained, criterion, generalisation, trend

# k = 2, lambda = 1. At epoch t the strip is the training errors of t - 2, t - 1 and t:
#   t = 3: strip 4, 2, 1:     med 2,   trend 4 / (7 - 4)       = 4/3,  gap (1.6 - 1) / 1     = 0.6,   product 0.8
#   t = 4: strip 2, 1, 0.8:   med 1,   trend 2 / (3.8 - 2)     = 10/9, gap (1.4 - 0.8) / 0.8 = 0.75,  product 5/6
#   t = 5: strip 1, 0.8, 0.8: med 0.8, trend 1.6 / (2.6 - 1.6) = 1.6,  gap (1.5 - 0.8) / 0.8 = 0.875, product 1.4
#   t = 6: strip 0.8 thrice:           trend 1.6 / (2.4 - 1.6) = 2,    gap (1.6 - 0.8) / 0.8 = 1,     product 2
TRAIN = [4.0, 2.0, 1.0, 0.8, 0.8, 0.8]
VALIDATION = [4.0, 2.5, 1.6, 1.4, 1.5, 1.6]
VALUES = [None, None, 0.8, 5 / 6, 1.4, 2.0]

series = st.lists(st.tuples(st.floats(0.01, 10), st.floats(0, 10)), min_size=1, max_size=15)


def stop(balance, train, validation, task="class"):
    """The epoch at which the balance stops a task; the other task's error stays at 1."""
    for own, held_out in zip(train, validation, strict=True):
        other = dict.fromkeys(TASKS, 1.0)
        balance.observe_epoch(other | {task: own}, other | {task: held_out})
    return balance.stopped_epoch[TASKS.index(task)].item()


@pytest.mark.parametrize("epoch", range(1, 7))
def test_criterion_is_the_papers_by_hand(epoch):
    value = criterion(TRAIN[:epoch], VALIDATION[:epoch], k=2, importance=1.0)
    assert value == pytest.approx(VALUES[epoch - 1])


@pytest.mark.parametrize(("threshold", "epoch"), [(0.7, 3), (0.82, 4), (1.0, 5), (1.5, 6), (2.5, -1)])
def test_task_is_stopped_at_the_epoch_that_first_exceeds_the_threshold(threshold, epoch):
    assert stop(TaskConstrained(strip_epochs=2, threshold=threshold), TRAIN, VALIDATION) == epoch


def test_more_important_task_stays_longer():
    """Lambda of 1.5 makes epoch 5's 1.4 a 0.93 and epoch 6's 2 a 1.33."""
    assert stop(TaskConstrained(strip_epochs=2, importance=1.5), TRAIN, VALIDATION) == 6


def test_stopped_task_counts_0_for_good():
    balance = TaskConstrained(strip_epochs=2)
    for epoch, (own, held_out) in enumerate(zip(TRAIN, VALIDATION, strict=True), 1):
        balance.observe_epoch({"colour": 1.0, "class": own}, {"colour": 1.0, "class": held_out})
        assert balance.weights() == {"colour": 1.0, "class": 1.0 if epoch < 5 else 0.0}
    for _ in range(5):
        balance.observe_epoch({"colour": 1.0, "class": 0.1}, {"colour": 1.0, "class": 0.1})
    assert balance.weights()["class"] == 0.0
    assert balance.stopped_epoch.tolist() == [-1, 5]


def test_falling_fast_is_not_stopped_where_level_is():
    """Halved each epoch, k = 5: 5 * 6 / (63 - 30) = 10/11; level: 5. Both with validation half again as high."""
    falling, level = [32.0, 16.0, 8.0, 4.0, 2.0, 1.0], [1.0] * 6
    assert trend(falling) == pytest.approx(10 / 11)
    assert stop(TaskConstrained(), falling, [1.5 * error for error in falling]) == -1
    assert stop(TaskConstrained(), level, [1.5 * error for error in level]) == 6


@pytest.mark.parametrize("main", TASKS)
@given(series)
@settings(max_examples=25, deadline=None)
def test_main_task_is_never_stopped(main, pairs):
    balance = TaskConstrained(main=main, strip_epochs=1, threshold=0.0)
    assert stop(balance, *zip(*pairs, strict=True), task=main) == -1
    assert balance.weights()[main] == 1.0


@given(series, st.integers(1, 4), st.floats(0.1, 10), st.floats(0, 5))
@settings(max_examples=100, deadline=None)
def test_balance_stops_where_the_criterion_of_the_whole_series_does(pairs, k, importance, threshold):
    train, validation = zip(*pairs, strict=True)
    values = [
        criterion(train[:epoch], validation[:epoch], k, importance) for epoch in range(1, len(train) + 1)
    ]
    over = [epoch for epoch, value in enumerate(values, 1) if value is not None and value > threshold]
    balance = TaskConstrained(importance=importance, strip_epochs=k, threshold=threshold)
    assert stop(balance, train, validation) == (over[0] if over else -1)


@given(series, st.integers(1, 4), st.floats(0.1, 10))
def test_criterion_is_numpys(pairs, k, importance):
    train, validation = np.array(pairs).T
    strip, lowest = train[-k - 1 :], train.min()
    rest = strip.sum() - k * np.median(strip)
    value = criterion(train.tolist(), validation.tolist(), k, importance)
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
    assert criterion([4.0, 4.0, 4.0, 0.5, 0.5], [9.0] * 5, k=4, importance=1.0) is None


def test_generalisation_at_a_training_error_of_0_is_its_limit():
    assert generalisation(0.5, 0.0, 2.0) == math.inf
    assert generalisation(0.0, 0.0, 2.0) == 0.0
    assert generalisation(0.5, 1.0, 1.0) == -0.5


def test_learned_by_heart_is_stopped_once_level():
    """Zeros after a fall: the median of 0 gives a trend of 0, and a strip of zeros k, against an infinite gap."""
    assert stop(TaskConstrained(strip_epochs=2), [1.0, 0.0, 0.0], [1.0, 0.5, 0.5]) == -1
    assert stop(TaskConstrained(strip_epochs=2), [1.0, 0.0, 0.0, 0.0], [1.0, 0.5, 0.5, 0.5]) == 4


def test_settings_and_series_out_of_range_are_said():
    for setting, value in (("main", "depth"), ("importance", 0.0), ("strip_epochs", 0), ("threshold", -1.0)):
        with pytest.raises(ConfigError, match=rf"`{setting}` should be .*Found `{setting} = {value}`"):
            TaskConstrained(**{setting: value})
    with pytest.raises(ConfigError, match=r"`validation` should be finite and 0 or more"):
        stop(TaskConstrained(), [1.0], [math.nan])
    with pytest.raises(ValueError, match="as many as `train_errors`"):
        criterion([1.0], [], k=1, importance=1.0)
    with pytest.raises(ValueError, match="2 errors or more"):
        trend([1.0])
