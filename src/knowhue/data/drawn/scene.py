"""What stands where: one composition for each class, out of the same water, ground and clutter."""

from collections.abc import Callable

import numpy as np

from knowhue.data.drawn import animals, reef, scenery
from knowhue.data.drawn.canvas import WATER, Canvas, Pose

Rng = np.random.Generator


def compose(label: int, size_px: int, rng: Rng) -> Canvas:
    """Draw one scene; nothing in here knows of colour.

    Args:
        label: 0 to 4, an index into `CLASSES`.
        size_px: side of the image, pixels.
        rng: the geometry stream.

    Returns:
        The canvas, with L* within 3 to 97.
    """
    canvas = Canvas(size_px)
    scenery.flood(canvas, rng)
    if rng.random() < 0.75:
        scenery.shine_rays(canvas, rng)
    _SCENES[label](canvas, rng)
    _finish(canvas, rng)
    return canvas


def _finish(canvas: Canvas, rng: Rng) -> None:
    """Specks before the lens, turbid water over everything, darker corners."""
    if rng.random() < 0.25:
        scenery.blow_bubbles(canvas, rng, rng.uniform(-0.9, 0.9), rng.uniform(0, 1), int(rng.integers(3, 8)))
    scenery.drift_specks(canvas, rng)
    veil = np.full_like(canvas.lightness, 0.6 * rng.beta(1, 2))
    canvas.paint(veil, canvas.fog, WATER, 1.0)
    canvas.lightness -= rng.uniform(1, 6) * (canvas.x**2 + canvas.y**2)
    np.clip(canvas.lightness, 3, 97, out=canvas.lightness)


def _ground(canvas: Canvas, rng: Rng, horizon: float) -> None:
    """Sand and clutter as any class may have them."""
    if horizon > 0.95:
        return
    scenery.lay_sand(canvas, rng, horizon)
    scenery.lay_rocks(canvas, rng, max(horizon, -0.6), int(rng.integers(0, 4)))
    if rng.random() < 0.35:
        place = rng.uniform(max(horizon, -0.3) + 0.1, 1.0)
        pose = Pose(rng.uniform(-1, 1), place, rng.uniform(0.15, 0.32), haze=0.6 * (1 - place))
        reef.CORALS[rng.integers(len(reef.CORALS))](canvas, rng, pose)
    for _ in range(int(rng.integers(0, 3))):
        scenery.grow_weed(canvas, rng, rng.uniform(max(horizon, 0.2), 1.1), int(rng.integers(3, 7)))


def _swim(canvas: Canvas, rng: Rng, draw: Callable, sizes: tuple[float, float], most: int) -> list[Pose]:
    """One near swimmer and perhaps others, far ones first, smaller and hazier."""
    poses, heading = [], rng.choice([-1.0, 1.0])
    for rank in range(int(rng.integers(1, most + 1))):
        far = 0.0 if rank == 0 else rng.uniform(0.35, 1.0)
        scale = rng.uniform(*sizes) * (1 - 0.6 * far)
        room = 0.75 if rank else max(0.2, 0.95 - 0.8 * scale)
        x, y = rng.uniform(-room, room), rng.uniform(-room, 0.8 * room)
        flip = heading if rng.random() < 0.75 else -heading
        poses.append(Pose(x, y, scale, rng.normal(0, 0.42), flip, rng.uniform(0.0, 0.35) + 0.45 * far))
    for pose in reversed(poses):
        draw(canvas, rng, pose)
    return poses


def _shark(canvas: Canvas, rng: Rng) -> None:
    _ground(canvas, rng, rng.choice([rng.uniform(0.3, 0.9), 1.2, -2.0], p=[0.5, 0.35, 0.15]))
    if rng.random() < 0.5:
        scenery.pass_fish(canvas, rng, int(rng.integers(3, 9)))
    _swim(canvas, rng, animals.draw_shark, (0.32, 0.85), 3)


def _penguin(canvas: Canvas, rng: Rng) -> None:
    _ground(canvas, rng, rng.choice([rng.uniform(0.3, 0.9), 1.2, -2.0], p=[0.5, 0.35, 0.15]))
    if rng.random() < 0.4:
        scenery.pass_fish(canvas, rng, int(rng.integers(3, 9)))
    near = _swim(canvas, rng, animals.draw_penguin, (0.26, 0.68), 3)[0]
    behind = near.scale * near.flip * np.cos(near.angle)
    if rng.random() < 0.6:
        scenery.blow_bubbles(canvas, rng, near.x - behind, near.y, int(rng.integers(3, 10)))


def _jellyfish(canvas: Canvas, rng: Rng) -> None:
    _ground(canvas, rng, rng.choice([rng.uniform(0.3, 0.9), 1.2], p=[0.5, 0.5]))
    if rng.random() < 0.4:
        scenery.pass_fish(canvas, rng, int(rng.integers(3, 9)))
    for pose in reversed(_float(rng)):
        animals.draw_jellyfish(canvas, rng, pose)


def _float(rng: Rng) -> list[Pose]:
    """Jellyfish drift upright, more or less, at several depths."""
    poses = []
    for rank in range(int(rng.integers(1, 5))):
        far = 0.0 if rank == 0 else rng.uniform(0.3, 1.0)
        scale = rng.uniform(0.18, 0.52) * (1 - 0.6 * far)
        x, y = rng.uniform(-0.7, 0.7), rng.uniform(-0.6, 0.1)
        poses.append(Pose(x, y, scale, rng.normal(0, 0.4), haze=rng.uniform(0.0, 0.3) + 0.45 * far))
    return poses


def _starfish(canvas: Canvas, rng: Rng) -> None:
    horizon = rng.choice([rng.uniform(-0.7, 0.1), -2.0], p=[0.55, 0.45])
    _ground(canvas, rng, horizon)
    low = max(horizon + 0.35, -0.6)
    for rank in reversed(range(int(rng.integers(1, 4)))):
        scale = rng.uniform(0.2, 0.62) * (0.5 if rank else 1.0)
        y = rng.uniform(low, 0.7)
        haze = rng.uniform(0, 0.25) + 0.15 * (1 - y) * (horizon > -1)
        pose = Pose(rng.uniform(-0.6, 0.6), y, scale, rng.normal(0, 0.2), haze=haze)
        animals.draw_starfish(canvas, rng, pose)
    if rng.random() < 0.4:
        scenery.grow_weed(canvas, rng, 1.15, int(rng.integers(2, 5)))
    if rng.random() < 0.3:
        scenery.pass_fish(canvas, rng, int(rng.integers(2, 6)))


def _coral_reef(canvas: Canvas, rng: Rng) -> None:
    horizon = rng.uniform(-0.2, 0.6)
    _ground(canvas, rng, horizon)
    count = int(rng.integers(5, 10))
    kinds = np.concatenate([rng.permutation(len(reef.CORALS)) for _ in range(3)])
    for place, kind in zip(np.sort(rng.uniform(0, 1, count)), kinds, strict=False):
        foot = horizon + 0.1 + place * (1.1 - horizon)
        scale = rng.uniform(0.4, 0.8) * (0.6 + 0.5 * place)
        pose = Pose(rng.uniform(-0.9, 0.9), foot, scale, rng.normal(0, 0.12), haze=0.6 * (1 - place))
        reef.CORALS[kind](canvas, rng, pose)
    if rng.random() < 0.6:
        scenery.pass_fish(canvas, rng, int(rng.integers(3, 9)))


_SCENES = (_coral_reef, _jellyfish, _penguin, _shark, _starfish)
