"""What the frozen base says of every picture, upright and mirrored, computed once and memory-mapped."""

from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor

from knowhue.arrays import allocate
from knowhue.color import rgb_to_lab
from knowhue.config import fingerprint
from knowhue.data.loaders import to_rgb
from knowhue.data.prepare import Prepared
from knowhue.errors import RunError
from knowhue.models.encoder import weights_digest
from knowhue.models.multitask import MultiTask
from knowhue.runs import Report, read_json, write_json
from knowhue.tensors import Pyramid
from knowhue.training.engine import Engine

BATCH = 64
_STORED = {torch.bfloat16: np.dtype(np.int16), torch.float32: np.dtype(np.float32)}


class FeatureCache:
    """Feature maps of all prepared pictures, one (2, N, C, h, w) array a tap; [1] is mirrored.

    bfloat16 is kept bit for bit (as int16: numpy has no such type), so cached and fresh are the same.
    """

    def __init__(self, arrays: list[NDArray[np.generic]], device: torch.device) -> None:
        self._arrays = arrays
        self._device = device

    def read(self, positions: NDArray[np.int64], mirrored: NDArray[np.bool_]) -> Pyramid:
        """The maps of some pictures, fine to coarse."""
        return tuple(
            _to_tensor(array[mirrored.astype(np.int64), positions], self._device) for array in self._arrays
        )


def cache_features(
    model: MultiTask, prepared: Prepared, folder: Path, engine: Engine, report: Report = lambda _: None
) -> FeatureCache:
    """Open the cache of a model's taps below `folder`, computing what is not there.

    Its name is a fingerprint of the base's weights, the pictures and the arithmetic: a stale one is never
    read. Processes share the work by rows of the same files, so `folder` must be visible to all of them.

    Raises:
        RunError: the folder cannot be written.
    """
    key = fingerprint(
        [weights_digest(model.encoder), prepared.fingerprint, engine.precision, engine.device.type]
    )
    home = folder / key
    missing = [tap for tap in model.taps if not (home / f"tap-{tap}.json").exists()]
    if missing:
        try:
            _fill(model, prepared, home, missing, engine, report)
        except OSError as error:
            raise RunError(
                f"Cannot write `{home}`: {error.strerror}. Free some space, or --set training.cache_gib=0"
            ) from None
    arrays = [np.load(home / f"tap-{tap}.npy", mmap_mode="r") for tap in model.taps]
    shapes = [read_json(home / f"tap-{tap}.json") for tap in model.taps]
    assert all(list(a.shape) == s for a, s in zip(arrays, shapes, strict=True))
    return FeatureCache(arrays, engine.device)


def cache_bytes(model: MultiTask, prepared: Prepared, engine: Engine) -> int:
    """Disk that a model's taps of all pictures need."""
    one = _compute(model.eval(), prepared, np.arange(1), False, engine)
    return 2 * len(prepared.rgb) * sum(one[tap].nbytes for tap in model.taps)


def _fill(
    model: MultiTask, prepared: Prepared, home: Path, taps: list[int], engine: Engine, report: Report
) -> None:
    model.eval()
    count = len(prepared.rgb)
    first = _compute(model, prepared, np.arange(1), False, engine)
    if engine.is_main:
        home.mkdir(parents=True, exist_ok=True)
        for tap in taps:
            shape = (2, count, *first[tap].shape[1:])
            allocate(home / f"tap-{tap}.npy", shape, _STORED[first[tap].dtype]).flush()
    engine.wait()
    arrays = {tap: open_memmap(home / f"tap-{tap}.npy", mode="r+") for tap in taps}
    mine = np.arange(count)[engine.share.rank :: engine.share.world]
    for start in range(0, len(mine), BATCH):
        chosen = mine[start : start + BATCH]
        for mirrored in (False, True):
            maps = _compute(model, prepared, chosen, mirrored, engine)
            for tap in taps:
                arrays[tap][int(mirrored), chosen] = _to_numpy(maps[tap])
        report({"stage": "features", "done": min(start + BATCH, len(mine)), "total": len(mine)})
    for array in arrays.values():
        array.flush()
    engine.wait()
    if engine.is_main:
        for tap in taps:  # the mark of a finished file, written last
            write_json(home / f"tap-{tap}.json", list(arrays[tap].shape))
    engine.wait()


def _compute(
    model: MultiTask, prepared: Prepared, positions: NDArray[np.int64], mirrored: bool, engine: Engine
) -> Pyramid:
    pictures = prepared.rgb[positions]
    rgb = to_rgb(pictures[:, :, ::-1] if mirrored else pictures, engine.device)
    with torch.no_grad(), engine.autocast():
        return model.pyramid(rgb_to_lab(rgb)[0])


def _to_numpy(features: Tensor) -> NDArray[np.generic]:
    features = features.contiguous().cpu()
    return (features.view(torch.int16) if features.dtype == torch.bfloat16 else features).numpy()


def _to_tensor(values: NDArray[np.generic], device: torch.device) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    tensor = tensor.view(torch.bfloat16) if tensor.dtype == torch.int16 else tensor
    return tensor.to(device).contiguous(memory_format=torch.channels_last)
