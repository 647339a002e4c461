"""The built-in image set: drawn underwater scenes of five classes, whose colours depend on the class by a set amount.

It is a control with a known answer. Lightness is drawn first, from one random stream; the palette is chosen
afterwards, from another. So the gray image does not depend on the palette, and `class_colour` alone determines how much
the class reveals about colour.

Lengths are in sheet units: x and y run from -1 to 1, y downwards, so a scene is the same at any size in pixels. An
animal is drawn by signed distances (negative inside) in its own frame: u points ahead, v up, 1 is half its length.
"""

from collections.abc import Callable
from copy import copy
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.color import lab_to_linear, linear_to_srgb

CLASSES: tuple[str, ...] = ("coral_reef", "jellyfish", "penguin", "shark", "starfish")
DRAWING = 2  # version of the drawing; scenes of different versions differ, and are never mixed

Field = NDArray[np.floating]  # (H, W), or anything that broadcasts to it
Rng = np.random.Generator
Pair = tuple[float, float]
Thing = Callable[["Sheet", Rng, "Pose"], None]

WATER, DEEP, GROUND, ROCK, BODY, SECOND, ACCENT, FLORA = range(8)
PALETTES = np.array([
    [(-34, -12), (-20, -28), (4, 18), (4, 2), (52, 34), (52, -12), (14, 62), (-34, 26)],  # corals in turquoise
    [(30, -50), (34, -58), (18, -26), (16, -26), (46, -30), (58, -4), (24, 18), (20, -44)],  # pink in a violet night
    [(-8, -30), (-2, -42), (-6, -12), (-2, -14), (2, -14), (0, -3), (36, 62), (-16, -8)],  # cold blue light
    [(-34, 20), (-32, 14), (-8, 24), (-12, 12), (-14, 2), (-8, 12), (-4, 44), (-38, 36)],  # green coastal water
    [(25, 6), (22, -16), (8, 36), (14, 6), (48, 54), (28, 64), (56, 34), (-6, 30)],  # golden sand at dusk
], np.float32)  # fmt: skip
"""a*b* by class and material, in the orders above."""


def draw(index: int, label: int, size_px: int, class_colour: float, seed: int) -> NDArray[np.uint8]:
    """Draw one image.

    Args:
        index: number of the image in the set, 0 or more.
        label: its class, an index into `CLASSES`.
        size_px: side length, 16 or more pixels.
        class_colour: share of images in their class's palette, 0 to 1; the others have any of the five palettes.
        seed: seed of the set, 0 or more.

    Returns:
        (size_px, size_px, 3) sRGB. Except for 8-bit rounding, its L* does not depend on `class_colour`.

    >>> draw(index=0, label=3, size_px=32, class_colour=0.8, seed=7).shape
    (32, 32, 3)
    """
    # seeds begin with 1 and 2 because NumPy pads them with zeros, so that [seed, index] would equal [seed, index, 0]
    scene = compose(label, size_px, np.random.default_rng([1, seed, index, label]))
    palette = choose_palette(label, class_colour, np.random.default_rng([2, seed, index]))
    return lab_to_srgb(scene.lightness, np.tensordot(palette.T, scene.materials, 1))


def choose_palette(label: int, class_colour: float, rng: Rng) -> NDArray[np.float32]:
    """Choose an image's palette, (8, 2) a*b*: its class's with probability `class_colour`, else any of the five.

    All random numbers are drawn for any `class_colour`, so an image changes palette at most once as that increases.
    """
    is_class, other = rng.random() < class_colour, int(rng.integers(len(PALETTES)))
    angle, strength = rng.normal(0.0, 0.06), rng.normal(1.0, 0.06)
    turn = strength * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    spread = rng.normal(0.0, 1.5, PALETTES.shape[1:])
    return (PALETTES[label if is_class else other] @ turn + spread).astype(np.float32)


