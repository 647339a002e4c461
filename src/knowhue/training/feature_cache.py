"""Cache of the frozen encoder's features of images and their mirror images, computed once and memory-mapped."""

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
_WAIT_S = 12 * 3600.0  # seconds to wait while another process fills the same cache
_STORED = {torch.bfloat16: np.dtype(np.int16), torch.float32: np.dtype(np.float32)}


@dataclass(frozen=True)
class FeatureCache:
    """Feature maps of prepared images as one (2, N, C, h, w) array per tap; [1] holds the mirror images.

    NumPy has no bfloat16, so its bits are stored as int16: cached features equal computed ones exactly.
    """

    arrays: list[NDArray[np.generic]]
    positions: NDArray[np.int64]
    """indices of the images in the prepared data, (N,), ascending"""
    device: torch.device

    def attach(self, batch: Batch, mirrored: NDArray[np.bool_] | None = None) -> Batch:
        """Return the batch with its images' features; those of the mirror image where `mirrored` (B,) is true."""
        positions = batch.position.cpu().numpy()
        if mirrored is None:
            mirrored = np.zeros(len(positions), dtype=np.bool_)
        return batch._replace(features=self.read(positions, mirrored))

    def read(self, positions: NDArray[np.int64], mirrored: NDArray[np.bool_]) -> Pyramid:
        """Read the maps of images, fine to coarse; those of the mirror image where `mirrored` is true."""
        rows = np.searchsorted(self.positions, positions)
        # without this check, a missing image would silently get another image's features
        assert np.array_equal(self.positions.take(rows, mode="clip"), positions)
        return tuple(_to_tensor(array[mirrored.astype(np.int64), rows], self.device) for array in self.arrays)


def cache_features(
    model: MultiTask, work: Workspace, positions: NDArray[np.int64], golden_step: str
) -> FeatureCache:
    """Open the cache of a model's taps for images (positions ascending), computing what is missing.

    The cache's folder in `features/` is named by a fingerprint of the encoder's weights, the images, precision and
    golden step (which depends on processor, threads and libraries), so a stale cache is never read. Each file has a
    JSON file with its checksum; a damaged file is computed again. The processes of a run each compute some rows of the
    same files, so the folder must be visible to all of them; other runs wait meanwhile.
    """
    engine = work.engine
    images = [work.prepared.fingerprint, hashlib.sha256(positions.tobytes()).hexdigest()]
    arithmetic = [engine.precision, engine.device.type, golden_step]
    folder = work.root / "features" / fingerprint([weights_digest(model.encoder), images, *arithmetic])
    try:
        with locked(folder, "features", wait_s=_WAIT_S, report=work.report):
            missing = engine.on_main(lambda: [tap for tap in model.taps if not _is_intact(folder, tap)])
            if missing:
                _fill(model, work, positions, folder, missing)
    except RunError as error:
        raise RunError(f"{error} Or train without the cache: --set training.cache_gib=0") from None
    arrays = [read_array(folder / f"tap-{tap}.npy") for tap in model.taps]
    return FeatureCache(arrays, positions, engine.device)


def _is_intact(folder: Path, tap: int) -> bool:
    """Whether a tap's file exists and matches its recorded checksum."""
    path = folder / f"tap-{tap}.npy"
    try:
        status = path.stat()
        recorded = read_json(path.with_suffix(".json"))["content"]
        return recorded == _digest(path, status.st_size, status.st_mtime_ns)
    except (OSError, RunError, KeyError):
        return False


@lru_cache(maxsize=64)
def _digest(path: Path, size_bytes: int, modified_ns: int) -> str:
    """Checksum of a file, computed once per process unless its size or time changes."""
    return file_digest(path)


def cache_bytes(model: MultiTask, work: Workspace, count: int) -> int:
    """Disk space in bytes for the features of `count` images."""
    pyramid = _compute(model.eval(), work, np.arange(1), False)
    # twice, because each image is cached mirrored too
    return 2 * count * sum(pyramid[tap].nbytes for tap in model.taps)


def _fill(
    model: MultiTask, work: Workspace, positions: NDArray[np.int64], folder: Path, taps: list[int]
) -> None:
    model.eval()
    engine, count = work.engine, len(positions)
    first = _compute(model, work, np.arange(1), False)
    paths = {tap: folder / f".tap-{tap}.npy" for tap in taps}  # only the holder of the lock uses them
    if engine.is_main:
        for tap, path in paths.items():
            shape = (2, count, *first[tap].shape[1:])
            path.unlink(missing_ok=True)  # left by a process that was killed
            allocate(path, shape, _STORED[first[tap].dtype]).flush()
    engine.wait()
    arrays = {tap: open_memmap(path, mode="r+") for tap, path in paths.items()}
    # each process writes its own rows, so that the files need no locks
    own_rows = np.arange(count)[engine.share.rank :: engine.share.world]
    for start in range(0, len(own_rows), _BATCH):
        rows = own_rows[start : start + _BATCH]
        for mirrored in (False, True):  # a mirror image's maps are not the mirrored maps
            maps = _compute(model, work, positions[rows], mirrored)
            for tap in taps:
                arrays[tap][int(mirrored), rows] = _to_numpy(maps[tap])
        done = min(start + _BATCH, len(own_rows))
        work.report({"stage": "features", "done": done, "total": len(own_rows)})
    for array in arrays.values():
        array.flush()
    engine.wait()
    if engine.is_main:
        for tap, path in paths.items():
            content = file_digest(path)
            put_in_place(path, folder / f"tap-{tap}.npy")
            write_json(folder / f"tap-{tap}.json", {"content": content})
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
