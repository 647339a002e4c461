"""Measurement of images in parts, each cached under a hash of its input, so that a killed command can be resumed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from itertools import combinations, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from threadpoolctl import threadpool_limits

from knowhue.color import chroma_bins
from knowhue.config import digest
from knowhue.errors import DamagedError, ImageError, KnowhueError
from knowhue.images.image import Image, Pixels, flattened, to_8_bits
from knowhue.images.reading import read_image
from knowhue.inference.pipeline import ByteBudget
from knowhue.runs import Report
from knowhue.scoring import measures
from knowhue.scoring.measures import Column, PreparedImage, prepare_image
from knowhue.scoring.pairing import ALWAYS, JPEG_QUALITIES, MEAN, TRUTH, Pairs, Stored
from knowhue.scoring.protocols import Protocol, to_protocol
from knowhue.storage import read_arrays, write_arrays

VERSION = 3  # version of the formulas, which invalidates cached results of other versions


def versions(*packages: str) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found: dict[str, str] = {}
    for name in packages:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


# pyvips-binary contains libvips, which decodes; pyvips alone does not
DECODERS = versions("pillow", "pyvips", "pyvips-binary", "pillow-heif")
"""Versions of the decoders, which can give different pixels for the same file."""
PART_IMAGES = 64  # number of images in a part
_PIXEL_BYTES = 200  # approximate memory per pixel while images are compared
_BUDGET = ByteBudget(_PIXEL_BYTES << 24)
"""Memory of all threads together; a larger image is measured alone."""
_MOST_PROBLEMS = 10


KeptArrays = dict[str, NDArray[Any]]
RowColour = tuple[float, ...]
_SHAPE = (len(chroma_bins()), measures.MAX_AB_DISTANCE + 2)


class Measured(NamedTuple):
    """Values by column, (N,), and numbers of pixels by true colour and distance, see `measures.measure_image`."""

    columns: dict[str, Column]
    counts: NDArray[np.int64]


class Portion(NamedTuple):
    """A part of the images, and the rows that are to be measured."""

    names: tuple[str, ...]
    truth: tuple[Stored, ...]
    colourings: Mapping[str, tuple[tuple[Stored, ...], ...]]
    """by system: the files of each image"""
    rows: tuple[str, ...]
    """the systems of `colourings`, and rows of `ALWAYS`"""
    mean: RowColour = ()
    """mean a*b* of all true images, the colour of the row `MEAN`"""

    def key(self, row: str, protocol: Protocol) -> str:
        """Cache key of a row: a hash of everything that determines its values."""
        files = [[file.digest for file in each] for each in self.colourings.get(row, ())]
        source = files or [row, *(self.mean if row == MEAN else ())]
        return digest([VERSION, DECODERS, protocol.digest, [file.digest for file in self.truth], source])


def measure_rows(
    pairs: Pairs, protocol: Protocol, cache: Path, workers: int, report: Report = lambda _: None
) -> dict[str, Measured]:
    """Measure all systems and the rows of `ALWAYS`; an `ImageError` if images are unreadable or differ in size."""
    names = tuple(each.name for each in pairs.systems)
    total, done = len(pairs.truth) * (len(names) + len(ALWAYS)), 0
    work = partial(_cached_rows, protocol=protocol, cache=cache)

    def run(parts: Iterator[Portion]) -> dict[str, Measured]:
        nonlocal done
        columns: dict[str, list[dict[str, Column]]] = {}
        counts: dict[str, NDArray[np.int64]] = {}
        for part, kept in _in_order(pool, work, parts, workers):
            for row, arrays in kept.items():
                places, own = arrays.pop("_places"), arrays.pop("_counts")
                # added immediately, because the counts of 50,000 images would take gigabytes
                counts.setdefault(row, np.zeros(_SHAPE, np.int64)).ravel()[places] += own
                columns.setdefault(row, []).append(arrays)
            done += len(part.names) * len(part.rows)
            report({"stage": "score", "done": done, "total": total})
        joined = {
            row: {name: np.concatenate([each[name] for each in own]) for name in own[0]}
            for row, own in columns.items()
        }
        return {row: Measured(own, counts[row]) for row, own in joined.items()}

    # one thread per matrix product, because the number of threads changes the order of sums
    with threadpool_limits(1), ThreadPoolExecutor(workers) as pool:
        found = run(_parts(pairs, (TRUTH,)))
        others = (row for row in (*names, *ALWAYS) if row != TRUTH)
        found |= run(_parts(pairs, tuple(others), _mean_colour(found[TRUTH])))
    return {row: found[row] for row in (*names, *ALWAYS)}


def portions(pairs: Pairs, measured: Mapping[str, Measured]) -> Iterator[Portion]:
    """Parts of the images with all rows, in the order of `measure_rows`."""
    return _parts(pairs, tuple(measured), _mean_colour(measured[TRUTH]))


def row_pixels(portion: Portion, row: str, protocol: Protocol) -> Iterator[tuple[Pixels, list[Pixels]]]:
    """For each true image, its pixels and those of a row's samples, one or several."""
    for number, file in enumerate(portion.truth):
        truth = open_pixels(file, protocol)
        if row in portion.colourings:
            yield truth, [open_pixels(each, protocol, truth) for each in portion.colourings[row][number]]
        else:
            yield truth, [_derived_image(row, portion, prepare_image(truth)).pixels]


