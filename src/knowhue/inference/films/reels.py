"""A film in the making: encoded pieces in a folder beside the output, each whole or absent, to go on from after a kill.

FOLDER/job.json         what is being made of what; another job's reels are of no use
FOLDER/000000.npz ...   the packets of so many frames, and all that the next reel depends on
"""

import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.errors import RunError
from knowhue.inference.films.steady import Past
from knowhue.storage import read_json, replacing, write_json


class Packet(NamedTuple):
    """Encoded bytes of a frame; times in units of the film's time base."""

    data: bytes
    pts: int
    duration: int
    is_key: bool


class Progress(NamedTuple):
    """What is known after the frames so far; sums are over frames.

    Attributes:
        frames: how many.
        pts: presentation time of the last.
        checksum: of the last frame as it was decoded, to find it again.
        damaged: packets that could not be decoded.
        past: what the steadier goes on from.
        cuts: scenes begun after the first.
        probabilities: of classes (classes,), sum; empty without a class head.
        novelty: sum.
        novel: frames unlike the training images.
        painted: of chroma, colourfulness, reduced share (3,), sum.
        complete: whether this was the film's end.
    """

    frames: int = 0
    pts: int = 0
    checksum: int = 0
    damaged: int = 0
    past: Past | None = None
    cuts: int = 0
    probabilities: NDArray[np.float64] = np.zeros(0)
    novelty: float = 0.0
    novel: int = 0
    painted: NDArray[np.float64] = np.zeros(3)
    complete: bool = False


class Reels:
    """The reels of one job.

    Attributes:
        folder: where they are.
        progress: after the last of them.
        count: how many there are.
        began_anew: whether another job's were thrown away.
    """

    def __init__(self, folder: Path, job: dict[str, Any]) -> None:
        """Take up what an earlier run of the same job has left.

        Raises:
            RunError: the folder cannot be written.
        """
        self.folder = folder
        self.began_anew = folder.exists() and _job_in(folder) != job
        if self.began_anew:
            shutil.rmtree(folder)
        write_json(folder / "job.json", job)
        self.count, self.progress = 0, Progress()
        while (found := _progress_in(self._path(self.count))) is not None:
            self.count, self.progress = self.count + 1, found

    def add(self, packets: list[Packet], progress: Progress) -> None:
        """Keep the next reel, whole or not at all.

        Raises:
            RunError: it cannot be written.
        """
        kept = progress._asdict() | {
            "past": progress.past is not None,
            "data": np.frombuffer(b"".join(packet.data for packet in packets), np.uint8),
            "sizes": np.array([len(packet.data) for packet in packets], np.int64),
            "times": np.array([(packet.pts, packet.duration) for packet in packets], np.int64).reshape(-1, 2),
            "keys": np.array([packet.is_key for packet in packets], bool),
        }
        if progress.past is not None:
            kept |= {"past_lightness": progress.past.lightness, "past_chroma": progress.past.chroma}
        with replacing(self._path(self.count), "wb") as file:
            np.savez(file, **kept)
        self.count, self.progress = self.count + 1, progress

    def packets(self) -> Iterator[Packet]:
        """All of them in the order of decoding, one reel in memory at a time."""
        for number in range(self.count):
            with np.load(self._path(number), allow_pickle=False) as file:
                data, sizes, times, keys = (file[name] for name in ("data", "sizes", "times", "keys"))
            ends = np.cumsum(sizes)
            for end, size, (pts, duration), key in zip(ends, sizes, times, keys, strict=True):
                yield Packet(data[end - size : end].tobytes(), int(pts), int(duration), bool(key))

    def times(self) -> NDArray[np.int64]:
        """Presentation times of all packets in the order of decoding."""
        parts = [np.zeros(0, np.int64)]
        for number in range(self.count):
            with np.load(self._path(number), allow_pickle=False) as file:
                parts.append(file["times"][:, 0])
        return np.concatenate(parts)

    def remove(self) -> None:
        """Leave no trace."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06}.npz"


def decoding_times(times: NDArray[np.int64]) -> NDArray[np.int64]:
    """When each packet must be decoded, so that all are in time, from presentation times in the order of decoding.

    They rise, none is later than its packet's presentation, and the first few may lie before the film begins.

    >>> decoding_times(np.array([0, 30, 10, 20])).tolist()
    [-10, 0, 10, 20]
    """
    ordered = np.sort(times)
    delay = int((np.arange(len(times)) - np.searchsorted(ordered, times)).max(initial=0))
    step = int(ordered[1] - ordered[0]) if len(ordered) > 1 else 1
    before = ordered[:1] - step * np.arange(delay, 0, -1)
    return np.concatenate([before, ordered[: len(times) - delay]])


def _job_in(folder: Path) -> Any:
    try:
        return read_json(folder / "job.json")
    except RunError:
        return None


def _progress_in(path: Path) -> Progress | None:
    """What a reel says of all frames up to its end; None if there is none, or it is damaged."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            past = Past(file["past_lightness"], file["past_chroma"]) if file["past"] else None
            counts = ("frames", "pts", "checksum", "damaged", "cuts", "novel")
            numbers = {name: file[name].item() for name in counts}
            return Progress(
                **numbers,
                past=past,
                probabilities=file["probabilities"],
                novelty=float(file["novelty"]),
                painted=file["painted"],
                complete=bool(file["complete"]),
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
