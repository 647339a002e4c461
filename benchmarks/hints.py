"""Colour hints and strokes: whether their effect stays in their region and reaches their colour, and what they cost.

The region of a hint is defined here, independently of the code that is measured: pixels within 15 % of the image's
short side of the point that are connected to it by steps of L* of at most 8 between horizontal or vertical neighbours.
If the short side is longer than 256 pixels, the steps are computed on the image averaged down to 256, so that grain
does not count as an edge, and the mask is enlarged to full size. The regions of several hints are united.

Each photo is coloured without hints, with one, with three, and with two of different colours whose distance is 3 % of
the short side, at random points in random colours of sRGB. The 8-bit pixels that would be written are compared in
CIELAB:

- outside: share of the pixels outside the region whose a*b* changed by less than 1 unit;
- at the point: distance from the requested colour, or from the nearest colour of the same hue in sRGB;
- taken up: share of the region within 5 % of the short side of a point that changed at least half as much as the point
  did; otherwise a hint that colours only its own pixel would have perfect scores.

A stroke is a line of two to four random corners, 1 % of the short side wide, in a random colour. Along it the distance
from that colour is measured, or from the nearest one in sRGB; outside are the pixels beyond the reach.

    python benchmarks/hints.py IMAGES... [--model built-in] [--images 40] [--seed 0] [--runs 9]
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow
from PIL import ImageDraw
from scipy.ndimage import distance_transform_edt, zoom
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from knowhue.color import lab_to_rgb, rgb_to_lab
from knowhue.images.image import SUFFIXES, Image
from knowhue.images.reading import read_image
from knowhue.inference.colorizer import ColorizeOptions, Colorizer
from knowhue.inference.hints import MOST_SAMPLES, Hint, Strokes

REGION_RADIUS = 0.15
NEAR_RADIUS = 0.05
EDGE_STEP = 8.0
EDGE_PX = 256
APART = 0.03
STROKE_WIDTH = 0.01
STROKE_SAMPLES = 300
WAYS = ("one hint", "three hints", "two near hints")


def main() -> None:
    """Measure hints and strokes on every photo, then the time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path, nargs="+", help="files or folders")
    parser.add_argument("--model", default="built-in", help="built-in, a run folder, or an exported file")
    parser.add_argument("--images", dest="count", type=int, default=40, help="photos per folder")
    parser.add_argument("--seed", type=int, default=0, help="seed of points and colours")
    parser.add_argument("--runs", type=int, default=9, help="number of timed runs")
    args = parser.parse_args()
    colorizer = Colorizer.load(args.model)
    files = [path for source in args.images for path in some(source, args.count)]
    found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
    for place, path in enumerate(files):
        measure(colorizer, path, np.random.default_rng([args.seed, place]), found)
    print(f"{len(files)} photos; {colorizer.network.description.name}")
    print(f"{'':16}{'outside: mean':>16}{'worst':>8}{'95 % kept':>11}{'at point: worst':>17}", end="")
    print(f"{'within 2':>10}{'taken up':>10}")
    for way, rows in found.items():
        outside, at_point, taken_up = np.array(rows).T
        print(f"{way:16}{outside.mean():16.2%}{outside.min():8.1%}{(outside >= 0.95).mean():11.1%}", end="")
        print(f"{at_point.max():17.2f}{(at_point <= 2).mean():10.1%}{np.nanmean(taken_up):10.1%}")
    rows = [
        measure_stroke(colorizer, path, np.random.default_rng([args.seed, place, 1]))
        for place, path in enumerate(files)
    ]
    outside, off = np.array([row[0] for row in rows]), np.concatenate([row[1] for row in rows])
    print(
        f"a stroke: outside {outside.mean():.2%} (worst {outside.min():.1%}); error along it: mean {off.mean():.2f}, "
        f"within 2 {(off <= 2).mean():.1%}, within 5 {(off <= 5).mean():.1%} of the pixels"
    )
    print_time(colorizer, args.runs)