def _mean_colour(truth: Measured) -> RowColour:
    return tuple(float(truth.columns[name].mean()) for name in ("a_mean", "b_mean"))


def _parts(pairs: Pairs, rows: tuple[str, ...], mean: RowColour = ()) -> Iterator[Portion]:
    systems, names = [each for each in pairs.systems if each.name in rows], iter(pairs.truth)
    while some := tuple(islice(names, PART_IMAGES)):
        colourings = {each.name: tuple(each.samples[name] for name in some) for each in systems}
        yield Portion(some, tuple(pairs.truth[name] for name in some), colourings, rows, mean)


RowArrays = dict[str, KeptArrays]
"""Columns by row. Counts are stored sparsely, as `_places` and `_counts`, because an image has few colours."""


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[Portion], RowArrays], parts: Iterator[Portion], workers: int
) -> Iterator[tuple[Portion, RowArrays]]:
    """Parts with their results, in order and with bounded look-ahead; raises the problems of images at the end."""
    waiting: list[tuple[Portion, Future[RowArrays]]] = []
    problems: list[str] = []
    try:
        while len(problems) < _MOST_PROBLEMS:
            waiting += [(part, pool.submit(work, part)) for part in islice(parts, 2 * workers - len(waiting))]
            if not waiting:
                break
            part, future = waiting.pop(0)
            try:
                made = future.result()
            except ImageError as error:
                problems += error.args
            else:
                yield part, made
    finally:
        for _, future in waiting:
            future.cancel()
    if len(problems) >= _MOST_PROBLEMS:
        problems[_MOST_PROBLEMS:] = ["and perhaps more: fix these first"]
    if problems:
        raise ImageError(*problems)


def _cached_rows(part: Portion, protocol: Protocol, cache: Path) -> RowArrays:
    keys = {row: part.key(row, protocol) for row in part.rows}
    return cached_arrays(cache, keys, lambda rows: _measure(part, rows, protocol))


def cached_arrays(
    cache: Path, keys: Mapping[str, str], make: Callable[[list[str]], Mapping[str, KeptArrays]]
) -> dict[str, KeptArrays]:
    """Arrays by name from the cache; missing or damaged ones are made in one call and cached.

    `keys` are hashes of all that determines the arrays.
    """
    paths = {name: cache / key[:2] / f"{key}.npz" for name, key in keys.items()}
    found: dict[str, KeptArrays] = {}
    for name, path in paths.items():
        if path.exists():
            with suppress(DamagedError):  # it is made again and replaced
                found[name] = read_arrays(path, sealed=True)
    if missing := [name for name in paths if name not in found]:
        for name, arrays in make(missing).items():
            write_arrays(paths[name], arrays)
            found[name] = arrays
    return found


