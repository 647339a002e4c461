"""How much steadier the colours of a video are than those of its frames one by one, and the cost in accuracy.

The videos are generated from photos, so that colours and motion are known: a still camera, a camera that pans and
zooms, a part of another photo that moves over the first, and cuts between two photos with a moving camera. The model
gets only lightness, with grain and a flickering lamp. `flicker` follows every point along its true motion, where it is
visible in both frames; `a*b* error` is relative to the photo's colours, and `near the part` is the error within three
pixels, at the network's size, of the edge of the moving part, where wrongly carried colours would smear.

    python benchmarks/flicker.py PHOTOS --model RUN [--videos 20] [--frames 24] [--grain 4] [--lamp 0.05]
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion, map_coordinates

from knowhue.color import rgb_to_lab
from knowhue.images.image import Image
from knowhue.images.reading import read_image
from knowhue.images.vips import shrink
from knowhue.inference.colorizer import Colorizer
from knowhue.inference.pixels import lightness
from knowhue.inference.video import Past, Steadier, agreement, warp

FloatArray = NDArray[np.float32]
HEIGHT, WIDTH = 192, 256
KINDS = ("still", "camera moves", "part moves", "cuts")
SCENE_FRAMES = 6  # frames between two cuts


class Video(NamedTuple):
    """A generated video, at the network's size."""

    seen: FloatArray
    """L* (T, h, w) of the frames, with grain and flickering lamp"""
    truth: FloatArray
    """a*b* (T, h, w, 2), without grain and flicker"""
    flow: FloatArray
    """(T - 1, h, w, 2): displacement of each point to the frame before, in pixels of the network's size"""
    same: NDArray[np.bool_]
    """(T - 1, h, w): whether the point was visible in the frame before"""
    edge: NDArray[np.bool_]
    """(T, h, w): near the edge of the moving part"""


class Scores(NamedTuple):
    """Means over a video; NaN if it has no such pixels."""

    flicker: float
    error: float
    edge_error: float