class Pose(NamedTuple):
    """Placement: centre and half-length in sheet units, angle in radians, -1 for mirrored or +1, haze 0 to 1."""

    x: float
    y: float
    scale: float
    angle: float = 0.0
    flip: float = 1.0
    haze: float = 0.0


class Sheet:
    """Canvas of a scene: L* (H, W), 0 to 100, and material shares (8, H, W), which sum to 1 at each pixel."""

    def __init__(self, size_px: int) -> None:
        place = ((np.arange(size_px) + 0.5) * (2 / size_px) - 1).astype(np.float32)
        self.x, self.y, self.pixel = place[None, :], place[:, None], 2 / size_px
        self.lightness = np.zeros((size_px, size_px), np.float32)
        self.materials = np.zeros((len(PALETTES[0]), size_px, size_px), np.float32)
        self.fog, self.depth = self.lightness, self.lightness
        self.scale, self.haze = 1.0, 0.0

    def around(self, pose: Pose, reach: float) -> tuple["Sheet", Field, Field]:
        """A view of the sheet around a pose, which makes small things cheap to draw, and u, v in its frame."""
        part, half = copy(self), reach * pose.scale
        first, last = ((np.array([pose.y, pose.x]) + end + 1) / self.pixel for end in (-half, half))
        starts = (first.astype(int) - 1).clip(0, len(self.y) - 1).tolist()
        stops = (last.astype(int) + 2).clip(1).tolist()
        rows, columns = map(slice, starts, stops)
        part.x, part.y = self.x[:, columns], self.y[rows]
        part.lightness, part.materials = self.lightness[rows, columns], self.materials[:, rows, columns]
        part.fog, part.depth = self.fog[rows, columns], self.depth[rows, columns]
        part.scale, part.haze = pose.scale, pose.haze
        across, up = (part.x - pose.x) * (pose.flip / pose.scale), (pose.y - part.y) / pose.scale
        cos, sin = np.float32(np.cos(pose.angle)), np.float32(np.sin(pose.angle))
        return part, cos * across + sin * up, cos * up - sin * across

    def noise(self, rng: Rng, bumps: float, octaves: int = 1) -> Field:
        """Smooth noise of mean 0 and deviation about 1; each octave has twice the bumps and half the strength.

        A sum of plane waves; cos(a + b) = cos a cos b - sin a sin b makes that two small matrix products.
        """
        octave = np.repeat(np.arange(octaves), 16)
        angle, phase = rng.uniform(0, 2 * np.pi, (2, len(octave)))
        pitch = np.pi * bumps * 2.0**octave * rng.uniform(0.4, 1.1, len(octave))
        down = (self.y * (pitch * np.sin(angle)) + phase).astype(np.float32)
        across = (self.x.T * (pitch * np.cos(angle))).T.astype(np.float32)
        # the variance of a cosine is 1/2, so that the sum of the 16 of the first octave has variance 1
        strength = (np.sqrt(2 / 16) * 0.5**octave).astype(np.float32)
        return (strength * np.cos(down)) @ np.cos(across) - (strength * np.sin(down)) @ np.sin(across)

    def paint(self, cover: Field, lightness: Field | float, material: int, haze: Field | None = None) -> None:
        """Paint with opacity `cover` and L* `lightness`, seen through water with `haze`, 0 to 1."""
        veil = self.haze if haze is None else haze
        # in place, because views share the memory of their sheet
        self.lightness += cover * (lightness + veil * (self.fog - lightness) - self.lightness)
        self.stain(cover, material, veil)

    def stain(self, cover: Field, material: int, haze: Field | float) -> None:
        self.materials *= 1 - cover
        self.materials[material] += cover * (1 - haze)
        self.materials[WATER] += cover * haze * (1 - self.depth)
        self.materials[DEEP] += cover * haze * self.depth

    def cover(self, distance: Field, soft: float = 0.0) -> Field:
        """Opacity of a shape from its signed distance; its edge is 1.5 pixels wide, and `soft` sheet units."""
        return smoothstep(0.5 - distance * (self.scale / (1.5 * self.pixel + soft)))

    def relief(self, distance: Field, depth: float) -> Field:
        """Shading of a rounded shape, flat from `depth` inside, lit from above; about -1 to 1."""
        inside = np.clip(distance * (-1 / depth), 0, 1)
        height = np.sqrt(inside * (2 - inside) + 1e-4)
        slope = np.zeros_like(height)
        slope[1:-1] = height[2:] - height[:-2]
        slope[:, 1:-1] += 0.45 * (height[:, 2:] - height[:, :-2])
        # differences between pixels, scaled so that slopes are those at 64 pixels for any size
        slope *= 0.6 * 2 / (64 * self.pixel)
        return slope / np.sqrt(1 + slope * slope)


