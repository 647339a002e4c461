"""The one place where a difference becomes text: no rounding takes a sign away."""

from collections.abc import Sequence

_NOTHING = 1e-9
"""A rounding error, not a difference; in the unit that is shown."""


def signed(values: Sequence[float], places: int) -> list[str]:
    """Return differences as text, signed, all with as many places as the smallest of them needs to show a digit.

    Args:
        values: of one sentence or interval, in the unit that is shown.
        places: at the least.

    >>> signed([0.0021, 0.034], 2), signed([-0.16], 2), signed([0.0], 2), signed([-0.004, 0.0], 1)
    (['+0.002', '+0.034'], ['−0.16'], ['0.00'], ['−0.004', '0.000'])
    """
    shown = max(map(lambda value: _places(value, places), values), default=places)
    return [
        f"{value:+.{shown}f}".replace("-", "−") if _counts(value) else f"{0:.{shown}f}" for value in values
    ]


def unsigned(value: float, places: int) -> str:
    """Return the size of a difference as text, with as many places.

    >>> unsigned(-0.0021, 2), unsigned(0.16, 2)
    ('0.002', '0.16')
    """
    return signed([value], places)[0].lstrip("+−")


def _counts(value: float) -> bool:
    return abs(value) > _NOTHING


def _places(value: float, least: int) -> int:
    """Return the first number of places at which a value does not round to 0."""
    places = least
    while _counts(value) and not round(abs(value), places):
        places += 1
    return places
