"""What a network sees of an image: L* at the network's size, by arrays or by compiled code as `pixels` paints.

Both resample sRGB codes by Lanczos as Pillow does, and round them to 16 bits, where training images have 8; of the
codes that compiled code makes, one in a hundred is the next one, for it adds up rows before columns.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from knowhue.color import FloatArray
from knowhue.images.image import Pixels
from knowhue.images.vips import OVERSAMPLING, block_size, shrink
from knowhue.inference.kernels import Compiled
from knowhue.inference.pixels import compiled_for, in_bands, lightness, tables_of, to_read

LONGEST = 4
"""Up to so many times as long as wide an image keeps its aspect at the network's size; longer ones are squeezed."""
SHORTEST_PX = 32
_LOBES = 3  # of Lanczos' window


def network_input(
    pixels: Pixels, size_px: int | tuple[int, int], oversampling: int = OVERSAMPLING
) -> FloatArray:
    """L* (h, w) of an image whose short side becomes `size_px`, or height and width do; small images are enlarged.

    It is resized in sRGB codes and converted afterwards, as the training images were. Those keep 8 bits, and lie within
    half an L* of this.
    Who needs edges and not a network's input passes a smaller `oversampling` to `shrink`.
    """
    is_side = isinstance(size_px, int)
    height, width = working_size(pixels.shape[0], pixels.shape[1], size_px) if is_side else size_px
    compiled = compiled_for(pixels.shape[0] * pixels.shape[1])
    if compiled is not None:
        return _by_compiled_code(compiled, to_read(pixels), height, width, oversampling)
    small = shrink(pixels, height, width, oversampling)
    # 16 bits, not floats: the rounding of 8 would show as steps in flat, dark regions
    return lightness((small.clip(0, 1) * 65535).round().astype(np.uint16))


def working_size(height: int, width: int, size_px: int) -> tuple[int, int]:
    """Height and width of a network's input.

    >>> working_size(3000, 4000, 96)
    (96, 128)
    >>> working_size(1, 5000, 96)
    (96, 384)
    """
    side = max(size_px, SHORTEST_PX)
    scale = side / min(height, width)
    longest = LONGEST * side  # a panorama of one row would otherwise fill the memory
    return min(round(height * scale), longest), min(round(width * scale), longest)


def _by_compiled_code(
    compiled: Compiled, pixels: Pixels, height: int, width: int, oversampling: int
) -> FloatArray:
    down, across = (
        block_size(old, new, oversampling) for old, new in zip(pixels.shape, (height, width), strict=False)
    )
    values = pixels if max(down, across) == 1 else _block_means(compiled, pixels, down, across)
    rows, row_weights = taps(pixels.shape[0] / down, len(values), height)
    columns, column_weights = taps(pixels.shape[1] / across, values.shape[1], width)
    top, deep = np.float32(np.iinfo(pixels.dtype).max), np.dtype(np.uint16)
    out = np.empty((height, width), np.float32)
    tables = tables_of(deep, pixels.shape[2])
    compiled.small_lightness(values, rows, row_weights, columns, column_weights, top, tables, out)
    return out


def _block_means(compiled: Compiled, pixels: Pixels, down: int, across: int) -> FloatArray:
    height, width, channels = pixels.shape
    means = np.empty((-(-height // down), -(-width // across), channels), np.float32)

    def work(rows: slice) -> None:
        compiled.block_means(pixels, rows.start, down, across, means[rows])

    in_bands(work, means.shape)
    return means


@lru_cache(64)
def taps(length: float, count: int, small: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Which values of a row make each of a smaller one, and by what shares, both (small, taps); as Pillow takes them.

    Args:
        length: of the row, in values; the last of them may stick out.
        count: of values.
        small: of the values to be made.

    >>> taps(2, 2, 2)[1].round(6).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    step = length / small
    stretch = max(step, 1.0)  # of the window, which is that of the coarser grid
    centres = (np.arange(small) + 0.5) * step
    first = (centres - _LOBES * stretch + 0.5).astype(int).clip(0)
    last = (centres + _LOBES * stretch + 0.5).astype(int).clip(max=count)
    places = first[:, None] + np.arange((last - first).max())
    beside = (places - centres[:, None] + 0.5) / stretch
    window = (places < last[:, None]) & (np.abs(beside) < _LOBES)
    weights = np.where(window, np.sinc(beside) * np.sinc(beside / _LOBES), 0)
    return places.clip(max=count - 1).astype(np.int32), weights / weights.sum(1, keepdims=True)
