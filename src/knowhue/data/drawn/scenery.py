"""Everything that is not the subject: water, light, sand, rocks, weed, fish, bubbles, specks.

Each kind of scenery can turn up in each class, so that scenery alone does not give the class away.
"""

import numpy as np

from knowhue.data.drawn.canvas import ACCENT, FLORA, GROUND, ROCK, WATER, Canvas, Field, Pose, smooth

Rng = np.random.Generator


def flood(canvas: Canvas, rng: Rng) -> None:
    """Open water: light above, dark below, a bright place at the surface, slow clouds of turbidity."""
    top, bottom = rng.uniform(56, 82), rng.uniform(20, 42)
    centre, width = rng.uniform(-0.9, 0.9), rng.uniform(0.7, 1.4)
    fall = smooth((canvas.y + 1.15) * rng.uniform(0.4, 0.6))
    glow = np.exp(-(((canvas.x - centre) / width) ** 2) - ((canvas.y + 1.1) / 0.8) ** 2)
    cloud = canvas.fractal(rng, 2)
    lightness = top + (bottom - top) * fall + 12 * glow + 2.2 * cloud
    depth = np.clip(fall * 1.1 - 0.1 - 0.35 * glow + 0.06 * cloud, 0, 1)
    canvas.fill(lightness.astype(np.float32), depth.astype(np.float32))


def shine_rays(canvas: Canvas, rng: Rng) -> None:
    """Shafts of sunlight that fan out from a point above the surface."""
    strength, source = rng.uniform(0, 9), rng.uniform(-0.8, 0.8)
    angle = (canvas.x - source) / (canvas.y + 2.4)
    waves = [np.sin(angle * rng.uniform(6, 34) + rng.uniform(0, 6.3)) for _ in range(4)]
    shafts = np.clip(np.sum(waves, axis=0) * 0.45, 0, 1.2)
    canvas.lightness += (strength * shafts * np.clip(0.75 - 0.55 * canvas.y, 0, 1.2)).astype(np.float32)


def lay_sand(canvas: Canvas, rng: Rng, horizon: float) -> Field:
    """Rippled sand from the horizon down, lit by caustics and lost in haze far away.

    Args:
        canvas: the sheet.
        rng: the geometry stream.
        horizon: y where the ground begins; above the sheet (below -1) the ground is seen from overhead.

    Returns:
        Haze (H, W) at the ground, 0 to 1.
    """
    rolling = 0.035 * canvas.noise(rng, 3, 1)
    below = canvas.y - horizon + rolling
    overhead = horizon < -1
    near = np.ones_like(below) if overhead else 1 / np.clip(below + 0.22, 0.05, None)
    away = 1.6 * canvas.y if overhead else near
    haze = np.clip(np.exp(-rng.uniform(1.6, 3.4) * below), 0, 1) * 0.95
    warp = canvas.fractal(rng, 3)
    turn = rng.uniform(-0.5, 0.5)
    phase = away * rng.uniform(7, 11) + turn * canvas.x * near * 3 + 1.3 * warp + rng.uniform(0, 6.3)
    fade = np.clip(2.4 - 0.5 * near, 0, 1)
    ripple = (np.sin(phase) + 0.4 * np.sin(2 * phase + 1)) * fade
    grain = canvas.noise(rng, 48, 48)
    light = rng.uniform(56, 76) + 3.2 * ripple + 3.0 * warp + 1.3 * grain
    light += rng.uniform(0, 20) * _caustics(canvas.x * near * 2.6, away * 4.2, rng)
    canvas.paint(canvas.cover(-below, soft=0.02), light, GROUND, haze)
    return haze


def _caustics(across: Field, along: Field, rng: Rng) -> Field:
    """Net of light, 0 to 1: the zero lines of a sine lattice that is folded into itself three times."""
    time = rng.uniform(0, 40)
    i, j = across, along
    for fold in range(3):
        t = np.float32(time * (1 - 0.7 / (fold + 1)))
        i, j = across + np.cos(t - i) + np.sin(t + j), along + np.sin(t - j) + np.cos(t + i)
    return np.clip(1 - np.abs(np.sin(i) + np.cos(j)) / 0.8, 0, 1) ** 2


def lay_rocks(canvas: Canvas, rng: Rng, horizon: float, count: int) -> None:
    """Boulders on the ground, the far ones first."""
    for place in np.sort(rng.uniform(0.05, 1.0, count)):
        ground = horizon + place * (1.05 - horizon)
        scale = rng.uniform(0.14, 0.3) * (0.55 + 0.7 * place)
        pose = Pose(rng.uniform(-1, 1), ground, scale, rng.normal(0, 0.2), haze=0.75 * (1 - place))
        part = canvas.window(pose, 2.0)
        u, v = part.local(pose)
        lumps = part.fractal(rng, 5)
        distance = np.sqrt((u / 1.3) ** 2 + (v * 1.25) ** 2) - 1 + 0.13 * lumps
        light = rng.uniform(30, 48) + 20 * part.relief(distance, 0.7) + 4 * lumps
        shade_ground(canvas, pose, 1.4)
        part.paint(part.cover(distance, scale), light, ROCK, pose.haze)


