"""Images measured, some at a time: each part is kept by what it was made from, so that a killed command goes on."""

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
from knowhue.scoring.measures import Column, Seen, see
from knowhue.scoring.pairing import ALWAYS, JPEG_QUALITIES, MEAN, TRUTH, Pairs, Stored, System
from knowhue.scoring.protocols import Protocol, to_protocol
from knowhue.storage import read_arrays, write_arrays

VERSION = 3
"""Of the formulas: what was kept by another is not used."""


def versions(*packages: str) -> dict[str, str]:
    """Of those packages that are installed."""
    found: dict[str, str] = {}
    for name in packages:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


# pyvips alone is no decoder: libvips comes with its binary
DECODERS = versions("pillow", "pyvips", "pyvips-binary", "pillow-heif")
"""Others may give other pixels of the same file."""
TOGETHER = 64
"""Images a part."""
_PIXEL_BYTES = 200  # while it is compared, about
_BUDGET = ByteBudget(_PIXEL_BYTES << 24)
"""Of all threads together; a larger image is alone."""
_MOST_PROBLEMS = 10


KeptArrays = dict[str, NDArray[Any]]
_SHAPE = (len(chroma_bins()), measures.FARTHEST_AB + 2)


class Measured(NamedTuple):
    """Values by column, (N,), and how many pixels have each true colour and distance, see `measures.measure_image`."""

    columns: dict[str, Column]
    counts: NDArray[np.int64]


class Portion(NamedTuple):
    """Some images, and what is to be measured of them."""

    names: tuple[str, ...]
    truth: tuple[Stored, ...]
    colourings: Mapping[str, tuple[tuple[Stored, ...], ...]]
    """files of each image by system"""
    made: Mapping[str, tuple[float, ...]]
    """what else the rows that are made of the true images depend on, by row of `ALWAYS`"""

    @property
    def rows(self) -> tuple[str, ...]:
        return (*self.colourings, *self.made)

    def key(self, row: str, protocol: Protocol) -> str:
        """What names the values of a row: everything that they follow from."""
        files = [[file.digest for file in each] for each in self.colourings.get(row, ())]
        source = files or [row, *self.made[row]]
        return digest([VERSION, DECODERS, protocol.digest, [file.digest for file in self.truth], source])


def measure_rows(
    pairs: Pairs, protocol: Protocol, cache: Path, workers: int, report: Report = lambda _: None
) -> dict[str, Measured]:
    """Measure all systems and the rows that are always there.

    Raises:
        ImageError: images that cannot be read, or have another size than their true ones; each its own line.
        RunError: the cache cannot be written.
    """
    names = [each.name for each in pairs.systems]
    total, done = len(pairs.truth) * (len(names) + len(ALWAYS)), 0
    work = partial(_kept, protocol=protocol, cache=cache)

    def run(parts: Iterator[Portion]) -> dict[str, Measured]:
        nonlocal done
        columns: dict[str, list[dict[str, Column]]] = {}
        counts: dict[str, NDArray[np.int64]] = {}
        for part, kept in _in_order(pool, work, parts, workers):
            for row, arrays in kept.items():
                places, own = arrays.pop("_places"), arrays.pop("_counts")
                # added up at once: kept apart, those of 50,000 images would take gigabytes
                counts.setdefault(row, np.zeros(_SHAPE, np.int64)).ravel()[places] += own
                columns.setdefault(row, []).append(arrays)
            done += len(part.names) * len(part.rows)
            report({"stage": "score", "done": done, "total": total})
        joined = {
            row: {name: np.concatenate([each[name] for each in own]) for name in own[0]}
            for row, own in columns.items()
        }
        return {row: Measured(own, counts[row]) for row, own in joined.items()}

    # products of matrices in several threads add up in another order
    with threadpool_limits(1), ThreadPoolExecutor(workers) as pool:
        found = run(_parts(pairs, (), {TRUTH: ()}))
        mean = _mean_colour(found[TRUTH])
        made = {row: mean if row == MEAN else () for row in ALWAYS if row != TRUTH}
        found |= run(_parts(pairs, pairs.systems, made))
    return {row: found[row] for row in (*names, *ALWAYS)}


def portions(pairs: Pairs, measured: Mapping[str, Measured]) -> Iterator[Portion]:
    """All rows of some images after the others, as `measure_rows` took them."""
    mean = _mean_colour(measured[TRUTH])
    return _parts(pairs, pairs.systems, {row: mean if row == MEAN else () for row in ALWAYS})


def row_pixels(portion: Portion, row: str, protocol: Protocol) -> Iterator[tuple[Pixels, list[Pixels]]]:
    """The pixels of each true image and of what a row has in a colouring's place, one or several samples."""
    for number, file in enumerate(portion.truth):
        truth = open_pixels(file, protocol)
        if row in portion.colourings:
            yield truth, [open_pixels(each, protocol, truth) for each in portion.colourings[row][number]]
        else:
            yield truth, [_made(row, portion, see(truth)).pixels]


def _mean_colour(truth: Measured) -> tuple[float, ...]:
    return tuple(float(truth.columns[name].mean()) for name in ("a_mean", "b_mean"))


def _parts(
    pairs: Pairs, systems: Sequence[System], made: Mapping[str, tuple[float, ...]]
) -> Iterator[Portion]:
    names = iter(pairs.truth)
    while some := tuple(islice(names, TOGETHER)):
        colourings = {each.name: tuple(each.samples[name] for name in some) for each in systems}
        yield Portion(some, tuple(pairs.truth[name] for name in some), colourings, made)


