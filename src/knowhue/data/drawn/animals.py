"""Shark, penguin, jellyfish and starfish, each drawn from signed distances in its own frame.

In that frame u points ahead, v up, and 1 is half the length of the animal.
"""

import numpy as np

from knowhue.data.drawn.canvas import ACCENT, BODY, SECOND, Canvas, Field, Pose, smooth
from knowhue.data.drawn.scenery import shade_ground
from knowhue.data.drawn.shapes import fin, merge, spindle

Rng = np.random.Generator


def draw_shark(canvas: Canvas, rng: Rng, pose: Pose) -> None:
    """A spindle with swept fins, dark above and pale below."""
    canvas = canvas.window(pose, 1.5)
    u, v = canvas.local(pose)
    v = v - rng.uniform(-0.16, 0.16) * u * u - rng.uniform(-0.05, 0.05) * np.sin(3 * u)
    thick = spindle(u, rng.uniform(0.42, 0.54), 0.58, 1.2) + 0.016
    body = np.maximum(np.abs(v + 0.02) - thick, np.abs(u) - 1)
    beat, span = rng.uniform(0.8, 1.25, 2)
    back = rng.uniform(26, 46)
    far_fin = fin(u, -v, (0.42, 0.16), (-0.02, 0.36 * span), (0.06, 0.05))
    canvas.paint(canvas.cover(far_fin, pose.scale), back - 6, BODY, min(pose.haze + 0.1, 1.0))
    whole = np.minimum(body, _shark_fins(u, v, span, beat))
    belly = smooth((-0.25 - v / thick) * 2.2 + 0.4)
    belly = belly * canvas.cover(body, pose.scale)
    light = back + (rng.uniform(68, 84) - back) * belly + 9 * canvas.relief(whole, 0.16)
    light = light + _marks(canvas, rng, u, v)
    cover = canvas.cover(whole, pose.scale)
    canvas.paint(cover, light, BODY, pose.haze)
    canvas.stain(cover * belly, SECOND, pose.haze)
    near_fin = fin(u, -v, (0.4, 0.1), (-0.16 * beat, 0.48 * span), (0.08, 0.04))
    canvas.paint(canvas.cover(near_fin, pose.scale), back + 3 - 20 * np.clip(-v, 0, 0.4), BODY, pose.haze)
    _shark_face(canvas, u, v, pose)


def _shark_fins(u: Field, v: Field, span: float, beat: float) -> Field:
    """Signed distance to the dorsal, second dorsal and anal fins and both lobes of the tail."""
    fins = [
        fin(u, v, (0.24, -0.16), (-0.26, 0.46 * span), (0.07, 0.07)),
        fin(u, v, (-0.5, -0.62), (-0.7, 0.14), (0.02, 0.04)),
        fin(u, -v, (-0.45, -0.58), (-0.68, 0.15), (0.02, 0.04)),
        fin(u, v, (-0.8, -1.0), (-1.36, 0.54 * beat), (0.05, 0.09)),
        fin(u, -v, (-0.8, -1.0), (-1.18, 0.34 * beat), (0.05, 0.07)),
    ]
    return np.minimum.reduce(fins)


def _marks(canvas: Canvas, rng: Rng, u: Field, v: Field) -> Field:
    """Skin: nothing, faint tiger bars, or spots."""
    kind, strength = rng.integers(3), rng.uniform(3, 8)
    mottle = canvas.fractal(rng, 8, 2)
    if kind == 1:
        return strength * np.sin(26 * u + 1.5 * mottle) * smooth(v * 8 + 0.5)
    if kind == 2:
        return strength * 1.6 * smooth(np.sin(27 * u) * np.sin(31 * v) * 2 - 0.6) * smooth(v * 8 + 0.7)
    return 1.5 * mottle


def _shark_face(canvas: Canvas, u: Field, v: Field, pose: Pose) -> None:
    """Gill slits, mouth and eye."""
    gills = np.abs((u - 0.42 + 0.25 * v) % 0.05 - 0.025) - 0.007
    gills = np.maximum(gills, np.maximum(np.abs(u - 0.485 + 0.25 * v) - 0.075, np.abs(v + 0.01) - 0.08))
    mouth = np.maximum(np.abs(v + 0.085 - 0.3 * (u - 0.75)) - 0.008, np.abs(u - 0.76) - 0.08)
    canvas.paint(0.6 * canvas.cover(np.minimum(gills, mouth), pose.scale), 16.0, BODY, pose.haze)
    eye = np.sqrt((u - 0.78) ** 2 + (v - 0.035) ** 2) - 0.024
    canvas.paint(canvas.cover(eye, pose.scale), 7.0, BODY, pose.haze)


