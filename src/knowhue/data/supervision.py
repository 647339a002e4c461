"""What each training image teaches: whether it is used, its label and its colours, or a placebo of them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.config import Supervision
from knowhue.data.prepare import Prepared
from knowhue.randomness import stream


class Targets(NamedTuple):
    """What all prepared images are taught.

    Attributes:
        label: (N,) class index, -1 where unknown.
        colour_of: (N,) the image whose colours are the target; its own position except in a placebo.
        train: positions of the images that are trained on, ascending.
    """

    label: NDArray[np.int64]
    colour_of: NDArray[np.int64]
    train: NDArray[np.int64]


def true_targets(prepared: Prepared) -> Targets:
    """All training images, each with its own label and colours."""
    return Targets(prepared.label, np.arange(len(prepared.label)), prepared.positions("train"))


def find_targets(prepared: Prepared, supervision: Supervision, seed: int) -> Targets:
    """Choose images, hide labels, shuffle labels or exchange colours, each from its own stream.

    The images and labels of a smaller share are among those of a larger one. Shuffled labels keep every class's
    count, and the images without a label stay without. Colours go round one cycle through all images that are
    trained on, so none keeps its own.

    Args:
        prepared: the images; those that are not for training are left as they are.
        supervision: see `config.Supervision`.
        seed: of the run.
    """
    label, colour_of, train = true_targets(prepared)
    label = label.copy()
    if supervision.image_share < 1:
        drawn_by = (seed, "images") if supervision.resample else (0, "images")
        train = np.sort(_share_of_each_class(train, label, supervision.image_share, *drawn_by))
    labelled = train[label[train] >= 0]
    known = _share_of_each_class(labelled, label, supervision.labelled_share, seed, "labelled")
    label[np.setdiff1d(prepared.positions("train"), known)] = -1
    if supervision.placebo == "labels":
        known = np.sort(known)
        label[known] = label[stream(seed, "placebo-labels").permutation(known)]
    if supervision.placebo == "colours":
        cycle = stream(seed, "placebo-colours").permutation(train)
        colour_of[cycle] = np.roll(cycle, 1)
    return Targets(label, colour_of, train)


def _share_of_each_class(
    positions: NDArray[np.int64], label: NDArray[np.int64], share: float, seed: int, purpose: str
) -> NDArray[np.int64]:
    """The first of each class in an order of its own, at least one; images without a label are a class of theirs."""
    generator, chosen = stream(seed, purpose), [positions[:0]]
    for number in np.unique(label[positions]):
        members = generator.permutation(positions[label[positions] == number])
        chosen.append(members[: max(1, round(share * len(members)))])
    return np.concatenate(chosen)