def _measure(part: Portion, rows: Sequence[str], protocol: Protocol) -> RowArrays:
    """Measure some rows of a part; raises the problems of all its images together."""
    columns: dict[str, list[dict[str, float]]] = {row: [] for row in rows}
    counts = {row: np.zeros(_SHAPE, np.int64) for row in rows}
    problems: list[str] = []
    for number, (name, file) in enumerate(zip(part.names, part.truth, strict=True)):
        try:
            image = _opaque(file)
        except KnowhueError as error:
            problems.append(str(error))
            continue
        height, width = image.pixels.shape[:2]
        weight = _PIXEL_BYTES * ((protocol.size_px or 0) ** 2 or height * width)
        _BUDGET.acquire(weight)
        try:
            truth = prepare_image(to_protocol(image, protocol))
            for row in rows:
                try:
                    samples = _row_images(part, row, number, truth, (height, width), protocol)
                    found = [measures.measure_image(each, truth, protocol) for each in samples]
                except KnowhueError as error:
                    problems.append(
                        f"{row}, {name}: {error}" if row in part.colourings else f"{name}: {error}"
                    )
                    continue
                values = [each for each, _ in found]
                columns[row].append(over_samples(values, "diversity_ciede2000", measures.distance, samples))
                counts[row] += sum(each for _, each in found)
        finally:
            _BUDGET.release(weight)
    if problems:
        raise ImageError(*dict.fromkeys(problems))
    arrays = {}
    for row, own in columns.items():
        places = np.flatnonzero(counts[row])
        arrays[row] = {name: np.array([each[name] for each in own]) for name in own[0]}
        arrays[row] |= {"_places": places, "_counts": counts[row].ravel()[places]}
    return arrays


def _row_images(
    part: Portion, row: str, number: int, truth: PreparedImage, stored: tuple[int, ...], protocol: Protocol
) -> list[PreparedImage]:
    """The samples of a system for one image, or the image of a row of `ALWAYS`."""
    if row not in part.colourings:
        return [_derived_image(row, part, truth)]
    files = part.colourings[row][number]
    return [prepare_image(open_pixels(file, protocol, truth.pixels, stored)) for file in files]


def _derived_image(row: str, part: Portion, truth: PreparedImage) -> PreparedImage:
    """The image of a row of `ALWAYS` in place of a colouring."""
    if row == TRUTH:
        return truth
    if row in JPEG_QUALITIES:
        return prepare_image(_as_jpeg(truth.pixels, JPEG_QUALITIES[row]))
    return prepare_image(measures.in_one_colour(truth, part.mean if row == MEAN else (0.0, 0.0)))


def _as_jpeg(pixels: Pixels, quality: int) -> Pixels:
    file = BytesIO()
    Pillow.fromarray(to_8_bits(pixels)).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    found = np.asarray(Pillow.open(file))
    return found.astype(np.uint16) * 257 if pixels.dtype == np.uint16 else found


def over_samples(
    rows: Sequence[Mapping[str, float]], diversity: str, between: Callable[..., Any], samples: Sequence[Any]
) -> dict[str, float]:
    """Means over the samples of an image, and for several samples the best by each of `BEST_OF` and the diversity.

    The column named `diversity` is the mean of the distance `between` over all pairs of `samples`.
    """
    found = {name: float(np.mean([each[name] for each in rows])) for name in rows[0]}
    if len(rows) > 1:
        found[diversity] = float(np.mean([float(between(*two)) for two in combinations(samples, 2)]))
        for name in measures.BEST_OF:
            if name in rows[0]:
                best = min if measures.MEASURES[name].better == "lower" else max
                found[f"best_{name}"] = best(each[name] for each in rows)
    return found


def _opaque(file: Stored) -> Image:
    return Image.of(flattened(read_image(file.path)))


def open_pixels(
    file: Stored, protocol: Protocol, like: Pixels | None = None, stored: tuple[int, ...] | None = None
) -> Pixels:
    """The pixels (H, W, 3) of a file as they are compared.

    A colouring must have the size of its true image, `like`, or the height and width `stored` of that one's file, if
    given; an `ImageError` otherwise.
    """
    image, own = _opaque(file), None if like is None else like.shape[:2]
    size = image.pixels.shape[:2]
    if own is not None and stored is not None and size not in (stored, own):
        as_compared = f", or {own[1]} x {own[0]} as the protocol compares it" if own != stored else ""
        raise ImageError(
            f"it has {size[1]} x {size[0]} pixels; its true image has {stored[1]} x {stored[0]}{as_compared}"
        )
    return to_protocol(image, protocol, own)