def draw_penguin(canvas: Canvas, rng: Rng, pose: Pose) -> None:
    """A plump torpedo: dark back and hood, white belly, beak, feet trailing, flippers beating."""
    canvas = canvas.window(pose, 1.4)
    u, v = canvas.local(pose)
    v = v - rng.uniform(-0.14, 0.14) * u * u
    thick = spindle(u * 1.02 + 0.1, rng.uniform(0.72, 0.88), 0.6, 0.75)
    body = np.maximum(np.abs(v) - thick, np.maximum(u - 0.88, -1.07 - u))
    head = np.sqrt(((u - 0.72) / 1.25) ** 2 + (v - 0.03) ** 2) - 0.16
    body = merge(body, head, 0.12)
    up, reach = rng.choice([-1.0, 1.0], p=[0.35, 0.65]), rng.uniform(0.42, 0.62)
    sweep, dark = rng.uniform(-0.3, 0.05), rng.uniform(12, 26)
    far = fin(u, -up * v, (0.34, 0.1), (sweep - 0.1, 0.95 * reach), (0.06, -0.02))
    canvas.paint(canvas.cover(far, pose.scale), dark + 4, BODY, min(pose.haze + 0.1, 1.0))
    _penguin_ends(canvas, u, v, pose)
    cover = canvas.cover(body, pose.scale)
    face = 16 * canvas.relief(body, 0.3)
    canvas.paint(cover, dark + 0.7 * face, BODY, pose.haze)
    edge = rng.uniform(-0.02, 0.05) + 0.05 * np.sin(4 * u + 1)
    white = cover * smooth((edge - v) * 16) * smooth((0.56 - u) * 14)
    canvas.paint(white, np.clip(85 + 0.6 * face, 0, 97), SECOND, pose.haze)
    patch = np.sqrt(((u - 0.58) / 1.5) ** 2 + (v - 0.0) ** 2) - 0.062
    canvas.paint(cover * canvas.cover(patch, pose.scale, 0.02), 76.0, ACCENT, pose.haze)
    eye = np.sqrt((u - 0.76) ** 2 + (v - 0.07) ** 2)
    canvas.paint(canvas.cover(eye - 0.034, pose.scale), 90.0, SECOND, pose.haze)
    canvas.paint(canvas.cover(eye - 0.018, pose.scale), 5.0, BODY, pose.haze)
    wing = fin(u, up * (v + 0.05 * up), (0.4, 0.08), (sweep, reach), (0.07, -0.03))
    canvas.paint(canvas.cover(wing - 0.02, pose.scale), dark + 18 * np.clip(up * v, 0, 1), BODY, pose.haze)


def _penguin_ends(canvas: Canvas, u: Field, v: Field, pose: Pose) -> None:
    """Beak, feet and tail, which the body overlaps."""
    beak = np.maximum(np.abs(v - 0.01 + 0.25 * (u - 0.85) ** 2) - 0.32 * (1.17 - u), 0.8 - u) * 0.9
    beak = np.maximum(beak, np.abs(v - 0.01) - 0.062)
    canvas.paint(canvas.cover(beak, pose.scale), 60 + 120 * np.clip(v, -0.1, 0.1), ACCENT, pose.haze)
    for side in (-0.07, 0.09):
        foot = np.sqrt(((u + 1.02) / 0.19) ** 2 + ((v - side) / 0.055) ** 2) - 1
        canvas.paint(canvas.cover(foot, 0.06 * pose.scale), 52.0, ACCENT, pose.haze)
    tail = np.maximum(np.abs(v) - 0.42 * (u + 1.16), u + 0.8)
    canvas.paint(canvas.cover(tail, pose.scale), 16.0, BODY, pose.haze)


def draw_jellyfish(canvas: Canvas, rng: Rng, pose: Pose) -> None:
    """A glassy bell with a bright rim, and under it frilled arms and long threads."""
    canvas = canvas.window(pose, 3.0)
    u, v = canvas.local(pose)
    tall, glow = rng.uniform(0.62, 0.95), rng.uniform(62, 84)
    _threads(canvas, rng, pose, glow)
    lip = -0.12 + 0.045 * np.cos(u * rng.uniform(12, 20)) - 0.1 * (1 - u * u)
    radius = np.sqrt(u**2 + (v / tall) ** 2)
    dome = np.maximum((radius - 1) * 0.85, (lip - v) * 0.9)
    cover = canvas.cover(dome, pose.scale, 0.01)
    rim = np.exp(-((dome / 0.09) ** 2))
    ribs = 0.5 + 0.5 * np.cos(rng.integers(9, 15) * np.arctan2(u, v + 0.5) * 1.6)
    light = glow - 22 + 24 * rim + 9 * ribs * smooth(radius) + 10 * canvas.relief(dome, 0.6)
    canvas.paint(cover * np.clip(0.52 + 0.4 * rim, 0, 0.95), np.clip(light, 4, 96), BODY, pose.haze)
    canvas.stain(0.8 * cover * smooth((0.45 * tall - v) * 2), SECOND, pose.haze)
    pouches = [((u - x) / 0.19) ** 2 + ((v - 0.36 * tall) / 0.15) ** 2 for x in (-0.4, 0, 0.4)]
    ring = np.exp(-(((np.sqrt(np.minimum.reduce(pouches)) - 1) / 0.3) ** 2))
    canvas.paint(0.28 * ring * cover, min(glow + 6, 94.0), ACCENT, pose.haze)


