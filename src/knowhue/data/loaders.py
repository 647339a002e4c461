"""What each training image teaches, and seeded, augmented batches that processes share out among them.

Old photos are what time, grain and the emulsions of their day made of a lightness. Strengths are those of historic
photos (`benchmarks/old_photos.py`, at 96 pixels): in eight of ten the black lies at 6 to 22 L*, the white at 76 to 96;
in nine of ten grain is up to 1.5.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from knowhue.color import rgb_to_lab
from knowhue.config import Supervision
from knowhue.data.prepare import Prepared
from knowhue.errors import ConfigError
from knowhue.randomness import stream, stream_seed
from knowhue.tensors import RGB, Batch, Lightness

FADED_BLACK, FADED_WHITE = 22.0, 76.0
"""L* up to which black is raised, and down to which white falls, as paper fades."""
GRAIN = 1.5
"""Largest standard deviation of grain, L*."""
CONTRAST = 0.5
"""Largest natural logarithm, up or down, of the exponent of the tone curve."""
SCRATCHES, DEPTH = 3, 40.0
"""Most scratches of an image, and how far one changes L*, up or down."""
ORTHOCHROMATIC = (0.0, 0.35, 0.65)
"""Shares of red, green and blue light in what an emulsion saw that is blind to red; plates until about 1920."""


class Damage(NamedTuple):
    """What is done to each of N images, drawn; `False` in `degraded` leaves one as it is."""

    degraded: NDArray[np.bool_]
    """(N,) whether anything is done"""
    emulsion: NDArray[np.float32]
    """(N,), 0 sees like L* to 1 for orthochromatic"""
    exponent: NDArray[np.float32]
    """(N,) of the tone curve"""
    black: NDArray[np.float32]
    """(N,) L* of black"""
    white: NDArray[np.float32]
    """(N,) L* of white"""
    grain: NDArray[np.float32]
    """(N,) standard deviation, L*"""
    scratches: NDArray[np.float32]
    """(N, SCRATCHES, 5): place 0 to 1, slope, begin and end 0 to 1, change of L*, 0 where there is none"""

    def of(self, chosen: slice) -> "Damage":
        """That of some images."""
        return self._make(each[chosen] for each in self)


def draw_damage(seed: int, epoch: int, count: int, share: float) -> Damage:
    """Draw what an epoch's images suffer, `share` of them (0 to 1) anything at all."""
    generator = stream(seed, "degradation", epoch)

    def uniform(low: float, high: float, *shape: int) -> NDArray[np.float32]:
        return generator.uniform(low, high, (count, *shape)).astype(np.float32)

    degraded = generator.random(count) < share
    scratches = uniform(0, 1, SCRATCHES, 5)
    scratches[..., 1] = scratches[..., 1] / 5 - 0.1  # nearly upright, as film and plates are scratched
    is_there = generator.random((count, SCRATCHES)) < 0.25
    scratches[..., 4] = is_there * DEPTH * (2 * scratches[..., 4] - 1)
    return Damage(
        degraded,
        # half of all emulsions saw as we do
        emulsion=uniform(-1, 1).clip(0),
        exponent=np.exp(uniform(-CONTRAST, CONTRAST)),
        black=uniform(0, FADED_BLACK),
        white=uniform(FADED_WHITE, 100),
        grain=uniform(0, GRAIN),
        scratches=scratches,
    )


def grain(seed: int, epoch: int, start: int, shape: Sequence[int]) -> Tensor:
    """Standard normal noise for a batch, which begins at image `start` of its epoch."""
    generator = torch.Generator().manual_seed(stream_seed(seed, "grain", epoch, start))
    return torch.randn(*shape, generator=generator)


def degrade(lightness: Lightness, rgb: RGB, damage: Damage, noise: Tensor) -> Lightness:
    """The lightness of photos as they would be found in an attic.

    The emulsion sees, its curve and the paper give contrast, time fades and scratches. Grain comes after fading, whose
    range is that of old photos: so was it measured.

    Args:
        lightness: L* (B, 1, H, W), 0 to 100.
        rgb: of the same photos, (B, 3, H, W), 0 to 1.
        damage: of these images.
        noise: (B, 1, H, W), standard normal, of the grain.

    Returns:
        L* (B, 1, H, W), 0 to 100; that of an image that is not degraded as it was.
    """
    values = [torch.from_numpy(np.ascontiguousarray(each)).to(rgb.device) for each in damage]
    degraded, emulsion, exponent, black, white, roughness = (
        each[:, None, None, None] for each in values[:-1]
    )
    seen = lightness.lerp(_orthochromatic(rgb), emulsion)
    printed = 100 * (seen.clamp(0, 100) / 100) ** exponent
    faded = black + printed * (white - black) / 100
    found = faded + roughness * noise + _scratches(values[-1], *rgb.shape[2:])
    return torch.where(degraded, found.clamp(0, 100), lightness)


