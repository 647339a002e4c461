"""Which way up a film is shown: quarter turns and mirrorings, as its container tells players."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray


class Turn(NamedTuple):
    """From frames as they are stored to frames as they are shown: first transposed, then mirrored."""

    transposed: bool = False
    left_right: bool = False
    up_down: bool = False

    @classmethod
    def of(cls, matrix: Sequence[int]) -> "Turn":
        """The quarter turn nearest to a display matrix: 9 numbers, row by row, x' = m0 x + m3 y, y' = m1 x + m4 y.

        >>> import numpy as np
        >>> Turn.of([0, 1, 0, -1, 0, 0, 0, 0, 1]).upright(np.array([[1, 2], [3, 4]])).tolist()
        [[3, 1], [4, 2]]
        """
        if abs(matrix[0]) >= abs(matrix[1]):
            return cls(False, matrix[0] < 0, matrix[4] < 0)
        return cls(True, matrix[3] < 0, matrix[1] < 0)

    def upright(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values (h, w, ...) as they are shown."""
        return self._mirrored(values.swapaxes(0, 1) if self.transposed else values).copy()

    def stored(self, values: NDArray[Any]) -> NDArray[Any]:
        """The inverse of `upright`."""
        values = self._mirrored(values)
        return (values.swapaxes(0, 1) if self.transposed else values).copy()

    def _mirrored(self, values: NDArray[Any]) -> NDArray[Any]:
        return values[:: -1 if self.up_down else 1, :: -1 if self.left_right else 1]