def smoothstep(value: Field | float) -> Field:
    """Smoothstep: 0 below 0, 1 above 1, flat at both ends."""
    share: Field = np.clip(value, 0, 1)
    return share * share * (3 - 2 * share)


def _water(sheet: Sheet, rng: Rng) -> None:
    """Draw open water, light above and dark below, with shafts of sunlight; distant things fade into it."""
    top, bottom = rng.uniform(56, 82), rng.uniform(20, 42)
    centre, width = rng.uniform(-0.9, 0.9), rng.uniform(0.7, 1.4)
    fall = smoothstep((sheet.y + 1.15) * rng.uniform(0.4, 0.6))
    glow = np.exp(-(((sheet.x - centre) / width) ** 2) - ((sheet.y + 1.1) / 0.8) ** 2)
    cloud = sheet.noise(rng, 2, 3)
    sheet.fog = (top + (bottom - top) * fall + 12 * glow + 2.2 * cloud).astype(np.float32)
    sheet.depth = np.clip(fall * 1.1 - 0.1 - 0.35 * glow + 0.06 * cloud, 0, 1).astype(np.float32)
    sheet.materials[WATER], sheet.materials[DEEP] = 1 - sheet.depth, sheet.depth
    fan = (sheet.x - rng.uniform(-0.8, 0.8)) / (sheet.y + 2.4)
    waves = sum(np.sin(fan * rng.uniform(6, 34) + rng.uniform(0, 6.3)) for _ in range(4))
    shafts = np.clip(waves * 0.45, 0, 1.2) * np.clip(0.75 - 0.55 * sheet.y, 0, 1.2)
    sheet.lightness = (sheet.fog + max(rng.uniform(-3, 9), 0) * shafts).astype(np.float32)


def _ground(sheet: Sheet, rng: Rng, horizon: float) -> None:
    """Draw rippled sand from y = `horizon` down, or seen from above if the horizon is above the sheet, with clutter."""
    below = sheet.y - horizon + 0.035 * sheet.noise(rng, 2)
    near = 1.6 + 0 * below if horizon < -1 else 1 / np.clip(below + 0.22, 0.05, None)
    away = 1.6 * sheet.y if horizon < -1 else near
    warp = sheet.noise(rng, 3, 3)
    phase = away * rng.uniform(7, 11) + rng.uniform(-1.5, 1.5) * sheet.x * near + 1.3 * warp
    ripples = (np.sin(phase) + 0.4 * np.sin(2 * phase + 1)) * np.clip(2.4 - 0.5 * near, 0, 1)
    net = rng.uniform(0, 16) * np.exp(-((sheet.noise(rng, 6, 2) / 0.12) ** 2))  # caustics
    light = rng.uniform(56, 76) + 3.2 * ripples + 3 * warp + 1.3 * sheet.noise(rng, 30) + net
    haze = 0.95 * np.clip(np.exp(-rng.uniform(1.6, 3.4) * below), 0, 1)
    sheet.paint(sheet.cover(-below, 0.02), light, GROUND, haze)
    for place in np.sort(rng.uniform(0.05, 1.0, rng.integers(0, 5))):
        y, scale = max(horizon, -0.6), rng.uniform(0.14, 0.3) * (0.55 + 0.7 * place)
        pose = Pose(rng.uniform(-1, 1), y + place * (1.05 - y), scale, haze=0.75 * (1 - place))
        _stand(sheet, rng, pose, _rock if rng.random() < 0.75 else CORALS[rng.integers(len(CORALS))])
    for _ in range(rng.integers(0, 3)):
        _weed(sheet, rng, rng.uniform(max(horizon, 0.2), 1.1))


