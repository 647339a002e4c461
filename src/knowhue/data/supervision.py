"""What each training picture teaches: its label and its colours, or a placebo of them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.config import Supervision
from knowhue.data.prepare import Prepared
from knowhue.randomness import stream


class Targets(NamedTuple):
    """What all prepared pictures are taught.

    Attributes:
        label: (N,) class index, -1 where unknown.
        colour_of: (N,) the picture whose colours are the target; its own position except in a placebo.
    """

    label: NDArray[np.int64]
    colour_of: NDArray[np.int64]


def find_targets(prepared: Prepared, supervision: Supervision, seed: int) -> Targets:
    """Hide labels, shuffle labels or exchange colours among the training pictures, each from its own stream.

    The labels known at a smaller share are among those known at a larger one. Shuffled labels keep every
    class's count, and the pictures without a label stay without. Colours go round one cycle through all
    training pictures, so none keeps its own.

    Args:
        prepared: the pictures; those for validation are left as they are.
        supervision: see `config.Supervision`.
        seed: of the run.
    """
    label, colour_of = prepared.label.copy(), np.arange(len(prepared.label))
    train = prepared.positions("train")
    hidden = _hidden(prepared, supervision.labelled_share, seed)
    label[hidden] = -1
    if supervision.placebo == "labels":
        known = train[label[train] >= 0]
        label[known] = label[stream(seed, "placebo-labels").permutation(known)]
    if supervision.placebo == "colours":
        cycle = stream(seed, "placebo-colours").permutation(train)
        colour_of[cycle] = np.roll(cycle, 1)
    return Targets(label, colour_of)


def _hidden(prepared: Prepared, share: float, seed: int) -> NDArray[np.int64]:
    """Training pictures whose label is not known at this share; each class keeps at least one."""
    generator, hidden = stream(seed, "labelled"), []
    for number in range(len(prepared.classes)):
        members = generator.permutation(np.flatnonzero(prepared.is_train & (prepared.label == number)))
        hidden.append(members[max(1, round(share * len(members))) :])
    return np.concatenate(hidden)
