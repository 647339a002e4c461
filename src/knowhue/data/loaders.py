"""Training targets, and seeded, augmented batches that are divided among processes.

Images can be degraded to look like old photos, by emulsion, fading, grain and scratches. Strengths were measured on
historic photos (`benchmarks/old_photos.py`, at 96 pixels): in eight of ten, black is at 6 to 22 L* and white at 76 to
96; in nine of ten, the standard deviation of grain is at most 1.5 L*.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from knowhue.color import FloatArray, rgb_to_lab
from knowhue.config import Supervision
from knowhue.data.prepare import Prepared
from knowhue.errors import ConfigError
from knowhue.randomness import stream, stream_seed
from knowhue.tensors import RGB, Batch, Lightness

Integers = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Flags = NDArray[np.bool_]
FADED_BLACK, FADED_WHITE = 22.0, 76.0  # highest L* of faded black, and lowest of faded white
GRAIN = 1.5  # largest standard deviation of grain, L*
CONTRAST = 0.5  # largest absolute value of the natural logarithm of the tone curve's exponent
SCRATCHES, DEPTH = 3, 40.0  # most scratches of an image, and largest change of L* by one, up or down
ORTHOCHROMATIC = (0.0, 0.35, 0.65)
"""Weights of red, green and blue in an orthochromatic emulsion, which is blind to red; used until about 1920."""


class Damage(NamedTuple):
    """Random degradation of N images."""

    degraded: Flags
    """(N,) whether the image is degraded at all"""
    emulsion: FloatArray
    """(N,) 0 for the response of L*, 1 for an orthochromatic one"""
    exponent: FloatArray
    """(N,) exponent of the tone curve"""
    black: FloatArray
    """(N,) L* of black"""
    white: FloatArray
    """(N,) L* of white"""
    grain: FloatArray
    """(N,) standard deviation of grain, L*"""
    scratches: FloatArray
    """(N, SCRATCHES, 5): position 0 to 1, slope, begin and end 0 to 1, change of L* (0 for no scratch)"""

    def of(self, chosen: slice) -> "Damage":
        """The degradation of some of the images."""
        return self._make(each[chosen] for each in self)


def draw_damage(seed: int, epoch: int, count: int, share: float) -> Damage:
    """Draw the degradation of an epoch's images; each is degraded with probability `share`, 0 to 1."""
    generator = stream(seed, "degradation", epoch)

    def uniform(low: float, high: float, *shape: int) -> FloatArray:
        return generator.uniform(low, high, (count, *shape)).astype(np.float32)

    degraded = generator.random(count) < share
    scratches = uniform(0, 1, SCRATCHES, 5)
    scratches[..., 1] = scratches[..., 1] / 5 - 0.1  # nearly vertical, as on film and plates
    is_there = generator.random((count, SCRATCHES)) < 0.25
    scratches[..., 4] = is_there * DEPTH * (2 * scratches[..., 4] - 1)
    return Damage(
        degraded,
        # half of all emulsions have the response of L*
        emulsion=uniform(-1, 1).clip(0),
        exponent=np.exp(uniform(-CONTRAST, CONTRAST)),
        black=uniform(0, FADED_BLACK),
        white=uniform(FADED_WHITE, 100),
        grain=uniform(0, GRAIN),
        scratches=scratches,
    )


def grain(seed: int, epoch: int, start: int, shape: Sequence[int]) -> Tensor:
    """Standard normal noise for the batch that begins at image `start` of its epoch."""
    generator = torch.Generator().manual_seed(stream_seed(seed, "grain", epoch, start))
    return torch.randn(*shape, generator=generator)


def degrade(lightness: Lightness, rgb: RGB, damage: Damage, noise: Tensor) -> Lightness:
    """Degrade the lightness of photos to that of old photos.

    The steps are the response of the emulsion, the tone curve, fading, grain and scratches. Grain is added after fading
    because it was measured on faded photos.

    Args:
        lightness: L* (B, 1, H, W), 0 to 100.
        rgb: the same photos, (B, 3, H, W), 0 to 1.
        damage: the degradation of these photos.
        noise: standard normal noise (B, 1, H, W), for grain.

    Returns:
        L* (B, 1, H, W), 0 to 100; unchanged for images that are not degraded.
    """
    values = [torch.from_numpy(np.ascontiguousarray(each)).to(rgb.device) for each in damage]
    degraded, emulsion, exponent, black, white, roughness = (
        each[:, None, None, None] for each in values[:-1]
    )
    exposed = lightness.lerp(_orthochromatic(rgb), emulsion)
    printed = 100 * (exposed.clamp(0, 100) / 100) ** exponent
    faded = black + printed * (white - black) / 100
    degraded_lightness = faded + roughness * noise + _scratches(values[-1], *rgb.shape[2:])
    return torch.where(degraded, degraded_lightness.clamp(0, 100), lightness)