def _stand(sheet: Sheet, rng: Rng, pose: Pose, thing: Thing) -> None:
    """Draw a thing and its soft shadow on the ground."""
    across = (sheet.x - pose.x) / pose.scale
    down = (sheet.y - pose.y - 0.1 * pose.scale) / (0.5 * pose.scale)
    sheet.lightness -= (14 * (1 - pose.haze)) * np.exp(-(across**2) - down**2)
    thing(sheet, rng, pose)


def _rock(sheet: Sheet, rng: Rng, pose: Pose) -> None:
    part, u, v = sheet.around(pose, 2.0)
    lumps = part.noise(rng, 5, 2)
    distance = np.sqrt((u / 1.3) ** 2 + (v * 1.25) ** 2) - 1 + 0.13 * lumps
    light = rng.uniform(30, 48) + 20 * part.relief(distance, 0.7) + 4 * lumps
    part.paint(part.cover(distance), light, ROCK)


def _weed(sheet: Sheet, rng: Rng, foot: float) -> None:
    """Draw a clump of swaying blades that grow at y = `foot`."""
    part, u, up = sheet.around(Pose(rng.uniform(-1, 1), foot, rng.uniform(0.35, 1.0), haze=0.3), 1.2)
    root, lean = rng.normal(0, (0.15, 0.3), (rng.integers(2, 7), 2)).T.astype(np.float32)[:, :, None, None]
    middle = root + lean * up**2 + 0.05 * np.sin(5 * up + 20 * lean)
    width = 0.045 * np.clip(1 - up, 0, 1) ** 0.6 * np.clip(up * 8 + 0.4, 0, 1)
    distance = np.maximum((np.abs(u - middle) - width).min(axis=0), np.abs(up - 0.5) - 0.5)
    part.paint(part.cover(distance), rng.uniform(26, 52) + 18 * np.clip(up, 0, 1), FLORA)


def _fish(sheet: Sheet, rng: Rng, pose: Pose) -> None:
    part, u, v = sheet.around(pose, 12)
    x, y = rng.normal(0, 4, (rng.integers(3, 9), 2)).T.astype(np.float32)[:, :, None, None]
    tail = np.maximum(np.abs(v - y) * 1.4 + 0.75 + u - x, -1.55 - u + x)
    body = np.sqrt((u - x) ** 2 + ((v - y) * 2.3) ** 2) - 1
    part.paint(part.cover(np.minimum(body, tail).min(axis=0)), rng.uniform(34, 82), ACCENT)


def _fin(u: Field, v: Field, root: Pair, tip: Pair, curve: Pair) -> Field:
    """Signed distance of a fin on v = 0; `root` gives u of its front and back, `curve` the bulge of both edges."""
    out = v / tip[1]
    bulge = 4 * np.clip(out, 0, 1) * (1 - np.clip(out, 0, 1))
    front = root[0] + (tip[0] - root[0]) * out + curve[0] * bulge
    rear = root[1] + (tip[0] - root[1]) * out + curve[1] * bulge
    return np.maximum(np.maximum(u - front, rear - u) * 0.8, np.maximum(-v, v - tip[1]))


def _spindle(u: Field, thickness: float, blunt: float, taper: float) -> Field:
    """Half-thickness of a fish-like body, nose at u = 1: an airfoil, blunt in front and tapering behind."""
    back = np.clip((1 - u) / 2, 1e-4, 1)
    return thickness * back**blunt * (1 - back) ** taper


