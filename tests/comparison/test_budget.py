"""Epochs are shared out so that seconds come out equal."""

from hypothesis import given
from hypothesis import strategies as st

from knowhue.comparison.budget import epochs_within

seconds = st.floats(0.1, 100.0)


@given(st.floats(1.0, 1000.0), st.integers(1, 50), seconds)
def test_one_phase_comes_within_half_an_epoch_or_has_one(budget, usual, each):
    for epochs, pair in (((usual, 0), (each, 0.0)), ((0, usual), (0.0, each))):
        heads, tuned = epochs_within(budget, epochs, pair)
        count = heads + tuned
        assert 0 in (heads, tuned)
        assert count == 1 or abs(count * each - budget) <= each / 2 + 1e-6


@given(st.floats(1.0, 1000.0), st.integers(1, 20), st.integers(1, 20), seconds, seconds)
def test_no_usual_share_of_epochs_comes_nearer(budget, heads, tuned, own, others):
    found = epochs_within(budget, (heads, tuned), (own, others))
    assert min(found) >= 1

    def miss(epochs):
        return abs(epochs[0] * own + epochs[1] * others - budget)

    for more in range(1, int(budget / others) + 3):
        assert miss(found) <= miss((max(1, int(more * heads / tuned)), more)) + 1e-9


def test_the_usual_epochs_fit_their_own_time():
    assert epochs_within(4 * 7.0 + 2 * 14.0, (4, 2), (7.0, 14.0)) == (4, 2)
    assert epochs_within(120.0, (0, 6), (0.0, 20.0)) == (0, 6)
