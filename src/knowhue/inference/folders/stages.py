"""What is done to each image of a folder: read, predict; paint, encode and write."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from knowhue.errors import ImageError, RunError
from knowhue.images.image import Image
from knowhue.images.reading import read_image, weigh_image
from knowhue.images.writing import encode_with_notes
from knowhue.inference.colorizer import Colorized, ColorizeOptions, Colorizer
from knowhue.inference.folders.ledger import Stamp
from knowhue.inference.folders.listing import Item
from knowhue.inference.folders.pipeline import Stages
from knowhue.inference.networks.network import Answers, FloatArray
from knowhue.storage import replacing


class Seen(NamedTuple):
    """An image between reading and painting."""

    stamp: Stamp
    image: Image
    lightness: FloatArray
    seconds: float


class Made(NamedTuple):
    """An image that has been written, not yet in its place."""

    written: Path
    stamp: Stamp
    record: dict[str, Any]


class ImageStages:
    """One model's work on one folder.

    Args:
        colorizer: the model.
        options: for every image.
        staging: folder where images are written first.
    """

    def __init__(self, colorizer: Colorizer, options: ColorizeOptions, staging: Path) -> None:
        self._colorizer = colorizer
        self._wishes = options
        self._staging = staging
        self._numbers = count()

    def as_stages(self) -> Stages:
        """For `pipeline.flow` over items."""
        return Stages(lambda item: weigh_image(item.source), self.read, self.predict, self.write)

    def read(self, item: Item) -> Seen:
        """Decode, and look."""
        started = time.perf_counter()
        stamp = Stamp.of(item.source)  # before reading: what changes meanwhile is done again
        image = read_image(item.source, name=item.path)
        assert stamp is not None
        return Seen(stamp, image, self._colorizer.look(image), time.perf_counter() - started)

    def predict(self, seen: Sequence[Seen]) -> list[tuple[Answers, float]]:
        """Answers, each with its share of the seconds."""
        started = time.perf_counter()
        answers = self._colorizer.predict([each.lightness for each in seen])
        share = (time.perf_counter() - started) / len(seen)
        return [(answer, share) for answer in answers]

    def write(self, item: Item, seen: Seen, answer: tuple[Answers, float]) -> Made:
        """Paint, encode, and write beside its place."""
        started = time.perf_counter()
        made = self._colorizer.finish(seen.image, seen.lightness, answer[0], self._wishes)
        suffix = Path(item.output).suffix
        data, notes = _encode(made.image, suffix)
        written = self._staging / f"{next(self._numbers)}{suffix}"
        with replacing(written, "wb") as file:
            file.write(data)
        seconds = seen.seconds + answer[1] + time.perf_counter() - started
        return Made(written, seen.stamp, self._record(item, made, notes) | {"seconds": round(seconds, 4)})

    def _record(self, item: Item, made: Colorized, notes: list[str]) -> dict[str, Any]:
        height, width = made.image.pixels.shape[:2]
        said = made.judgement.as_record()
        said["warnings"] = [*said["warnings"], *notes]
        if made.uncertainty is not None:
            said["uncertainty"] = round(float(made.uncertainty.mean()), 3)
        named = {"path": item.path, "output": item.output, "width": width, "height": height}
        return named | said | {"model": self._colorizer.network.description.name}


def _encode(image: Image, suffix: str) -> tuple[bytes, list[str]]:
    try:
        return encode_with_notes(image, suffix)
    except RunError as error:  # of this image; one of the disk is every image's
        raise ImageError(str(error)) from None


@contextmanager
def _torch_alone() -> Iterator[None]:
    """Threads that begin in this context predict with one core each: the others have images of their own.

    Where several cores share one prediction, each spins while it waits for the others: on two cores a batch of 8 took
    nine times as long of them as with one.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


ALONE: dict[str, Callable[[], AbstractContextManager[None]]] = {"torch": _torch_alone}
"""How a network's runtime is kept to one core for each prediction, by its name."""