def _shark(sheet: Sheet, rng: Rng, pose: Pose) -> None:
    """A spindle with swept fins, dark above and pale below."""
    part, u, v = sheet.around(pose, 1.5)
    v = v - rng.uniform(-0.16, 0.16) * u * u - rng.uniform(-0.05, 0.05) * np.sin(3 * u)
    thick = _spindle(u, rng.uniform(0.42, 0.54), 0.58, 1.2) + 0.016
    body = np.maximum(np.abs(v + 0.02) - thick, np.abs(u) - 1)
    beat, span = rng.uniform(0.8, 1.25, 2)
    fins = [
        _fin(u, v, (0.24, -0.16), (-0.26, 0.46 * span), (0.07, 0.07)),
        _fin(u, -v, (0.42, 0.12), (-0.1 * beat, 0.44 * span), (0.07, 0.04)),
        _fin(u, -v, (-0.45, -0.58), (-0.68, 0.15), (0.02, 0.04)),
        _fin(u, v, (-0.8, -1.0), (-1.36, 0.54 * beat), (0.05, 0.09)),
        _fin(u, -v, (-0.8, -1.0), (-1.18, 0.34 * beat), (0.05, 0.07)),
    ]
    whole, back = np.minimum.reduce([body, *fins]), rng.uniform(26, 46)
    belly = smoothstep((-0.25 - v / thick) * 2.2 + 0.4) * part.cover(body)
    bars = rng.choice([0, 0, 5]) * np.sin(26 * u) * smoothstep(v * 8 + 0.5)
    light = back + (rng.uniform(68, 84) - back) * belly + 9 * part.relief(whole, 0.16) + bars
    part.paint(part.cover(whole), light, BODY)
    part.stain(part.cover(whole) * belly, SECOND, pose.haze)
    part.paint(part.cover(np.sqrt((u - 0.78) ** 2 + (v - 0.035) ** 2) - 0.024), 7.0, BODY)


def _penguin(sheet: Sheet, rng: Rng, pose: Pose) -> None:
    """A plump torpedo: dark back and hood, white belly, orange beak, cheek and feet, a flipper beating."""
    part, u, v = sheet.around(pose, 1.4)
    v = v - rng.uniform(-0.14, 0.14) * u * u
    beak = np.maximum(np.abs(v) - 0.28 * (1.17 - u), np.maximum(0.75 - u, np.abs(v) - 0.062))
    feet = np.maximum(np.abs(np.abs(v - 0.01) - 0.08) - 0.05, np.abs(u + 1.02) - 0.17)
    part.paint(part.cover(np.minimum(beak, feet)), 58.0, ACCENT)
    thick = _spindle(u * 1.02 + 0.1, rng.uniform(0.72, 0.88), 0.6, 0.75)
    head = np.sqrt(((u - 0.72) / 1.25) ** 2 + (v - 0.03) ** 2) - 0.16
    body = np.minimum(np.maximum(np.abs(v) - thick, np.maximum(u - 0.88, -1.07 - u)), head)
    dark, shape, cover = rng.uniform(12, 26), 16 * part.relief(body, 0.3), part.cover(body)
    part.paint(cover, dark + 0.7 * shape, BODY)
    white = cover * smoothstep((rng.uniform(0, 0.06) - v) * 16) * smoothstep((0.56 - u) * 14)
    part.paint(white, np.clip(85 + 0.6 * shape, 0, 97), SECOND)
    part.paint(cover * part.cover(np.sqrt(((u - 0.58) / 1.5) ** 2 + v**2) - 0.062, 0.02), 76.0, ACCENT)
    part.paint(part.cover(np.abs(np.sqrt((u - 0.76) ** 2 + (v - 0.07) ** 2) - 0.026) - 0.008), 90.0, SECOND)
    up, tip = rng.choice([-1.0, 1.0]), (rng.uniform(-0.3, 0.05), rng.uniform(0.42, 0.62))
    wing = _fin(u, up * v + 0.05, (0.4, 0.08), tip, (0.07, -0.03)) - 0.02
    part.paint(part.cover(wing), dark + 18 * np.clip(up * v, 0, 1), BODY)