def _orthochromatic(rgb: RGB) -> Lightness:
    """L* of photos on an orthochromatic emulsion; neutral grays keep their L*."""
    # weights apply to sRGB codes, not to linear light, because this needs only one conversion
    gray = torch.einsum("bchw,c->bhw", rgb, torch.tensor(ORTHOCHROMATIC).to(rgb))
    return rgb_to_lab(gray[:, None].expand_as(rgb))[0]


def _scratches(lines: Tensor, height: int, width: int) -> Tensor:
    """Changes of L* (B, 1, H, W) by straight scratches, one pixel wide, given as (B, n, 5), see `Damage`."""
    place, slope, begin, end, change = (each[..., None, None] for each in lines.unbind(-1))
    down = torch.linspace(0, 1, height, device=lines.device)[:, None]
    across = torch.arange(width, device=lines.device)
    on_line = ((place + slope * down) * width - across).abs() <= 0.5
    within = (down - begin) * (down - end) <= 0
    return (change * (on_line & within)).sum(1, keepdim=True)


class ProcessShare(NamedTuple):
    """Which of `world` processes this one is, from 0."""

    rank: int = 0
    world: int = 1


class Targets(NamedTuple):
    """Training targets of all prepared images."""

    label: Integers
    """(N,) class index, -1 if unknown"""
    colour_of: Integers
    """(N,) position of the image whose colours are the target: the image's own, except in a placebo"""
    train: Integers
    """positions of the training images, ascending"""


class TrainingBatches:
    """The batches of one epoch, the same for every arm of a block and any number of processes.

    Labelled and unlabelled images are drawn separately, each from endless reshuffled passes over its own pool, so that
    every batch has labels, however few there are, and all images of a pool are drawn equally often. If all images are
    labelled, this is the usual epoch: each image once, the last incomplete batch dropped. If both were drawn from one
    pool, an arm that learns from labels alone would miss many steps: with 20 labels of 1,000, half of the batches
    would have none.

    Order and augmentation depend on (seed, purpose, epoch) alone. Iteration yields this process's part of each batch,
    and which of its images are mirrored.

    Args:
        batch_size: images per batch, over all processes; with fewer training images, all of them are one batch.
        epoch: number of the epoch, counted from 0 over all phases.
        shift_px: largest random shift of an image, pixels.
        targets: training targets; if None, all images with their own labels and colours.
        labelled_batch_share: smallest labelled share of a batch if some images are unlabelled, above 0 and below 1. It
            is larger if the labelled share of all images is.
        degraded_share: share of images degraded to old photos, see `degrade`; 0 to 1.

    Raises:
        ConfigError: there are more processes than images.
    """

    def __init__(
        self,
        prepared: Prepared,
        batch_size: int,
        seed: int,
        epoch: int,
        shift_px: int,
        share: ProcessShare,
        device: torch.device,
        targets: Targets | None = None,
        labelled_batch_share: float = 0.5,
        degraded_share: float = 0.0,
    ) -> None:
        self.prepared, self.share, self.device = prepared, share, device
        self.targets = targets or find_targets(prepared, Supervision(), seed)
        train = self.targets.train
        if len(train) < share.world:
            raise ConfigError(
                f"There should be at least as many training images as processes. Found {len(train)} images for "
                f"{share.world} processes. Start fewer, or add images."
            )
        # a multiple of the number of processes, so that all have equally many images
        self.batch_size = min(batch_size, len(train) // share.world * share.world)
        self.order = self._draw(train, seed, epoch, labelled_batch_share)
        self.mirrored, self.shift = draw_augmentation(seed, epoch, len(self.order), shift_px)
        self.seed, self.epoch = seed, epoch
        self.damage = draw_damage(seed, epoch, len(self.order), degraded_share)

    def _draw(self, train: Integers, seed: int, epoch: int, labelled_batch_share: float) -> Integers:
        """Positions of the epoch's images, in the order of its batches."""
        known = self.targets.label[train] >= 0
        labelled = labelled_in_batch(self.batch_size, known, labelled_batch_share)
        steps, parts = len(train) // self.batch_size, []
        for name, pool, count in (
            ("labelled", train[known], labelled),
            ("unlabelled", train[~known], self.batch_size - labelled),
        ):
            # a single pool drops its last, incomplete batch; of two pools, the next epoch continues where this one ends
            spent = len(train) if count == self.batch_size else steps * count
            drawn = endless(pool, seed, name, epoch * spent, steps * count)
            parts.append(drawn.reshape(steps, count))
        return np.concatenate(parts, axis=1).reshape(-1)

    def __len__(self) -> int:
        return len(self.order) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Batch, Flags]]:
        for start in range(0, len(self.order), self.batch_size):
            mine = slice(start + self.share.rank, start + self.batch_size, self.share.world)
            # computed for the whole batch, so that the number of processes makes no difference
            weight = label_weights(self.targets.label[self.order[start : start + self.batch_size]])
            weight = weight[self.share.rank :: self.share.world]
            positions, mirrored, shift = self.order[mine], self.mirrored[mine], self.shift[mine]
            rgb, label = augment(self.prepared.rgb[positions], mirrored, shift), self.targets.label[positions]
            batch = to_batch(positions, rgb, label, self.device, weight)
            donors = self.targets.colour_of[positions]
            if (donors != positions).any():  # only in the colour placebo
                foreign = augment(self.prepared.rgb[donors], mirrored, shift)
                batch = batch._replace(chroma=rgb_to_lab(to_rgb(foreign, self.device))[1])
            yield batch._replace(lightness=self._degraded(batch.lightness, rgb, start, mine)), mirrored

    def _degraded(self, lightness: Lightness, rgb: Bytes, start: int, mine: slice) -> Lightness:
        """The network's input for this process's part of a batch, partly degraded."""
        damage = self.damage.of(mine)
        if not damage.degraded.any():
            return lightness
        # drawn for the whole batch, so that the number of processes makes no difference
        noise = grain(self.seed, self.epoch, start, (self.batch_size, 1, *rgb.shape[1:3]))
        noise = noise[self.share.rank :: self.share.world].to(self.device)
        return degrade(lightness, to_rgb(rgb, self.device), damage, noise)