def _orthochromatic(rgb: RGB) -> Lightness:
    """L* of what an emulsion sees that is blind to red; that of a gray is its own."""
    # of codes and not of light, as scanners and papers mix: one conversion, and neutral tones stay where they are
    gray = torch.einsum("bchw,c->bhw", rgb, torch.tensor(ORTHOCHROMATIC).to(rgb))
    return rgb_to_lab(gray[:, None].expand_as(rgb))[0]


def _scratches(lines: Tensor, height: int, width: int) -> Tensor:
    """(B, 1, H, W) changes of L* by straight scratches a pixel wide, (B, n, 5) as in `Damage`."""
    place, slope, begin, end, change = (each[..., None, None] for each in lines.unbind(-1))
    down = torch.linspace(0, 1, height, device=lines.device)[:, None]
    across = torch.arange(width, device=lines.device)
    on_line = ((place + slope * down) * width - across).abs() <= 0.5
    within = (down - begin) * (down - end) <= 0
    return (change * (on_line & within)).sum(1, keepdim=True)


class ProcessShare(NamedTuple):
    """Which process this is, of how many."""

    rank: int = 0
    world: int = 1


class Targets(NamedTuple):
    """What all prepared images are taught."""

    label: NDArray[np.int64]
    """(N,) class index, -1 where unknown"""
    colour_of: NDArray[np.int64]
    """(N,) the image whose colours are the target; its own position except in a placebo"""
    train: NDArray[np.int64]
    """positions of the images that are trained on, ascending"""


class TrainingBatches:
    """The batches of one epoch, the same for every arm of a block and any number of processes.

    Labelled and unlabelled images are drawn apart, each from endless reshuffled passes over their own pool, so no
    step is without labels, however few there are, and each image of a pool comes as often as any other. Where all
    images are labelled that is the usual epoch: each image once, the last, incomplete batch dropped. Drawing both
    from one pool would starve whoever learns from labels alone: with 20 labels of 1,000, half of all steps see none.

    Order and augmentation come from (seed, purpose, epoch) alone. Iterating gives this process's part of each
    batch, and which of its images are mirrored.

    Args:
        batch_size: over all processes; a smaller set is one batch.
        epoch: counted from 0 over all phases.
        shift_px: images move by up to this much.
        degraded_share: share of the images whose lightness is an old photo's, see `degrade`; 0 to 1.
        targets: what the images teach, and which are trained on; the truth of all if None.
        labelled_batch_share: least share of a batch that is labelled, where some images are not; above 0, below 1.
            Where more of the images are labelled, more of the batch is.

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
        # a multiple of the processes, so that each has as many images
        self.batch_size = min(batch_size, len(train) // share.world * share.world)
        self.order = self._draw(train, seed, epoch, labelled_batch_share)
        self.mirrored, self.shift = draw_augmentation(seed, epoch, len(self.order), shift_px)
        self.seed, self.epoch = seed, epoch
        self.damage = draw_damage(seed, epoch, len(self.order), degraded_share)

    def _draw(
        self, train: NDArray[np.int64], seed: int, epoch: int, labelled_batch_share: float
    ) -> NDArray[np.int64]:
        """Positions of all images of the epoch, batch after batch."""
        known = self.targets.label[train] >= 0
        labelled = labelled_in_batch(self.batch_size, known, labelled_batch_share)
        steps, parts = len(train) // self.batch_size, []
        for name, pool, count in (
            ("labelled", train[known], labelled),
            ("unlabelled", train[~known], self.batch_size - labelled),
        ):
            # alone, a pool spends what does not fill a batch; of two, the next epoch goes on where this one ended
            spent = len(train) if count == self.batch_size else steps * count
            drawn = endless(pool, seed, name, epoch * spent, steps * count)
            parts.append(drawn.reshape(steps, count))
        return np.concatenate(parts, axis=1).reshape(-1)

    def __len__(self) -> int:
        return len(self.order) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Batch, NDArray[np.bool_]]]:
        for start in range(0, len(self.order), self.batch_size):
            mine = slice(start + self.share.rank, start + self.batch_size, self.share.world)
            # of the whole batch, or several processes would not equal one
            weight = label_weights(self.targets.label[self.order[start : start + self.batch_size]])
            weight = weight[self.share.rank :: self.share.world]
            positions, mirrored, shift = self.order[mine], self.mirrored[mine], self.shift[mine]
            rgb, label = augment(self.prepared.rgb[positions], mirrored, shift), self.targets.label[positions]
            batch = to_batch(positions, rgb, label, self.device, weight)
            donors = self.targets.colour_of[positions]
            if (donors != positions).any():  # in the placebo of colours alone
                foreign = augment(self.prepared.rgb[donors], mirrored, shift)
                batch = batch._replace(chroma=rgb_to_lab(to_rgb(foreign, self.device))[1])
            yield batch._replace(lightness=self._degraded(batch.lightness, rgb, start, mine)), mirrored

    def _degraded(self, lightness: Lightness, rgb: NDArray[np.uint8], start: int, mine: slice) -> Lightness:
        """The lightness of this process's part of a batch as a network gets it, degraded or not."""
        damage = self.damage.of(mine)
        if not damage.degraded.any():
            return lightness
        # of the whole batch, so that the number of processes changes nothing
        noise = grain(self.seed, self.epoch, start, (self.batch_size, 1, *rgb.shape[1:3]))
        noise = noise[self.share.rank :: self.share.world].to(self.device)
        return degrade(lightness, to_rgb(rgb, self.device), damage, noise)