def _jellyfish(sheet: Sheet, rng: Rng, pose: Pose) -> None:
    """A glassy bell with a bright rim; threads and frilled arms hang from it and sway the more the lower."""
    part, u, v = sheet.around(pose, 3.0)
    tall, glow = rng.uniform(0.62, 0.95), rng.uniform(62, 84)
    for many, spread, width, longest, material in ((10, 0.9, 0.02, 2.6, BODY), (4, 0.28, 0.08, 1.6, SECOND)):
        for middle in np.linspace(-spread, spread, many - rng.integers(2)):
            down = np.clip((-v - 0.05) / (longest * rng.uniform(0.45, 1.0)), 0, 1)
            sway = (0.16 * np.sin(5.5 * down + rng.uniform(0, 2)) + rng.uniform(-0.2, 0.2) * down) * down
            wide = width * (1 - 0.75 * down) * (1 + (material == SECOND) * 0.45 * np.sin(38 * down))
            line = part.cover(np.abs(u - middle * (1 - 0.25 * down) - sway) - wide)
            part.paint(0.8 * line * (1 - down) ** 0.8 * (v < 0), glow, material)
    lip = -0.12 + 0.045 * np.cos(u * rng.uniform(12, 20)) - 0.1 * (1 - u * u)
    radius = np.sqrt(u**2 + (v / tall) ** 2)
    dome = np.maximum((radius - 1) * 0.85, (lip - v) * 0.9)
    cover, rim = part.cover(dome, 0.01), np.exp(-((dome / 0.09) ** 2))
    ribs = 0.5 + 0.5 * np.cos(rng.integers(9, 15) * np.arctan2(u, v + 0.5) * 1.6)
    light = glow - 22 + 24 * rim + 9 * ribs * smoothstep(radius) + 10 * part.relief(dome, 0.6)
    part.paint(cover * np.clip(0.52 + 0.4 * rim, 0, 0.95), np.clip(light, 4, 96), BODY)
    part.stain(0.8 * cover * smoothstep((0.45 * tall - v) * 2), SECOND, pose.haze)


def _starfish(sheet: Sheet, rng: Rng, pose: Pose) -> None:
    """Five tapering arms with a ridge and rows of knobs, flat on the ground."""
    part, u, v = sheet.around(pose, 1.4)
    tilt, stout = rng.uniform(0.0, 0.5), rng.uniform(0.2, 0.32)
    v = v / (1 - tilt)
    radius, angle = np.sqrt(u * u + v * v) + 1e-4, np.arctan2(v, u) + rng.uniform(0, 6.3)
    angle = angle + rng.uniform(-0.35, 0.35) * radius + 0.06 * np.sin(angle * 2 + rng.uniform(0, 6.3))
    arm = np.round(angle * (5 / (2 * np.pi)))
    reach, off = rng.uniform(0.82, 1.08, 5)[arm.astype(int) % 5], angle - arm * (2 * np.pi / 5)
    along, aside = radius * np.cos(off), radius * np.abs(np.sin(off))
    width = stout * np.clip(1 - along / reach, 0, 1) ** 0.75 + 0.03
    distance = np.minimum((aside - width) * 0.9, radius - 1.35 * stout)
    distance = np.maximum(distance, along - reach) * (1 - 0.5 * tilt)
    knobs = np.cos(along * rng.uniform(28, 40)) * np.cos(aside * 34)
    ridge = np.exp(-((aside / 0.05) ** 2)) * (0.6 + 0.4 * np.cos(along * 40))
    light, cover = rng.uniform(40, 66) + 17 * part.relief(distance, 0.22), part.cover(distance)
    part.paint(cover, light + 5 * knobs + 2.5 * part.noise(rng, 16), BODY)
    part.paint(0.7 * cover * ridge, light + 20, SECOND)
    part.stain(cover * smoothstep((along / reach - 0.55) * 2.5), ACCENT, pose.haze)


