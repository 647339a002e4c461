"""Corals: branching, fan, brain and tube, rooted on the ground and growing up."""

import numpy as np
from numpy.typing import NDArray

from knowhue.data.drawn.canvas import ACCENT, BODY, FLORA, SECOND, Canvas, Field, Pose, smooth
from knowhue.data.drawn.scenery import shade_ground

Rng = np.random.Generator


def draw_branching(canvas: Canvas, rng: Rng, pose: Pose) -> None:
    """Staghorn coral: a tree of tapering twigs with pale tips."""
    twigs = _grow(rng, int(rng.integers(4, 6)), int(rng.integers(2, 4)))
    canvas = canvas.window(pose, 1.5)
    shade_ground(canvas, pose, 0.7)
    u, v = canvas.local(pose)
    distance, height = _capsules(u, v, twigs)
    base = rng.uniform(44, 66)
    rough = canvas.noise(rng, 30, 30)
    light = base + 16 * canvas.relief(distance, 0.07) + 20 * (height - 0.5) + 2.5 * rough
    cover = canvas.cover(distance, pose.scale)
    canvas.paint(cover, np.clip(light, 5, 95), BODY, pose.haze)
    canvas.stain(0.8 * cover * smooth((height - 0.75) * 4), SECOND, pose.haze)


def _grow(rng: Rng, stems: int, levels: int) -> NDArray[np.float32]:
    """Twigs (n, 6): start, end, start radius, end radius; u across, v up, about 1 tall."""
    angles = np.linspace(-0.9, 0.9, stems) + rng.normal(0, 0.1, stems)
    twigs, ends = [], [(0.0, 0.0, angle, 0.085) for angle in angles]
    for level in range(levels):
        length, tips = (0.52, 0.36, 0.26)[level], []
        for x, y, angle, width in ends:
            reach = length * rng.uniform(0.75, 1.2)
            x1, y1 = x + reach * np.sin(angle), y + reach * np.cos(angle)
            twigs.append((x, y, x1, y1, width, width * 0.75))
            turns = angle * 0.85 + np.array([-0.42, 0.42]) + rng.normal(0, 0.12, 2)
            tips += [(x1, y1, turn, width * 0.75) for turn in turns]
        ends = tips
    return np.array(twigs, np.float32)


def _capsules(u: Field, v: Field, twigs: NDArray[np.float32]) -> tuple[Field, Field]:
    """Signed distance to the nearest of many tapering twigs, and height in the tree, 0 to 1.

    The squared distances are expanded so that the work is two matrix products.
    """
    start, way = twigs[:, :2], twigs[:, 2:4] - twigs[:, :2]
    square = (way * way).sum(axis=1)
    points = np.stack([u.ravel(), v.ravel(), np.ones(u.size, np.float32)])
    project = np.column_stack([way, -(start * way).sum(axis=1)])
    along = np.clip((project @ points) / square[:, None], 0, 1)
    expand = np.column_stack([-2 * start, (start * start).sum(axis=1)])
    away = expand @ points + (points[0] ** 2 + points[1] ** 2)
    away += along * (along * square[:, None] - 2 * (project @ points))
    radius = twigs[:, 4:5] + along * (twigs[:, 5:] - twigs[:, 4:5])
    distance = (np.sqrt(np.maximum(away, 1e-7)) - radius).min(axis=0)
    return distance.reshape(u.shape), np.clip(v / twigs[:, 3].max(), 0, 1)


def draw_fan(canvas: Canvas, rng: Rng, pose: Pose) -> None:
    """Sea fan: a lacy sheet of ribs that fork from one foot."""
    canvas = canvas.window(pose, 1.5)
    shade_ground(canvas, pose, 0.7)
    u, v = canvas.local(pose)
    v = v + 0.05
    radius, angle = np.sqrt(u * u + v * v) + 1e-4, np.arctan2(u, v)
    ragged = canvas.fractal(rng, 5, 2)
    distance = np.maximum(radius - 1.0 - 0.09 * ragged, (np.abs(angle) - rng.uniform(0.75, 1.1)) * radius)
    ribs = np.cos(angle * rng.uniform(22, 30) + 0.9 * ragged)
    rings = np.cos(radius * rng.uniform(30, 42) + 0.8 * ragged)
    mesh = np.maximum(ribs, 0.7 * rings)
    light = rng.uniform(40, 64) + 13 * mesh + 12 * (radius - 0.5)
    cover = canvas.cover(distance, pose.scale) * (0.55 + 0.45 * smooth(mesh + 0.4))
    canvas.paint(cover, np.clip(light, 5, 95), SECOND, pose.haze)


def draw_brain(canvas: Canvas, rng: Rng, pose: Pose) -> None:
    """Brain coral: a dome with winding grooves."""
    canvas = canvas.window(pose, 1.5)
    shade_ground(canvas, pose, 0.7)
    u, v = canvas.local(pose)
    wide = rng.uniform(0.75, 1.0)
    distance = np.maximum(np.sqrt((u / wide) ** 2 + (v / 0.68) ** 2) - 1, -0.12 - v)
    bulge = 1 + 0.6 * (u * u + v * v)
    pitch, turns = rng.uniform(17, 25), rng.uniform(0, np.pi) + np.arange(5) * (np.pi / 5)
    ways = zip(np.cos(turns), np.sin(turns), rng.uniform(0, 6.3, 5), strict=True)
    # Waves of one length in all directions add up to a labyrinth.
    waves = [np.cos((u * across + v * up) * bulge * pitch + start) for across, up, start in ways]
    ridges = smooth(np.sum(waves, axis=0) * 0.6 + 0.5) - 0.5
    light = rng.uniform(46, 64) + 16 * canvas.relief(distance, 0.7) + 13 * ridges
    canvas.paint(canvas.cover(distance, pose.scale), np.clip(light, 5, 95), ACCENT, pose.haze)


def draw_tubes(canvas: Canvas, rng: Rng, pose: Pose) -> None:
    """Tube sponges: a cluster of open pipes."""
    canvas = canvas.window(pose, 1.5)
    shade_ground(canvas, pose, 0.7)
    u, v = canvas.local(pose)
    base = rng.uniform(44, 62)
    for x in rng.permutation(np.linspace(-0.5, 0.5, 4)).tolist():
        tall, width = rng.uniform(0.5, 1.0), rng.uniform(0.12, 0.17)
        middle = x * (0.6 + 0.5 * v)
        distance = np.maximum(
            np.abs(u - middle) - width * (0.8 + 0.25 * v), np.maximum(-v - 0.04 * np.cos(u * 5), v - tall)
        )
        mouth = np.sqrt(((u - x * (0.6 + 0.5 * tall)) / width) ** 2 + ((v - tall) / 0.06) ** 2) - 1
        light = base + 15 * canvas.relief(distance, 0.12) + 12 * (v - 0.4)
        canvas.paint(canvas.cover(np.minimum(distance, 0.1 * mouth), pose.scale), light, FLORA, pose.haze)
        canvas.paint(canvas.cover(mouth + 0.25, 0.1 * pose.scale), base - 28, FLORA, pose.haze)


CORALS = (draw_branching, draw_fan, draw_brain, draw_tubes)