def labelled_in_batch(batch_size: int, known: NDArray[np.bool_], least: float) -> int:
    """How many of a batch are labelled: at least a share, and more where more of the images (N,) are.

    >>> labelled_in_batch(32, np.array([True] + 49 * [False]), 0.5), labelled_in_batch(32, np.array([True]), 0.5)
    (16, 32)
    """
    if known.all() or not known.any():
        return batch_size * bool(known.all())
    wanted = round(max(least, float(known.mean())) * batch_size)
    # at least one of each pool, however small the share
    return min(max(wanted, 1), max(batch_size - 1, 1))


def endless(pool: NDArray[np.int64], seed: int, name: str, start: int, count: int) -> NDArray[np.int64]:
    """Draw from reshuffled passes over a pool, one after the other without end, where `start` were drawn before.

    The pool's name and the number of the pass name the stream that shuffles it.
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
    """The images of a split as they are, each on exactly one process."""
    mine = prepared.positions(split)[share.rank :: share.world]
    yield from plain_batches(prepared, mine, batch_size, device)


def plain_batches(
    prepared: Prepared, positions: NDArray[np.int64], batch_size: int, device: torch.device
) -> Iterator[Batch]:
    """Some images as they are, in order."""
    for start in range(0, len(positions), batch_size):
        chosen = positions[start : start + batch_size]
        yield to_batch(chosen, prepared.rgb[chosen], prepared.label[chosen], device)


def to_batch(
    positions: NDArray[np.int64],
    rgb: NDArray[np.uint8],
    label: NDArray[np.int64],
    device: torch.device,
    weight: NDArray[np.float32] | None = None,
) -> Batch:
    """Move images (B, H, W, 3) in sRGB to the device and convert them there, all at once.

    Labels (B,) are class indices, -1 where unknown; their weights (B,) in the class loss are the batch's if not given.
    """
    lightness, chroma = rgb_to_lab(to_rgb(rgb, device))
    weight = label_weights(label) if weight is None else weight
    position, known, weights = (torch.from_numpy(each).to(device) for each in (positions, label, weight))
    return Batch(position, lightness, chroma, known, weights)


def to_rgb(images: NDArray[np.uint8], device: torch.device) -> RGB:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float32, 0 to 1."""
    # 8 bits travel to the device, a quarter of what floats would take
    return torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float() / 255


def label_weights(label: NDArray[np.int64]) -> NDArray[np.float32]:
    """0 for an unlabelled image, else batch size over labelled images; see `Batch`.

    >>> label_weights(np.array([0, -1, 2, -1])).tolist()
    [2.0, 0.0, 2.0, 0.0]
    """
    labelled = label >= 0
    return (labelled * len(label) / max(labelled.sum(), 1)).astype(np.float32)


def draw_augmentation(
    seed: int, epoch: int, count: int, shift_px: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Whether each image of an epoch is mirrored, (count,), and by how many pixels it moves, (count, 2), rows first."""
    # of the whole epoch at once, so that the number of processes changes nothing
    generator = stream(seed, "augmentation", epoch)
    mirrored = generator.random(count) < 0.5
    return mirrored, generator.integers(-shift_px, shift_px + 1, size=(count, 2))


def augment(
    rgb: NDArray[np.uint8], mirrored: NDArray[np.bool_], shift: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Mirror and move images; what moves in at an edge is a reflection of what is there.

    Args:
        rgb: (B, H, W, 3).
        mirrored: (B,) whether left and right are exchanged.
        shift: (B, 2) pixels that the image is moved by, rows first; below the side length.
    """
    _, height, width, _ = rgb.shape
    rows = reflect(np.arange(height) + shift[:, :1], height)
    columns = reflect(np.arange(width) + shift[:, 1:], width)
    columns = np.where(mirrored[:, None], width - 1 - columns, columns)
    return rgb[np.arange(len(rgb))[:, None, None], rows[:, :, None], columns[:, None, :]]


def reflect(position: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Fold positions outside 0..length-1 back in, without repeating the edge.

    >>> reflect(np.array([-2, 0, 4]), 4).tolist()
    [2, 0, 2]
    """
    position = np.abs(position)
    return np.where(position >= length, 2 * (length - 1) - position, position)


def find_targets(prepared: Prepared, supervision: Supervision, seed: int) -> Targets:
    """Choose images, hide labels, shuffle labels or exchange colours, each from its own stream.

    The images and labels of a smaller share are among those of a larger one. Shuffled labels keep every class's
    count, and the images without a label stay without. Colours go round one cycle through all images that are
    trained on, so none keeps its own. Images that are not for training are left as they are.
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
        # a plain permutation leaves about one image its own colours, a cycle none
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
        # the first of one order, so that a smaller share lies within a larger one
        chosen.append(members[: max(1, round(share * len(members)))])
    return np.concatenate(chosen)