def shade_ground(canvas: Canvas, pose: Pose, width: float) -> None:
    """Soft shadow on the ground below a thing."""
    across = (canvas.x - pose.x) / (width * pose.scale)
    down = (canvas.y - pose.y - 0.1 * pose.scale) / (0.5 * pose.scale)
    canvas.lightness -= (14 * (1 - pose.haze)) * np.exp(-(across**2) - down**2)


def grow_weed(canvas: Canvas, rng: Rng, foot: float, count: int) -> None:
    """A clump of swaying blades.

    Args:
        canvas: the sheet.
        rng: the geometry stream.
        foot: y of the roots.
        count: blades in the clump.
    """
    centre, tall = rng.uniform(-1, 1), rng.uniform(0.35, 1.0)
    root = (centre + rng.normal(0, 0.1, (count, 1, 1))).astype(np.float32)
    height = (tall * rng.uniform(0.6, 1.1, (count, 1, 1))).astype(np.float32)
    lean, phase = (rng.normal(0, 0.25, (2, count, 1, 1))).astype(np.float32)
    up = (foot - canvas.y) / height
    middle = root + lean * up**2 + 0.05 * np.sin(5 * up + 4 * phase)
    width = np.float32(0.032) * np.clip(1 - up, 0, 1) ** 0.6 * np.clip(up * 8 + 0.4, 0, 1)
    slope = (2 * lean * up + 0.25 * np.cos(5 * up + 4 * phase)) / height
    beside = np.abs(canvas.x - middle) / np.sqrt(1 + slope * slope)
    distance = beside - width + np.clip(up - 1, 0, None) + np.clip(-up, 0, None)
    nearest = distance.min(axis=0)
    haze = rng.uniform(0.1, 0.6)
    light = rng.uniform(26, 52) + 18 * np.clip((foot - canvas.y) / tall, 0, 1)
    canvas.paint(canvas.cover(nearest), light, FLORA, haze)


def pass_fish(canvas: Canvas, rng: Rng, count: int) -> None:
    """A loose shoal of small fish that swim the same way."""
    flip, size, haze = rng.choice([-1.0, 1.0]), rng.uniform(0.05, 0.09), rng.uniform(0.15, 0.6)
    home = rng.uniform([-0.8, -0.8], [0.8, 0.4])
    x, y = (home + rng.normal(0, 0.26, (count, 2))).astype(np.float32).T[:, :, None, None]
    u, v = (canvas.x - x) * (flip / size), (y - canvas.y) / size
    body = np.sqrt(u**2 + (v * 2.3) ** 2) - 1
    tail = np.maximum(np.abs(v) * 1.4 - (-0.75 - u), -1.55 - u)
    distance = np.minimum(body, tail).min(axis=0)
    light = rng.uniform(34, 82)
    canvas.paint(canvas.cover(distance, size), light, ACCENT, haze)


def blow_bubbles(canvas: Canvas, rng: Rng, x: float, y: float, count: int) -> None:
    """A rising train of bubbles: rims lighter than the water, with a glint."""
    rise = rng.uniform(0, 0.9, (count, 1, 1))
    cx = x + 0.12 * rise * np.sin(9 * rise) + rng.normal(0, 0.06, (count, 1, 1))
    radius = rng.uniform(0.018, 0.05, (count, 1, 1))
    away = np.sqrt((canvas.x - cx) ** 2 + (canvas.y - (y - rise)) ** 2).astype(np.float32)
    rim = np.exp(-(((away - radius) / (0.5 * canvas.pixel + 0.008)) ** 2)).max(axis=0)
    fill = canvas.cover((away - radius).min(axis=0))
    canvas.paint(0.25 * fill + 0.55 * np.clip(rim - 0.2 * fill, 0, 1), 88.0, WATER)


def drift_specks(canvas: Canvas, rng: Rng) -> None:
    """Marine snow: out-of-focus specks, more of them in turbid water."""
    count, light = int(rng.integers(4, 40)), rng.uniform(3, 9)
    x, y, size = rng.uniform(-1, 1, count), rng.uniform(-1, 1, count), rng.uniform(0.008, 0.03, count)
    size = np.maximum(size, 0.6 * canvas.pixel)
    across = np.exp(-(((canvas.x[0] - x[:, None]) / size[:, None]) ** 2)).astype(np.float32)
    down = np.exp(-(((canvas.y[:, 0] - y[:, None]) / size[:, None]) ** 2)).astype(np.float32)
    canvas.lightness += light * np.clip(down.T @ across, 0, 1)
