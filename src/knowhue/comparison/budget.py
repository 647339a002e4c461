"""How many epochs fit a budget of seconds; pure arithmetic."""

from knowhue.comparison.asked import Epochs


def epochs_within(budget_s: float, usual: Epochs, seconds: tuple[float, float]) -> Epochs:
    """The whole epochs whose training time comes nearest to a budget, shared out about as usual.

    Args:
        budget_s: seconds, above 0.
        usual: epochs on the frozen encoder and of fine-tuning; at least one of them is not 0.
        seconds: what an epoch of each takes; that of a phase without epochs is not looked at.

    Returns:
        A phase that usually has epochs has at least one, so a budget below that is exceeded.

    >>> epochs_within(60.0, (3, 2), (7.0, 14.0)), epochs_within(60.0, (0, 5), (0.0, 40.0))
    ((4, 2), (0, 2))
    """
    heads, tuned = usual
    if not heads or not tuned:
        own = seconds[0] if heads else seconds[1]
        count = max(1, round(budget_s / own))
        return (count, 0) if heads else (0, count)
    most = int(budget_s / seconds[1]) + 1
    found = [(near, f) for f in range(1, most + 1) for near in _near(f * heads / tuned)]
    return min(found, key=lambda each: (abs(each[0] * seconds[0] + each[1] * seconds[1] - budget_s), each))


def _near(wanted: float) -> list[int]:
    return sorted({max(1, int(wanted)), max(1, int(wanted) + 1)})
