"""Seeded, augmented batches that several processes share out among them."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from knowhue.color import rgb_to_lab
from knowhue.data.prepare import Prepared
from knowhue.data.supervision import Targets
from knowhue.randomness import stream
from knowhue.tensors import RGB, Batch


class Share(NamedTuple):
    """Which process this is, of how many."""

    rank: int = 0
    world: int = 1


class Augmentation(NamedTuple):
    """What happens to each picture of an epoch: mirrored or not, moved by some pixels."""

    mirrored: NDArray[np.bool_]
    shift: NDArray[np.int64]


class TrainingBatches:
    """One pass over the training pictures in a seeded order; the last, smaller batch is dropped.

    The order and the augmentation come from (seed, purpose, epoch) alone, so every arm of a block, and any
    number of processes, sees the same pictures in the same steps. Iterating gives this process's part of
    each batch, and which of its pictures are mirrored.

    Args:
        prepared: the pictures.
        batch_size: over all processes; a smaller set is one batch.
        seed: of the run.
        epoch: counted from 0 over all phases.
        shift_px: pictures move by up to this much.
        share: which process this is.
        device: where batches go.
        targets: what the pictures teach; the truth if None.
    """

    def __init__(
        self,
        prepared: Prepared,
        batch_size: int,
        seed: int,
        epoch: int,
        shift_px: int,
        share: Share,
        device: torch.device,
        targets: Targets | None = None,
    ) -> None:
        positions = prepared.positions("train")
        self.prepared, self.share, self.device = prepared, share, device
        self.targets = targets or Targets(prepared.label, np.arange(len(prepared.label)))
        self.batch_size = min(batch_size, len(positions) // share.world * share.world)
        self.order = stream(seed, "order", epoch).permutation(positions)
        self.augmentation = draw_augmentation(seed, epoch, len(positions), shift_px)

    def __len__(self) -> int:
        return len(self.order) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Batch, NDArray[np.bool_]]]:
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            chosen = slice(start, start + self.batch_size)
            mine = slice(start + self.share.rank, start + self.batch_size, self.share.world)
            weight = label_weights(self.targets.label[self.order[chosen]])
            weight = weight[self.share.rank :: self.share.world]
            applied = Augmentation(self.augmentation.mirrored[mine], self.augmentation.shift[mine])
            yield self._batch(self.order[mine], applied, weight), applied.mirrored

    def _batch(
        self, positions: NDArray[np.int64], applied: Augmentation, weight: NDArray[np.float32]
    ) -> Batch:
        rgb = augment(self.prepared.rgb[positions], applied)
        batch = to_batch(self.prepared, positions, rgb, weight, self.device)
        batch = batch._replace(label=torch.from_numpy(self.targets.label[positions]).to(self.device))
        donors = self.targets.colour_of[positions]
        if (donors == positions).all():
            return batch
        foreign = augment(self.prepared.rgb[donors], applied)
        return batch._replace(chroma=rgb_to_lab(to_rgb(foreign, self.device))[1])


def validation_batches(
    prepared: Prepared, batch_size: int, share: Share, device: torch.device
) -> Iterator[Batch]:
    """The validation pictures as they are, each on exactly one process."""
    mine = prepared.positions("validation")[share.rank :: share.world]
    yield from plain_batches(prepared, mine, batch_size, device)


def plain_batches(
    prepared: Prepared, positions: NDArray[np.int64], batch_size: int, device: torch.device
) -> Iterator[Batch]:
    """Some pictures as they are, in order."""
    for start in range(0, len(positions), batch_size):
        chosen = positions[start : start + batch_size]
        yield to_batch(prepared, chosen, prepared.rgb[chosen], label_weights(prepared.label[chosen]), device)


def to_batch(
    prepared: Prepared,
    positions: NDArray[np.int64],
    rgb: NDArray[np.uint8],
    weight: NDArray[np.float32],
    device: torch.device,
) -> Batch:
    """Move pictures to the device and convert them there, all at once."""
    lightness, chroma = rgb_to_lab(to_rgb(rgb, device))
    label = torch.from_numpy(prepared.label[positions]).to(device)
    position = torch.from_numpy(positions).to(device)
    return Batch(position, lightness, chroma, label, torch.from_numpy(weight).to(device))


def to_rgb(pictures: NDArray[np.uint8], device: torch.device) -> RGB:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32, 0 to 1."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).to(device).permute(0, 3, 1, 2).float() / 255


def label_weights(label: NDArray[np.int64]) -> NDArray[np.float32]:
    """0 for an unlabelled picture, else batch size over labelled pictures; see `Batch`.

    >>> label_weights(np.array([0, -1, 2, -1])).tolist()
    [2.0, 0.0, 2.0, 0.0]
    """
    labelled = label >= 0
    return (labelled * len(label) / max(labelled.sum(), 1)).astype(np.float32)


def draw_augmentation(seed: int, epoch: int, count: int, shift_px: int) -> Augmentation:
    """Draw every picture's augmentation of an epoch from its stream."""
    generator = stream(seed, "augmentation", epoch)
    mirrored = generator.random(count) < 0.5
    return Augmentation(mirrored, generator.integers(-shift_px, shift_px + 1, size=(count, 2)))


def augment(rgb: NDArray[np.uint8], augmentation: Augmentation) -> NDArray[np.uint8]:
    """Mirror and move pictures; what moves in at an edge is a reflection of what is there.

    Args:
        rgb: (B, H, W, 3).
        augmentation: of these B pictures; shifts are below the side length.
    """
    _, height, width, _ = rgb.shape
    rows = reflect(np.arange(height) + augmentation.shift[:, :1], height)
    columns = reflect(np.arange(width) + augmentation.shift[:, 1:], width)
    columns = np.where(augmentation.mirrored[:, None], width - 1 - columns, columns)
    picture = np.arange(len(rgb))[:, None, None]
    return rgb[picture, rows[:, :, None], columns[:, None, :]]


def reflect(position: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Fold positions outside 0..length-1 back in, without repeating the edge.

    >>> reflect(np.array([-2, 0, 4]), 4).tolist()
    [2, 0, 2]
    """
    position = np.abs(position)
    return np.where(position >= length, 2 * (length - 1) - position, position)
