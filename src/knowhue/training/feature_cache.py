"""What the frozen encoder says of the images of a run, upright and mirrored, computed once and memory-mapped."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor

from knowhue.color import rgb_to_lab
from knowhue.config import fingerprint
from knowhue.data.loaders import to_rgb
from knowhue.errors import RunError
from knowhue.locks import locked
from knowhue.models.encoder import weights_digest
from knowhue.models.multitask import MultiTask
from knowhue.storage import allocate, file_digest, put_in_place, read_array, read_json, write_json
from knowhue.tensors import Batch, Pyramid
from knowhue.training.engine import Workspace

_BATCH = 64
_PATIENCE_S = 12 * 3600.0
"""Seconds to wait for another process that fills the same cache."""
_STORED = {torch.bfloat16: np.dtype(np.int16), torch.float32: np.dtype(np.float32)}


@dataclass(frozen=True)
class FeatureCache:
    """Feature maps of some prepared images, one (2, N, C, h, w) array a tap; [1] is mirrored.

    bfloat16 is kept bit for bit (as int16: numpy has no such type), so cached and fresh are the same.
    """

    arrays: list[NDArray[np.generic]]
    positions: NDArray[np.int64]
    """of the images, ascending"""
    device: torch.device

    def attach(self, batch: Batch, mirrored: NDArray[np.bool_] | None = None) -> Batch:
        """The batch with its images' maps; upright ones unless `mirrored` (B,) says otherwise."""
        positions = batch.position.cpu().numpy()
        upright = np.zeros(len(positions), dtype=np.bool_)
        return batch._replace(features=self.read(positions, upright if mirrored is None else mirrored))

    def read(self, positions: NDArray[np.int64], mirrored: NDArray[np.bool_]) -> Pyramid:
        """The maps of some of the images, fine to coarse."""
        rows = np.searchsorted(self.positions, positions)
        # another image's features would be read in silence
        assert np.array_equal(self.positions.take(rows, mode="clip"), positions)
        return tuple(_to_tensor(array[mirrored.astype(np.int64), rows], self.device) for array in self.arrays)


def cache_features(
    model: MultiTask, work: Workspace, positions: NDArray[np.int64], golden_step: str
) -> FeatureCache:
    """Open the cache of a model's taps of some images, ascending, computing what is not there.

    Its name in `features/` is a fingerprint of the encoder's weights, these images and the arithmetic, which the golden
    step tells of processor, threads and libraries: a stale one is never read. Each file appears whole, with a mark that
    holds its checksum; a damaged one is computed again. Processes of one run share the work by rows of the same files,
    so the folder must be visible to all of them; of several runs one fills and the others wait.

    Raises:
        RunError: the folder cannot be written.
    """
    engine = work.engine
    images = [work.prepared.fingerprint, hashlib.sha256(positions.tobytes()).hexdigest()]
    arithmetic = [engine.precision, engine.device.type, golden_step]
    home = work.root / "features" / fingerprint([weights_digest(model.encoder), images, *arithmetic])
    try:
        with locked(home, "features", wait_s=_PATIENCE_S, report=work.report):
            missing = engine.as_main_finds(lambda: [tap for tap in model.taps if not _is_whole(home, tap)])
            if missing:
                _fill(model, work, positions, home, missing)
    except RunError as error:
        raise RunError(f"{error} Or do without the cache: --set training.cache_gib=0") from None
    arrays = [read_array(home / f"tap-{tap}.npy") for tap in model.taps]
    return FeatureCache(arrays, positions, engine.device)


def _is_whole(home: Path, tap: int) -> bool:
    """Whether a tap's file is there as its mark says."""
    path = home / f"tap-{tap}.npy"
    try:
        status = path.stat()
        mark = read_json(path.with_suffix(".json"))
        return mark["content"] == _digest(path, status.st_size, status.st_mtime_ns)
    except (OSError, RunError, KeyError):
        return False


@lru_cache(maxsize=64)
def _digest(path: Path, size_bytes: int, modified_ns: int) -> str:
    """Checksum of a file as it is now, once a process: reading it all takes less than an epoch on it."""
    return file_digest(path)


def cache_bytes(model: MultiTask, work: Workspace, count: int) -> int:
    """Bytes on the disk that a model's taps of so many images need."""
    one = _compute(model.eval(), work, np.arange(1), False)
    # twice: each image upright and mirrored
    return 2 * count * sum(one[tap].nbytes for tap in model.taps)


def _fill(
    model: MultiTask, work: Workspace, positions: NDArray[np.int64], home: Path, taps: list[int]
) -> None:
    model.eval()
    engine, count = work.engine, len(positions)
    first = _compute(model, work, np.arange(1), False)
    paths = {tap: home / f".tap-{tap}.npy" for tap in taps}  # whoever fills holds the lock
    if engine.is_main:
        for tap, path in paths.items():
            shape = (2, count, *first[tap].shape[1:])
            path.unlink(missing_ok=True)  # of a process that was killed
            allocate(path, shape, _STORED[first[tap].dtype]).flush()
    engine.wait()
    arrays = {tap: open_memmap(path, mode="r+") for tap, path in paths.items()}
    # processes write rows of their own, so nothing in the files is locked
    mine = np.arange(count)[engine.share.rank :: engine.share.world]
    for start in range(0, len(mine), _BATCH):
        rows = mine[start : start + _BATCH]
        for mirrored in (False, True):  # the maps of a mirrored image are not mirrored maps
            maps = _compute(model, work, positions[rows], mirrored)
            for tap in taps:
                arrays[tap][int(mirrored), rows] = _to_numpy(maps[tap])
        work.report({"stage": "features", "done": min(start + _BATCH, len(mine)), "total": len(mine)})
    for array in arrays.values():
        array.flush()
    engine.wait()
    if engine.is_main:
        for tap, path in paths.items():
            content = file_digest(path)
            put_in_place(path, home / f"tap-{tap}.npy")
            write_json(home / f"tap-{tap}.json", {"content": content})
    engine.wait()


def _compute(model: MultiTask, work: Workspace, positions: NDArray[np.int64], mirrored: bool) -> Pyramid:
    images = work.prepared.rgb[positions]
    rgb = to_rgb(images[:, :, ::-1] if mirrored else images, work.engine.device)
    with torch.no_grad(), work.engine.autocast():
        return model.pyramid(rgb_to_lab(rgb)[0])


def _to_numpy(features: Tensor) -> NDArray[np.generic]:
    features = features.contiguous().cpu()
    return (features.view(torch.int16) if features.dtype == torch.bfloat16 else features).numpy()


def _to_tensor(values: NDArray[np.generic], device: torch.device) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    tensor = tensor.view(torch.bfloat16) if tensor.dtype == torch.int16 else tensor
    return tensor.to(device).contiguous(memory_format=torch.channels_last)