def _threads(canvas: Canvas, rng: Rng, pose: Pose, glow: float) -> None:
    """Tentacles and oral arms: lines that hang from the lip and sway more the lower they are."""
    u, v = canvas.local(pose)
    thin, thick = int(rng.integers(7, 13)), int(rng.integers(3, 5))
    drift, start = rng.uniform(-0.5, 0.5), rng.uniform(0, 6.3)
    for count, spread, wide, longest, material, light in (
        (thin, 0.9, 0.022, 2.6, BODY, glow),
        (thick, 0.28, 0.085, 1.6, SECOND, glow - 6),
    ):
        length = longest * rng.uniform(0.45, 1.0, (count, 1))
        phase = start + rng.uniform(0, 2, (count, 1))
        # A thread's course depends on v alone, so it is worked out once along v and looked up for each pixel.
        down = np.clip((np.linspace(0, 3, 400) - 0.05) / length, 0, 1)
        sway = (0.16 * np.sin(5.5 * down + phase) + drift * down) * down
        middle = np.linspace(-spread, spread, count)[:, None] * (1 - 0.25 * down) + sway
        frill = 1 + (material == SECOND) * 0.45 * np.sin(38 * down + 3 * phase)
        course = np.stack([middle, wide * (1 - 0.75 * down) * frill, (1 - down) ** 0.8]).astype(np.float32)
        middle, width, veil = course[:, :, np.clip(v * (-400 / 3), 0, 399).astype(np.int32)]
        cover = canvas.cover(np.abs(u - middle) - width, pose.scale) * veil
        canvas.paint(0.8 * cover.max(axis=0) * (v < 0), light, material, pose.haze)


def draw_starfish(canvas: Canvas, rng: Rng, pose: Pose) -> None:
    """Five tapering arms with a ridge and rows of knobs, flat on the ground."""
    whole, canvas = canvas, canvas.window(pose, 1.4)
    u, v = canvas.local(pose)
    tilt = rng.uniform(0.0, 0.5)
    v = v / (1 - tilt)
    radius, angle = np.sqrt(u * u + v * v) + 1e-4, np.arctan2(v, u) + rng.uniform(0, 6.3)
    angle = angle + rng.uniform(-0.35, 0.35) * radius + 0.06 * np.sin(angle * 2 + rng.uniform(0, 6.3))
    arm = np.round(angle * (5 / (2 * np.pi)))
    reach = rng.uniform(0.82, 1.08, 5)[arm.astype(int) % 5].astype(np.float32)
    off = angle - arm * np.float32(2 * np.pi / 5)
    along, aside = radius * np.cos(off), radius * np.abs(np.sin(off))
    stout = rng.uniform(0.2, 0.32)
    width = stout * np.clip(1 - along / reach, 0, 1) ** 0.75 + 0.03
    distance = merge((aside - width) * 0.9, radius - 1.25 * stout, 0.1)
    distance = np.maximum(distance, along - reach) * (1 - 0.5 * tilt)
    shade_ground(whole, pose, 0.9)
    face = canvas.relief(distance, 0.22)
    base, cover = rng.uniform(40, 66), canvas.cover(distance, pose.scale)
    knobs = np.cos(along * rng.uniform(28, 40)) * np.cos(aside * 34)
    rough = canvas.noise(rng, 26, 26)
    canvas.paint(cover, base + 17 * face + 5 * knobs + 2.5 * rough, BODY, pose.haze)
    ridge = np.exp(-((aside / 0.05) ** 2)) * (0.6 + 0.4 * np.cos(along * 40))
    canvas.paint(0.7 * cover * ridge, base + 22, SECOND, pose.haze)
    canvas.stain(cover * smooth((along / reach - 0.55) * 2.5), ACCENT, pose.haze)