def main() -> None:
    """Generate the videos, predict once, steady the colours with every method, and print."""
    args = _read_arguments()
    colorizer = Colorizer.load(args.model, fast=True)
    files = sorted(p for p in args.photos.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    chosen = files[:: max(1, len(files) // (2 * args.videos))]
    generator = np.random.default_rng(args.seed)
    found: dict[str, dict[str, list[Scores]]] = {}
    spent: dict[str, float] = {}
    for number in range(min(args.videos, len(chosen) // 2)):
        photos = [read_image(chosen[k]).pixels for k in (2 * number, 2 * number + 1)]
        for kind in KINDS:
            video = draw(kind, [_in_colour(photo) for photo in photos], colorizer, args, generator)
            answers = [answer.chroma[0] for answer in colorizer.predict(list(video.seen))]  # pyright: ignore
            for name, steady in ways().items():
                started = time.perf_counter()
                chroma = steady(video, answers)
                spent[name] = spent.get(name, 0) + (time.perf_counter() - started) / len(answers)
                found.setdefault(kind, {}).setdefault(name, []).append(score(video, chroma))
    videos = len(found[KINDS[0]]["frame by frame"])
    for kind, by_way in found.items():
        print(
            f"\n{kind} ({videos} videos){'flicker':>{48 - len(kind) - len(str(videos))}}{'a*b* error':>12}"
            f"{'near the part':>17}{'ms/frame':>10}"
        )
        for name, scores in by_way.items():
            cells = np.nanmean(np.array(scores), 0) if kind == KINDS[2] else np.array(scores).mean(0)
            cost = 1000 * spent[name] / (videos * len(found))
            print(f"  {name:44}{cells[0]:11.3f}{cells[1]:12.3f}{cells[2]:17.3f}{cost:10.1f}")


def ways() -> dict[str, Callable[[Video, list[FloatArray]], list[FloatArray]]]:
    """The methods that are compared."""

    def by(make: Callable[[], Steadier]) -> Callable[[Video, list[FloatArray]], list[FloatArray]]:
        def steady(video: Video, answers: list[FloatArray]) -> list[FloatArray]:
            steadier = make()
            return [steadier.step(*each) for each in zip(video.seen, answers, strict=True)]

        return steady

    return {
        "true colours": lambda video, _: list(video.truth),
        "frame by frame": lambda _, answers: answers,
        "averaged in place, no gate, 0.8": by(lambda: Unmoved(0.8, gated=False)),
        "averaged in place, gated, 0.8": by(lambda: Unmoved(0.8, gated=True)),
        **{f"carried along, gated, {s}": by(lambda s=s: Steadier(s)) for s in (0.5, 0.7, 0.8, 0.9, 0.95)},
    }


class Unmoved(Steadier):
    """An exponential average without motion, for comparison."""

    def __init__(self, strength: float, gated: bool) -> None:
        super().__init__(strength)
        self._gated = gated

    def step(self, lightness: FloatArray, chroma: FloatArray) -> FloatArray:
        """See `Steadier.step`."""
        answer = chroma
        if self.past is not None:
            gate = agreement(self.past.lightness, lightness)[..., None] if self._gated else 1
            answer = chroma + np.float32(self._strength) * gate * (self.past.chroma - chroma)
        self.past = Past(lightness, answer)
        return answer


def flicker(chroma: FloatArray, carried: FloatArray, same: NDArray[np.bool_]) -> float:
    """Mean absolute change of a*b* since the frame before, over the pixels that show the same point as then.

    Args:
        chroma: a*b* (h, w, 2) of a frame.
        carried: a*b* (h, w, 2) of the frame before, moved along the true motion if it is known.
        same: (h, w), whether a pixel shows the same point.

    Returns:
        CIELAB units; NaN if no pixel does.
    """
    return float(np.abs(chroma - carried)[same].mean()) if same.any() else float("nan")


def score(video: Video, chroma: list[FloatArray]) -> Scores:
    """Flicker and errors of one video's colours, including the first frames."""
    flickers = [
        flicker(chroma[t + 1], warp(chroma[t], video.flow[t]), video.same[t]) for t in range(len(video.flow))
    ]
    error = np.abs(np.stack(chroma) - video.truth)
    edge = float(error[video.edge].mean()) if video.edge.any() else float("nan")
    return Scores(float(np.nanmean(flickers)), float(error.mean()), edge)


def draw(
    kind: str,
    photos: list[NDArray[np.uint8]],
    colorizer: Colorizer,
    args: argparse.Namespace,
    generator: np.random.Generator,
) -> Video:
    """A video of one kind from two photos (H, W, 3)."""
    moving = kind in ("camera moves", "cuts")
    windows = [_Window(photo.shape[:2], moving, generator) for photo in photos]
    part = _Part(photos[1], generator) if kind == "part moves" else None
    seen, truth, maps, masks = [], [], [], []
    for t in range(args.frames):
        scene = t // SCENE_FRAMES % 2 if kind == "cuts" else 0
        where = windows[scene].at(t / max(args.frames - 1, 1))
        colour = np.stack(
            [map_coordinates(photos[scene][..., k], where, np.float32, 1) for k in range(3)], -1
        )
        if part is not None:
            part.onto(colour, t)
        lamp = 1 + args.lamp * generator.standard_normal()
        gray = _luma(colour) * lamp + args.grain * generator.standard_normal(colour.shape[:2])
        gray = gray.clip(0, 255).round().astype(np.uint8)[..., None]
        seen.append(colorizer.network_input(Image.of(gray)))
        small = shrink(colour.clip(0, 255).round().astype(np.uint8), *seen[-1].shape)
        truth.append(_chroma(small))
        maps.append(_small(np.asarray(where, np.float32).transpose(1, 2, 0), seen[-1].shape))
        mask = np.zeros((HEIGHT, WIDTH), np.float32) if part is None else part.mask(t)
        masks.append(_small(mask[..., None], seen[-1].shape)[..., 0] > 0.5)
    scale = HEIGHT / seen[0].shape[0]
    flow, same = zip(*(_correspond(part, maps, masks, t, scale) for t in range(1, args.frames)), strict=True)
    if kind == "cuts":
        same = [s & ((t + 1) % SCENE_FRAMES > 0) for t, s in enumerate(same)]
    edge = [binary_dilation(m, iterations=3) & ~binary_erosion(m, iterations=3) for m in masks]
    return Video(*map(np.stack, (seen, truth, flow, same, edge)))


class _Window:
    """The part of a photo that a camera shows, as a linear function of time, 0 to 1."""

    def __init__(self, shape: tuple[int, int], moving: bool, generator: np.random.Generator) -> None:
        largest = min(shape[0] / HEIGHT, shape[1] / WIDTH)
        ends = generator.uniform(0.7, 0.95, 2) * largest if moving else np.full(2, 0.95 * largest)
        room = [
            np.array([n - k * size for k in ends]) for n, size in zip(shape, (HEIGHT, WIDTH), strict=True)
        ]
        corners = [r * generator.random(2) if moving else r * 0.5 for r in room]
        self._lines = [np.array(pair) for pair in (*corners, ends)]

    def at(self, moment: float) -> tuple[FloatArray, FloatArray]:
        """Rows and columns in the photo of each pixel of the frame."""
        top, left, scale = (a + (b - a) * moment for a, b in self._lines)
        rows, columns = np.indices((HEIGHT, WIDTH), np.float32)
        return top + rows * scale, left + columns * scale


class _Part:
    """A disc from another photo that crosses the frame."""

    def __init__(self, photo: NDArray[np.uint8], generator: np.random.Generator) -> None:
        self.velocity = generator.uniform(1.5, 4, 2) * generator.choice([-1, 1], 2)
        self._centre = np.array([HEIGHT, WIDTH]) * generator.uniform(0.4, 0.6, 2) - 12 * self.velocity
        self._photo = photo.astype(np.float32)
        self._radius = HEIGHT / 4
        self._middle = np.array(photo.shape[:2]) / 2

    def mask(self, t: int) -> FloatArray:
        """Its mask (H, W), 0 or 1."""
        rows, columns = np.indices((HEIGHT, WIDTH)) - (self._centre + t * self.velocity)[:, None, None]
        return (np.hypot(rows, columns) < self._radius).astype(np.float32)

    def onto(self, colour: FloatArray, t: int) -> None:
        """Draw it over a frame."""
        places = (
            np.indices((HEIGHT, WIDTH)) - (self._centre + t * self.velocity - self._middle)[:, None, None]
        )
        inside = self.mask(t) > 0
        for k in range(3):
            colour[inside, k] = map_coordinates(
                self._photo[..., k], places[:, inside], np.float32, 1, mode="reflect"
            )


def _correspond(
    part: _Part | None,
    maps: list[FloatArray],
    masks: list[NDArray[np.bool_]],
    t: int,
    scale: float,
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Displacement of each point of frame t to the frame before, and whether it was visible there."""
    now, before = maps[t], maps[t - 1]
    steps = np.array([before[1, 0, 0] - before[0, 0, 0], before[0, 1, 1] - before[0, 0, 1]])
    places = (now - before[0, 0]) / steps
    flow = places - np.indices(now.shape[:2]).transpose(1, 2, 0)
    if part is not None:
        flow = np.where(masks[t][..., None], -part.velocity / scale, flow)
    places = flow + np.indices(now.shape[:2]).transpose(1, 2, 0)
    inside = ((places >= 0) & (places <= np.array(now.shape[:2]) - 1)).all(-1)
    rows, columns = (places[..., k].round().astype(int).clip(0, now.shape[k] - 1) for k in (0, 1))
    sharp = [
        ~(binary_dilation(m, iterations=2) & ~binary_erosion(m, iterations=2))
        for m in (masks[t], masks[t - 1])
    ]
    same = inside & (masks[t - 1][rows, columns] == masks[t]) & sharp[0] & sharp[1][rows, columns]
    return flow.astype(np.float32), same


def _in_colour(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(pixels, 3, 2) if pixels.shape[2] == 1 else pixels


def _luma(colour: FloatArray) -> FloatArray:
    """Gray codes with the same L* as the colours."""
    codes = np.arange(256, dtype=np.uint8).reshape(1, -1, 1)
    of_code = lightness(codes)[0]
    return np.interp(lightness(colour.clip(0, 255).round().astype(np.uint8)), of_code, np.arange(256))


def _chroma(small: FloatArray) -> FloatArray:
    rgb = torch.from_numpy(small.clip(0, 1)).permute(2, 0, 1)[None]
    return rgb_to_lab(rgb)[1][0].permute(1, 2, 0).numpy()


def _small(values: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """Values (H, W, C) interpolated at the pixel centres of a smaller shape."""
    places = [(np.arange(new) + 0.5) * old / new - 0.5 for new, old in zip(shape, values.shape, strict=False)]
    grid = np.meshgrid(*places, indexing="ij")
    return np.stack(
        [map_coordinates(values[..., k], grid, order=1, mode="nearest") for k in range(values.shape[2])], -1
    )


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path, help="folder of photos")
    parser.add_argument("--model", default="built-in", help="built-in, a run folder, or an exported file")
    parser.add_argument("--videos", type=int, default=20, help="videos of each kind")
    parser.add_argument("--frames", type=int, default=24, help="frames per video")
    parser.add_argument("--grain", type=float, default=4.0, help="standard deviation, in codes of 0 to 255")
    parser.add_argument(
        "--lamp", type=float, default=0.05, help="relative standard deviation of the brightness"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of motion, grain and lamp")
    return parser.parse_args()


if __name__ == "__main__":
    main()