def _staghorn(sheet: Sheet, rng: Rng, pose: Pose) -> None:
    """Staghorn coral: a tree of tapering twigs with pale tips."""
    part, u, v = sheet.around(pose, 1.5)
    distance = np.full_like(u, 9)
    ends = [(0.0, 0.0, angle, 0.085) for angle in np.linspace(-0.9, 0.9, rng.integers(4, 6))]
    for length in (0.52, 0.36, 0.26)[: rng.integers(2, 4)]:
        tips = []
        for x, y, angle, radius in ends:
            reach, turn = length * rng.uniform(0.75, 1.2), rng.normal(0.85 * angle, 0.12)
            across, ahead = np.sin(turn), np.cos(turn)
            along = np.clip((u - x) * across + (v - y) * ahead, 0, reach)
            twig = np.sqrt((u - x - along * across) ** 2 + (v - y - along * ahead) ** 2)
            distance = np.minimum(distance, twig - radius * (1 - 0.25 * along / reach))
            tip = (x + reach * across, y + reach * ahead)
            tips += [(*tip, turn - 0.42, 0.75 * radius), (*tip, turn + 0.42, 0.75 * radius)]
        ends = tips
    height, cover = np.clip(v, 0, 1), part.cover(distance)
    light = rng.uniform(44, 66) + 16 * part.relief(distance, 0.07) + 20 * (height - 0.5)
    part.paint(cover, np.clip(light, 5, 95), BODY)
    part.stain(0.8 * cover * smoothstep((height - 0.7) * 4), SECOND, pose.haze)


def _fan(sheet: Sheet, rng: Rng, pose: Pose) -> None:
    """Sea fan: a lacy sheet of ribs that fork from one foot."""
    part, u, v = sheet.around(pose, 1.5)
    radius, angle, ragged = np.sqrt(u * u + v * v) + 1e-4, np.arctan2(u, v + 0.05), part.noise(rng, 5, 2)
    distance = np.maximum(radius - 1 - 0.09 * ragged, (np.abs(angle) - rng.uniform(0.75, 1.1)) * radius)
    ribs = np.cos(angle * rng.uniform(22, 30) + 0.9 * ragged)
    mesh = np.maximum(ribs, 0.7 * np.cos(radius * rng.uniform(30, 42) + 0.8 * ragged))
    light = rng.uniform(40, 64) + 13 * mesh + 12 * (radius - 0.5)
    part.paint(part.cover(distance) * (0.55 + 0.45 * smoothstep(mesh + 0.4)), np.clip(light, 5, 95), SECOND)


def _brain(sheet: Sheet, rng: Rng, pose: Pose) -> None:
    """Brain coral: a dome; waves of one length in five directions add up to its labyrinth of grooves."""
    part, u, v = sheet.around(pose, 1.5)
    distance = np.maximum(np.sqrt((u / rng.uniform(0.75, 1.0)) ** 2 + (v / 0.68) ** 2) - 1, -0.12 - v)
    pitch = rng.uniform(17, 25) * (1 + 0.6 * (u * u + v * v))
    turns = rng.uniform(0, np.pi) + np.arange(5) * (np.pi / 5)
    waves = sum(np.cos((u * np.cos(t) + v * np.sin(t)) * pitch + rng.uniform(0, 6.3)) for t in turns)
    light = rng.uniform(46, 64) + 16 * part.relief(distance, 0.7) + 13 * (smoothstep(waves * 0.6 + 0.5) - 0.5)
    part.paint(part.cover(distance), np.clip(light, 5, 95), ACCENT)


CORALS = (_staghorn, _fan, _brain)


class Scene(NamedTuple):
    """What a class shows."""

    things: tuple[Thing, ...]
    sizes: tuple[float, float]
    """range of half-lengths, sheet units"""
    most: int
    """largest number of animals; four more of corals"""
    horizons: tuple[tuple[float, float], ...]
    """ranges of y where the ground begins, one of which is chosen"""
    is_on_ground: bool = False
    tilt: float = 0.4
    """standard deviation of its angle, radians"""