def some(source: Path, count: int) -> list[Path]:
    """The file itself, or evenly spaced images of a folder."""
    if source.is_file():
        return [source]
    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
    return files[:: max(1, len(files) // count)][:count]


def measure(colorizer: Colorizer, path: Path, generator: np.random.Generator, found: dict) -> None:
    """Append the results of one photo: outside, at the worst of its points, taken up."""
    image = read_image(path)
    lightness, before = lab(colorizer.colorize(image).image.pixels)
    for way, hints in draw_hints(lightness.shape, generator).items():
        after = lab(colorizer.colorize(image, ColorizeOptions(hints)).image.pixels)[1]
        change = np.linalg.norm(after - before, axis=-1)
        region, near = regions(lightness, hints)
        points = [point_of(hint, lightness.shape) for hint in hints]
        errors = [
            float(np.linalg.norm(after[point] - possible(hint, float(lightness[point]))))
            for hint, point in zip(hints, points, strict=True)
        ]
        at_points = min(change[point] for point in points)
        # a smaller change is invisible
        taken_up = float((change[near] >= at_points / 2).mean()) if at_points > 4 else np.nan
        found[way].append((float((change[~region] < 1).mean()), max(errors), taken_up))


def measure_stroke(
    colorizer: Colorizer, path: Path, generator: np.random.Generator
) -> tuple[float, list[float]]:
    """For one photo: share of the pixels out of reach that stay, and errors of some pixels of the stroke."""
    image = read_image(path)
    lightness, before = lab(colorizer.colorize(image).image.pixels)
    height, width = lightness.shape
    mask = Pillow.new("1", (width, height))
    corners = [tuple(each) for each in generator.random((generator.integers(2, 5), 2)) * (width, height)]
    ImageDraw.Draw(mask).line(corners, 1, max(1, round(STROKE_WIDTH * min(height, width))))
    rows, columns = np.nonzero(np.asarray(mask))
    (hint,) = draw_hints(lightness.shape, generator)["one hint"]
    chroma = np.tile((hint.a, hint.b), (len(rows), 1))
    strokes = Strokes((columns + 0.5) / width, (rows + 0.5) / height, chroma)
    after = lab(colorizer.colorize(image, ColorizeOptions(strokes=strokes)).image.pixels)[1]
    away = distance_transform_edt(~np.asarray(mask)) / min(height, width) > REGION_RADIUS
    change = np.linalg.norm(after - before, axis=-1)
    taken = generator.integers(0, len(rows), STROKE_SAMPLES)
    off = [
        float(np.linalg.norm(after[place] - possible(hint, float(lightness[place]))))
        for place in zip(rows[taken], columns[taken], strict=True)
    ]
    return float((change[away] < 1).mean()) if away.any() else 1.0, off


def draw_hints(shape: tuple[int, ...], generator: np.random.Generator) -> dict[str, list[Hint]]:
    """Random points and colours; all points are inside the image."""
    height, width = shape

    def colour() -> tuple[float, float]:
        _, chroma = rgb_to_lab(torch.tensor(generator.random((1, 3, 1, 1)), dtype=torch.float32))
        a, b = chroma.flatten().tolist()
        return a, b

    three = [Hint(*generator.random(2).tolist(), *colour()) for _ in range(3)]
    x, y = generator.uniform(0.1, 0.9, 2)
    angle, apart = generator.uniform(0, 2 * np.pi), APART * min(shape)
    other = (x + apart * np.cos(angle) / width, y + apart * np.sin(angle) / height)
    near = [Hint(float(x), float(y), *colour()), Hint(float(other[0]), float(other[1]), *colour())]
    return dict(zip(WAYS, (three[:1], three, near), strict=True))


def point_of(hint: Hint, shape: tuple[int, ...]) -> tuple[int, int]:
    """Row and column of a hint's pixel."""
    return min(int(hint.y * shape[0]), shape[0] - 1), min(int(hint.x * shape[1]), shape[1] - 1)


def regions(lightness: np.ndarray, hints: list[Hint]) -> tuple[np.ndarray, np.ndarray]:
    """The union of the hints' regions (H, W), and its part near the points."""
    scale = min(1.0, EDGE_PX / min(lightness.shape))
    small = tuple(max(1, round(side * scale)) for side in lightness.shape)
    tensor = torch.from_numpy(lightness)[None, None]
    coarse = torch.nn.functional.interpolate(tensor, small, mode="area")[0, 0].numpy()
    region, near = np.zeros(small, bool), np.zeros(small, bool)
    for hint in hints:
        joined, distance = region_of(coarse, hint)
        region |= joined
        near |= joined & (distance <= NEAR_RADIUS)
    rows, columns = (
        np.arange(full) * part // full for full, part in zip(lightness.shape, small, strict=True)
    )
    return region[np.ix_(rows, columns)], near[np.ix_(rows, columns)]


def region_of(lightness: np.ndarray, hint: Hint) -> tuple[np.ndarray, np.ndarray]:
    """One hint's region (h, w), and the distance from its point, relative to the short side."""
    height, width = lightness.shape
    rows, columns = np.ogrid[:height, :width]
    distance = np.hypot(rows + 0.5 - hint.y * height, columns + 0.5 - hint.x * width) / min(height, width)
    point = point_of(hint, lightness.shape)
    inside = distance <= REGION_RADIUS
    inside[point] = True
    place = np.arange(lightness.size).reshape(lightness.shape)
    pairs = []
    for first, second in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        joined = np.abs(lightness[first] - lightness[second]) <= EDGE_STEP
        joined &= inside[first] & inside[second]
        pairs.append(np.stack([place[first][joined], place[second][joined]]))
    start, end = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(len(start), bool), (start, end)), shape=(lightness.size, lightness.size))
    labels = connected_components(graph, directed=False)[1].reshape(lightness.shape)
    return inside & (labels == labels[point]), distance