def labelled_in_batch(batch_size: int, known: Flags, least: float) -> int:
    """Number of labelled images in a batch: the share `least`, or that of all images (N,) if it is larger.

    >>> labelled_in_batch(32, np.array([True] + 49 * [False]), 0.5), labelled_in_batch(32, np.array([True]), 0.5)
    (16, 32)
    """
    if known.all() or not known.any():
        return batch_size * bool(known.all())
    count = round(max(least, float(known.mean())) * batch_size)
    # at least one of each pool
    return min(max(count, 1), max(batch_size - 1, 1))


def endless(pool: Integers, seed: int, name: str, start: int, count: int) -> Integers:
    """Draw `count` positions from endless reshuffled passes over a pool, after the first `start` draws.

    Each pass is shuffled by a random stream of its own, named by the pool and the number of the pass.
    """
    if not count:
        return pool[:0]
    first, last = start // len(pool), (start + count - 1) // len(pool)
    passes = [stream(seed, "order", name, each).permutation(pool) for each in range(first, last + 1)]
    begin = start - first * len(pool)
    return np.concatenate(passes)[begin : begin + count]


def split_batches(
    prepared: Prepared, split: str, batch_size: int, share: ProcessShare, device: torch.device
) -> Iterator[Batch]:
    """Batches of a split without augmentation; each image is on exactly one process."""
    mine = prepared.positions(split)[share.rank :: share.world]
    yield from plain_batches(prepared, mine, batch_size, device)


def plain_batches(
    prepared: Prepared, positions: Integers, batch_size: int, device: torch.device
) -> Iterator[Batch]:
    """Batches of the images at some positions, in order, without augmentation."""
    for start in range(0, len(positions), batch_size):
        chosen = positions[start : start + batch_size]
        yield to_batch(chosen, prepared.rgb[chosen], prepared.label[chosen], device)