_OVERHEAD, _NO_GROUND = (-2.0, -2.0), (1.2, 1.2)
SCENES = (
    Scene(CORALS, (0.4, 0.85), 9, ((-0.2, 0.6),), is_on_ground=True, tilt=0.12),
    Scene((_jellyfish,), (0.18, 0.52), 4, ((0.3, 0.9), _NO_GROUND)),
    Scene((_penguin,), (0.26, 0.68), 3, ((0.3, 0.9), (0.3, 0.9), _NO_GROUND, _OVERHEAD)),
    Scene((_shark,), (0.32, 0.85), 3, ((0.3, 0.9), (0.3, 0.9), _NO_GROUND, _OVERHEAD)),
    Scene((_starfish,), (0.2, 0.62), 3, ((-0.7, 0.1), _OVERHEAD), is_on_ground=True, tilt=0.2),
)


def compose(label: int, size_px: int, rng: Rng) -> Sheet:
    """Draw a scene without colours; its L* is within 3 to 97."""
    sheet, scene = Sheet(size_px), SCENES[label]
    _water(sheet, rng)
    horizon = rng.uniform(*scene.horizons[rng.integers(len(scene.horizons))])
    if horizon < 1:
        _ground(sheet, rng, horizon)
    if rng.random() < 0.5:
        x, y = rng.uniform((-0.8, -0.8), (0.8, 0.4))
        _fish(sheet, rng, Pose(x, y, rng.uniform(0.05, 0.09), 0, rng.choice([-1.0, 1.0]), haze=0.3))
    first = rng.integers(scene.most)
    # a reef has at least five corals
    near = [*np.sort(rng.uniform(0, 0.85, first if scene.most < 5 else first + 4)), 1.0]
    for place, number in zip(near, rng.permutation(len(near)).tolist(), strict=True):  # distant ones first
        scale, flip = rng.uniform(*scene.sizes) * (0.45 + 0.55 * place), rng.choice([-1.0, 1.0])
        x, y = rng.uniform((-0.8, -0.6), (0.8, 0.5))
        if scene.is_on_ground:
            y = max(horizon, -1) + 0.2 + place * rng.uniform(0.6, 0.9) * (0.9 - max(horizon, -1))
        pose = Pose(x, y, scale, rng.normal(0, scene.tilt), flip, rng.uniform(0, 0.25) + 0.5 * (1 - place))
        thing = scene.things[number % len(scene.things)]
        _stand(sheet, rng, pose, thing) if scene.is_on_ground else thing(sheet, rng, pose)
    turbidity = np.full_like(sheet.lightness, 0.6 * rng.beta(1, 2))
    sheet.paint(turbidity, sheet.fog, WATER, np.ones_like(sheet.fog))
    sheet.lightness -= rng.uniform(1, 6) * (sheet.x**2 + sheet.y**2)  # darker corners
    np.clip(sheet.lightness, 3, 97, out=sheet.lightness)
    return sheet


def lab_to_srgb(lightness: Field, chroma: Field) -> NDArray[np.uint8]:
    """L* (H, W) and a*b* (2, H, W) as (H, W, 3) 8-bit sRGB of that L*; chroma outside the gamut is reduced.

    Clipping RGB would change L*, and the gray image would then reveal its palette.
    """
    light, ab = lightness.ravel(), chroma.reshape(2, -1)
    factor = np.zeros_like(light)
    for step in 0.5 ** np.arange(8, dtype=np.float32):  # bisection; the first step tries the whole chroma
        linear = lab_to_linear(light, ab * np.minimum(factor + step, 1))
        factor += step * ((linear.min(axis=0) >= 0) & (linear.max(axis=0) <= 1))
    codes = linear_to_srgb(lab_to_linear(light, ab * np.minimum(factor, 1)).clip(0, 1))
    return np.rint(codes * 255).astype(np.uint8).T.reshape(*lightness.shape, 3)