def possible(hint: Hint, lightness: float) -> np.ndarray:
    """The requested colour, or the nearest of the same hue that sRGB has at this lightness."""
    shares = torch.linspace(0, 1, 1001)
    chroma = shares[:, None] * torch.tensor([hint.a, hint.b])
    rgb = lab_to_rgb(torch.full((1001, 1, 1, 1), lightness), chroma[:, :, None, None], clip=False)
    fits = ((rgb >= -1e-4) & (rgb <= 1 + 1e-4)).all(1).flatten()
    fits[0] = True
    return chroma[int(fits.nonzero().max())].numpy()


def lab(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """L* (H, W) and a*b* (H, W, 2)."""
    rgb = torch.from_numpy(pixels.astype(np.float32) / np.iinfo(pixels.dtype).max).permute(2, 0, 1)[None]
    lightness, chroma = rgb_to_lab(rgb)
    return lightness[0, 0].numpy(), chroma[0].permute(1, 2, 0).contiguous().numpy()


def print_time(colorizer: Colorizer, runs: int) -> None:
    """Print the time that hints add for 12 megapixels in memory: medians of CPU time, alternately."""
    generator = np.random.default_rng(0)
    shapes = zoom(generator.integers(20, 235, (30, 40, 1)).astype(np.float32), (100, 100, 1), order=1)
    pixels = (shapes + generator.normal(0, 4, shapes.shape)).clip(0, 255).astype(np.uint8)
    image = Image.of(pixels)
    points = generator.random((64, 2)).tolist()
    ways = {
        f"{count} hints": ColorizeOptions([Hint(x, y, 60, -20) for x, y in points[:count]])
        for count in (0, 1, 3, 8, 64)
    }
    ways["a stroke"] = ColorizeOptions(strokes=band(pixels.shape, 30))
    ways["all painted"] = ColorizeOptions(strokes=band(pixels.shape, pixels.shape[0]))
    times: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(runs + 2):
        for way, options in ways.items():
            started = time.process_time()
            colorizer.colorize(image, options)
            if turn > 1:
                times[way].append(time.process_time() - started)
    none = np.median(times["0 hints"])
    for way, seconds in times.items():
        print(
            f"12 megapixels, {way:12}{np.median(seconds):8.3f} s of CPU{np.median(seconds) / none:8.2f} times"
        )


def band(shape: tuple[int, ...], rows: int) -> Strokes:
    """Strokes that cover the first rows of an image, with as many samples as are taken from a file."""
    y, x = np.divmod(
        np.linspace(0, rows * shape[1] - 1, min(MOST_SAMPLES, rows * shape[1])).astype(int), shape[1]
    )
    return Strokes((x + 0.5) / shape[1], (y + 0.5) / shape[0], np.tile((20.0, -10.0), (len(x), 1)))


if __name__ == "__main__":
    main()