def to_batch(
    positions: Integers, rgb: Bytes, label: Integers, device: torch.device, weight: FloatArray | None = None
) -> Batch:
    """A batch on the device, from sRGB images (B, H, W, 3) that are converted there.

    Labels (B,) are class indices, -1 if unknown. Weights (B,) of the class loss default to `label_weights(label)`.
    """
    lightness, chroma = rgb_to_lab(to_rgb(rgb, device))
    weight = label_weights(label) if weight is None else weight
    position, known, weights = (torch.from_numpy(each).to(device) for each in (positions, label, weight))
    return Batch(position, lightness, chroma, known, weights)


def to_rgb(images: Bytes, device: torch.device) -> RGB:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32, 0 to 1."""
    # transferred as 8 bits, a quarter of the bytes of floats
    return torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float() / 255


def label_weights(label: Integers) -> FloatArray:
    """Weights in the class loss: 0 for unlabelled images, otherwise batch size over labelled images; see `Batch`.

    >>> label_weights(np.array([0, -1, 2, -1])).tolist()
    [2.0, 0.0, 2.0, 0.0]
    """
    labelled = label >= 0
    return (labelled * len(label) / max(labelled.sum(), 1)).astype(np.float32)


def draw_augmentation(seed: int, epoch: int, count: int, shift_px: int) -> tuple[Flags, Integers]:
    """Whether each image of an epoch is mirrored, (count,), and its shift in pixels, (count, 2), rows first."""
    # drawn for the whole epoch, so that the number of processes makes no difference
    generator = stream(seed, "augmentation", epoch)
    mirrored = generator.random(count) < 0.5
    return mirrored, generator.integers(-shift_px, shift_px + 1, size=(count, 2))


def augment(rgb: Bytes, mirrored: Flags, shift: Integers) -> Bytes:
    """Mirror and shift images, with reflected borders.

    Args:
        rgb: (B, H, W, 3).
        mirrored: (B,) whether left and right are swapped.
        shift: (B, 2) pixels, rows first; below the side length.
    """
    _, height, width, _ = rgb.shape
    rows = reflect(np.arange(height) + shift[:, :1], height)
    columns = reflect(np.arange(width) + shift[:, 1:], width)
    columns = np.where(mirrored[:, None], width - 1 - columns, columns)
    return rgb[np.arange(len(rgb))[:, None, None], rows[:, :, None], columns[:, None, :]]


def reflect(position: Integers, length: int) -> Integers:
    """Reflect positions outside 0..length-1 at the edges, without repeating the edge pixels.

    >>> reflect(np.array([-2, 0, 4]), 4).tolist()
    [2, 0, 2]
    """
    position = np.abs(position)
    return np.where(position >= length, 2 * (length - 1) - position, position)


def find_targets(prepared: Prepared, supervision: Supervision, seed: int) -> Targets:
    """Choose training images, hide labels, shuffle labels or exchange colours, each with its own random stream.

    The images and labels of a smaller share are a subset of those of a larger one. Shuffled labels keep the count of
    every class, and unlabelled images stay unlabelled. Colours are exchanged along one cycle through all training
    images, so that none keeps its own. Images of other splits are not changed.
    """
    label, train = prepared.label.copy(), prepared.positions("train")
    colour_of = np.arange(len(label))
    if supervision.image_share < 1:
        # without `resample` all seeds train on the same images
        drawn_by = (seed, "images") if supervision.resample else (0, "images")
        train = np.sort(_share_of_each_class(train, label, supervision.image_share, *drawn_by))
    labelled = train[label[train] >= 0]
    known = _share_of_each_class(labelled, label, supervision.labelled_share, seed, "labelled")
    label[np.setdiff1d(prepared.positions("train"), known)] = -1
    if supervision.placebo == "labels":
        known = np.sort(known)
        label[known] = label[stream(seed, "placebo-labels").permutation(known)]
    if supervision.placebo == "colours":
        # a random permutation has one fixed point on average, a cycle none
        cycle = stream(seed, "placebo-colours").permutation(train)
        colour_of[cycle] = np.roll(cycle, 1)
    return Targets(label, colour_of, train)


def _share_of_each_class(
    positions: Integers, label: Integers, share: float, seed: int, purpose: str
) -> Integers:
    """A share of each class, at least one image, as the first of a random order; unlabelled images are one class."""
    generator, chosen = stream(seed, purpose), [positions[:0]]
    for number in np.unique(label[positions]):
        members = generator.permutation(positions[label[positions] == number])
        # the first of one order, so that a smaller share is a subset of a larger one
        chosen.append(members[: max(1, round(share * len(members)))])
    return np.concatenate(chosen)
