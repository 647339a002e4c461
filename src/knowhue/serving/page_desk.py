"""What the page holds for its visitors, in memory alone: their photos, and how these look at the moment."""

import asyncio
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from knowhue.errors import KnowhueError
from knowhue.images.image import Image
from knowhue.serving.settings import MIB

IDLE_SECONDS = 30 * 60
"""After which a visitor who does nothing is forgotten."""
_SWEEP_SECONDS = 60
LATE_LOOKS = 8
MOST_SITTINGS = 1000
"""Beyond which those without photos are forgotten, then the most idle; a program can open sessions without end."""


class FullError(KnowhueError):
    """The page holds as many photos as it may."""


class Pin(NamedTuple):
    """A hint as the page shows it: fractions of width and height, and a colour such as `#c83232`."""

    x: float
    y: float
    colour: str


class Look(NamedTuple):
    """A small image for the browser."""

    data: bytes
    kind: str


@dataclass
class Photo:
    """One photo of a visitor.

    Attributes:
        key: that nobody can guess.
        name: of the file, for the visitor's eyes and the download.
        data: the file as it came.
        preview: the image, reduced to the page's size.
        size_px: width and height of the whole image.
        suffix: of the file that a download of it is.
        pins: hints, oldest first.
        looks: what stands for it in the browser, by what it shows: keys into the desk's looks, newest last.
    """

    key: str
    name: str
    data: bytes
    preview: Image
    size_px: tuple[int, int]
    suffix: str
    pins: list[Pin] = field(default_factory=list)
    looks: dict[str, list[str]] = field(default_factory=dict)

    def newest(self, what: str) -> str | None:
        """The key of what shows it now."""
        return self.looks[what][-1] if what in self.looks else None


@dataclass
class Sitting:
    """One visitor, one browser tab.

    Attributes:
        chosen: key of the photo that is shown large.
        strength: share of the predicted colours that is used, 0 to 1.
        saturation: what their chroma is multiplied by.
        is_unsure_shown: whether the overlay of uncertainty is wanted.
        touched: when they did something last, by the desk's clock.
        turn: held while their page is made, so that a later look never comes before an earlier one.
    """

    key: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    photos: dict[str, Photo] = field(default_factory=dict)
    chosen: str = ""
    strength: float = 1.0
    saturation: float = 1.0
    is_unsure_shown: bool = False
    touched: float = 0.0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def photo(self) -> Photo | None:
        """The chosen one."""
        return self.photos.get(self.chosen)

    @property
    def chroma_scale(self) -> float:
        """What `saturation` of the API has to be for the same colours: less strength is a blend towards gray."""
        return round(self.strength * self.saturation, 4)


class Desk:
    """All visitors. Every public method may be called from any thread.

    Args:
        max_held_mib: of photos and what they look like; beyond it the most idle visitors are forgotten.
        clock: seconds.
    """

    def __init__(self, max_held_mib: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = max_held_mib * MIB
        self._clock = clock
        self._sittings: dict[str, Sitting] = {}
        self._looks: dict[str, Look] = {}
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None

    @property
    def held_bytes(self) -> int:
        """Of all visitors together."""
        with self._lock:
            originals = sum(
                _size(photo) for each in self._sittings.values() for photo in each.photos.values()
            )
            return originals + sum(len(look.data) for look in self._looks.values())

    def sitting(self, session: str) -> Sitting:
        """The visitor of a session of gradio; a new one if it is not known, or was forgotten."""
        with self._lock:
            self.forget_idle()
            if session not in self._sittings and len(self._sittings) >= MOST_SITTINGS:
                self.forget(min(self._sittings, key=self._worth))
            found = self._sittings.setdefault(session, Sitting())
            found.touched = self._clock()
            self._wind()
            return found

    def by_key(self, key: str) -> Sitting | None:
        """The visitor with a key."""
        with self._lock:
            return next(
                (
                    each
                    for each in self._sittings.values()
                    if secrets.compare_digest(each.key.encode(), key.encode())
                ),
                None,
            )

    def add(self, sitting: Sitting, photo: Photo) -> None:
        """Hold a photo.

        Raises:
            FullError: this visitor alone has as many as fit.
        """
        with self._lock:
            others = sorted(
                (each.touched, session) for session, each in self._sittings.items() if each is not sitting
            )
            while self.held_bytes + _size(photo) > self._limit and others:
                self.forget(others.pop(0)[1])
            if self.held_bytes + _size(photo) > self._limit:
                raise FullError(
                    f"`{photo.name}` should fit beside the other photos, {self._limit / MIB:g} MiB in all. It does not: "
                    "remove some first."
                )
            sitting.photos[photo.key] = photo
            sitting.chosen = photo.key

    def show(self, photo: Photo, what: str, look: Look) -> str:
        """Take a small image in place of one before; returns its key.

        The last `LATE_LOOKS` stay, for a browser that still loads one while the next is being made.
        """
        with self._lock:
            key = secrets.token_urlsafe(16)
            kept = photo.looks.setdefault(what, [])
            kept.append(key)
            self._looks[key] = look
            while len(kept) > LATE_LOOKS:
                self._looks.pop(kept.pop(0), None)
            return key

    def look(self, key: str) -> Look | None:
        """The small image with a key."""
        return self._looks.get(key)

    def remove(self, sitting: Sitting, key: str) -> None:
        """Forget one photo."""
        with self._lock:
            photo = sitting.photos.pop(key, None)
            for look in () if photo is None else (key for kept in photo.looks.values() for key in kept):
                self._looks.pop(look, None)
            if sitting.chosen == key:
                sitting.chosen = next(reversed(sitting.photos), "")

    def forget(self, session: str) -> None:
        """Forget a visitor and all that was held for them."""
        with self._lock:
            sitting = self._sittings.pop(session, None)
            for key in () if sitting is None else tuple(sitting.photos):
                self.remove(sitting, key)  # type: ignore[arg-type]

    def forget_idle(self) -> None:
        """Forget visitors who did nothing for half an hour."""
        with self._lock:
            limit = self._clock() - IDLE_SECONDS
            for session in [name for name, each in self._sittings.items() if each.touched < limit]:
                self.forget(session)

    def close(self) -> None:
        """Forget everybody."""
        with self._lock:
            for session in tuple(self._sittings):
                self.forget(session)
            if self._timer is not None:
                self._timer.cancel()

    def _worth(self, session: str) -> tuple[bool, float]:
        """Least of whom is forgotten first."""
        sitting = self._sittings[session]
        return bool(sitting.photos), sitting.touched

    def _wind(self) -> None:
        """Look for idle visitors once a minute, as long as there are any."""
        if self._timer is None:
            self._timer = threading.Timer(_SWEEP_SECONDS, self._sweep)
            self._timer.daemon = True
            self._timer.start()

    def _sweep(self) -> None:
        with self._lock:
            self._timer = None
            self.forget_idle()
            if self._sittings:
                self._wind()


def _size(photo: Photo) -> int:
    return len(photo.data) + photo.preview.pixels.nbytes