Made = dict[str, KeptArrays]
"""Columns by row, and their counts as `_places` and `_counts`: most colours are in few images."""


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[Portion], Made], parts: Iterator[Portion], workers: int
) -> Iterator[tuple[Portion, Made]]:
    """Parts and what was made of them, in order, a few more begun than are done; raises what was wrong with images."""
    waiting: list[tuple[Portion, Future[Made]]] = []
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
    if problems:
        if len(problems) >= _MOST_PROBLEMS:
            problems[_MOST_PROBLEMS:] = ["and perhaps more: mend these first"]
        raise ImageError(*problems)


def _kept(part: Portion, protocol: Protocol, cache: Path) -> Made:
    """The rows of a part from the cache, or made and put there."""
    keys = {row: part.key(row, protocol) for row in part.rows}
    return cached_arrays(cache, keys, lambda rows: _measure(part, rows, protocol))


def cached_arrays(
    cache: Path, keys: Mapping[str, str], make: Callable[[list[str]], Mapping[str, KeptArrays]]
) -> dict[str, KeptArrays]:
    """Arrays by name, from where they are kept; those that are not there, or damaged, are made together and put there.

    `keys` are the hashes of all that the arrays follow from.
    """
    paths = {name: cache / key[:2] / f"{key}.npz" for name, key in keys.items()}
    found: dict[str, KeptArrays] = {}
    for name, path in paths.items():
        if path.exists():
            with suppress(DamagedError):  # it is made anew, and replaced
                found[name] = read_arrays(path, sealed=True)
    if missing := [name for name in paths if name not in found]:
        for name, arrays in make(missing).items():
            write_arrays(paths[name], arrays)
            found[name] = arrays
    return found


def _measure(part: Portion, rows: Sequence[str], protocol: Protocol) -> Made:
    """What is kept of some rows of a part; raises all that is wrong."""
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
            truth = see(to_protocol(image, protocol))
            for row in rows:
                try:
                    if row in part.colourings:
                        files = part.colourings[row][number]
                        values, found = _measure_samples(files, truth, (height, width), protocol)
                    else:
                        values, found = measures.measure_image(_made(row, part, truth), truth, protocol)
                except KnowhueError as error:
                    problems.append(
                        f"{row}, {name}: {error}" if row in part.colourings else f"{name}: {error}"
                    )
                else:
                    columns[row].append(values)
                    counts[row] += found
        finally:
            _BUDGET.release(weight)
    if problems:
        raise ImageError(*dict.fromkeys(problems))
    found = {}
    for row in rows:
        places = np.flatnonzero(counts[row])
        found[row] = {name: np.array([each[name] for each in columns[row]]) for name in columns[row][0]}
        found[row] |= {"_places": places, "_counts": counts[row].ravel()[places]}
    return found


def _made(row: str, part: Portion, truth: Seen) -> Seen:
    """What a row that is always there has in a colouring's place."""
    if row == TRUTH:
        return truth
    if row in JPEG_QUALITIES:
        return see(_as_jpeg(truth.pixels, JPEG_QUALITIES[row]))
    return see(measures.gray_of(truth, part.made[row] or (0.0, 0.0)))


def _as_jpeg(pixels: Pixels, quality: int) -> Pixels:
    file = BytesIO()
    Pillow.fromarray(to_8_bits(pixels)).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    found = np.asarray(Pillow.open(file))
    return found.astype(np.uint16) * 257 if pixels.dtype == np.uint16 else found


def _measure_samples(
    files: Sequence[Stored], truth: Seen, stored: tuple[int, ...], protocol: Protocol
) -> tuple[dict[str, float], NDArray[np.int64]]:
    """Columns of one image: means over its samples, the best by each metric, and how far apart the samples are."""
    seen = [see(open_pixels(file, protocol, truth.pixels, stored)) for file in files]
    found = [measures.measure_image(each, truth, protocol) for each in seen]
    rows, counts = [row for row, _ in found], np.sum([each for _, each in found], axis=0)
    return over_samples(rows, "diversity_ciede2000", measures.distance, seen), counts


def over_samples(
    rows: Sequence[Mapping[str, float]],
    diversity: str,
    between: Callable[[Any, Any], Any],
    seen: Sequence[Any],
) -> dict[str, float]:
    """Means over the samples of an image; of several also the best by each of `BEST_OF`, and how far they are apart.

    The last is the mean of `between` over pairs of what was `seen`, in the column `diversity`.
    """
    found = {name: float(np.mean([each[name] for each in rows])) for name in rows[0]}
    if len(rows) > 1:
        found[diversity] = float(np.mean([float(between(*two)) for two in combinations(seen, 2)]))
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

    Raises:
        ImageError: it is neither as large as its true image is `stored` nor as that is compared.
    """
    image, own = _opaque(file), None if like is None else like.shape[:2]
    size = image.pixels.shape[:2]
    if own is not None and stored is not None and size not in (stored, own):
        as_compared = f", or {own[1]} x {own[0]} as the protocol compares it" if own != stored else ""
        raise ImageError(
            f"it has {size[1]} x {size[0]} pixels; its true image has {stored[1]} x {stored[0]}{as_compared}"
        )
    return to_protocol(image, protocol, own)
