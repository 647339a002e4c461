"""What happens when a visitor does something: the desk changes, the models are asked, the page shows it."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from knowhue.errors import KnowhueError
from knowhue.inference.networks import Description
from knowhue.inference.requests import Batcher
from knowhue.serving import page_parts as parts
from knowhue.serving.page_cards import stage
from knowhue.serving.page_desk import Desk, Pin, Sitting
from knowhue.serving.page_work import look, take_in, thumb
from knowhue.serving.settings import ServerSettings

MOST_PINS = 60
EXAMPLES = Path(__file__).parent / "examples"
_LOG = logging.getLogger(__name__)


class Shown(NamedTuple):
    """What the page shows of a visitor's photos, in HTML."""

    stage: Markup
    gallery: Markup
    points: Markup
    status: Markup


class Events:
    """Everything that a visitor may do; a visitor is known by gradio's session.

    Args:
        desk: where photos are held.
        batchers: the models that are asked, by name.
        settings: limits.
    """

    def __init__(self, desk: Desk, batchers: Mapping[str, Batcher], settings: ServerSettings) -> None:
        self.desk = desk
        self.batchers = batchers
        self.settings = settings
        self.models: dict[str, Description] = {
            name: each.colorizer.network.description for name, each in batchers.items()
        }

    async def take(self, session: str, files: Sequence[tuple[str, bytes]]) -> Shown:
        """Take photos in: names and bytes."""
        sitting, failures = self.desk.sitting(session), []
        before = list(sitting.photos)
        for name, data in files:
            try:
                await asyncio.to_thread(take_in, self.desk, sitting, name, data, self.settings.max_pixels)
            except KnowhueError as error:
                failures.append(str(error))
        added = [key for key in sitting.photos if key not in before]
        if added:
            sitting.chosen = added[0]
        done = f"{len(added)} photo{'s' * (len(added) != 1)} coloured." if added else ""
        return await self.show(sitting, done, failures, thumbs=True)

    async def example(self, session: str, name: str) -> Shown:
        """Take an example in."""
        path = next((each for each in example_files() if each.stem == name), None)
        return await self.take(session, [] if path is None else [(path.name, path.read_bytes())])

    async def choose(self, session: str, key: str) -> Shown:
        """Show another photo large."""
        sitting = self.desk.sitting(session)
        sitting.chosen = key if key in sitting.photos else sitting.chosen
        return await self.show(sitting)

    async def remove(self, session: str, key: str) -> Shown:
        """Forget a photo."""
        sitting = self.desk.sitting(session)
        self.desk.remove(sitting, key)
        return await self.show(sitting, "Photo removed.")

    async def tune(self, session: str, strength: float, saturation: float, is_unsure_shown: bool) -> Shown:
        """Set the sliders (percent) and the overlay, for all photos."""
        sitting = self.desk.sitting(session)
        sitting.strength = min(max(float(strength), 0.0), 100.0) / 100
        sitting.saturation = min(max(float(saturation), 0.0), 200.0) / 100
        sitting.is_unsure_shown = bool(is_unsure_shown)
        return await self.show(sitting)

    async def refresh(self, session: str) -> Markup:
        """Colour the gallery anew."""
        sitting = self.desk.sitting(session)
        async with sitting.turn:
            if len(sitting.photos) > 1:
                with contextlib.suppress(KnowhueError):  # what is too busy now shows the former colours
                    await self._thumbs(sitting)
            return parts.gallery(sitting, self.models)

    async def pin(self, session: str, x: float, y: float, colour: str) -> Shown:
        """Say what colour the chosen photo has at a point."""
        sitting = self.desk.sitting(session)
        if sitting.photo is None:
            return await self.show(sitting)
        if len(sitting.photo.pins) >= MOST_PINS:
            return await self.show(sitting, "", [f"A photo can have {MOST_PINS} points. Remove some first."])
        if not _is_colour(colour):
            return await self.show(sitting, "", ["That is no colour; it is written as #c83232 is."])
        sitting.photo.pins.append(Pin(min(max(float(x), 0.0), 1.0), min(max(float(y), 0.0), 1.0), colour))
        return await self.show(sitting, f"Point {len(sitting.photo.pins)} placed.", thumbs=True)

    async def unpin(self, session: str, index: int | None) -> Shown:
        """Remove one point of the chosen photo, or all."""
        sitting = self.desk.sitting(session)
        if sitting.photo is not None and index is None:
            sitting.photo.pins.clear()
        elif sitting.photo is not None and index is not None and 0 <= index < len(sitting.photo.pins):
            del sitting.photo.pins[index]
        return await self.show(sitting, "Removed.", thumbs=True)

    async def show(
        self, sitting: Sitting, done: str = "", failures: Sequence[str] = (), thumbs: bool = False
    ) -> Shown:
        """Ask every model for the chosen photo, and say what went wrong; one after the other for one visitor."""
        async with sitting.turn:
            return await self._show(sitting, done, failures, thumbs)

    async def _show(self, sitting: Sitting, done: str, failures: Sequence[str], thumbs: bool) -> Shown:
        views, problems = {}, list(failures)
        try:
            if sitting.photo is not None:
                views = await look(self.desk, sitting, sitting.photo, self.batchers)
            if thumbs and len(sitting.photos) > 1:
                await self._thumbs(sitting)
        except KnowhueError as error:
            problems.append(str(error))
        except Exception:
            _LOG.exception("The page failed on a photo.")
            problems.append("The server failed on this photo. Its log says why.")
        chosen = sitting.photo if views else None
        return Shown(
            stage(chosen, views, self.models, sitting.key),
            parts.gallery(sitting, self.models),
            parts.points(sitting.photo.pins if sitting.photo else ()),
            parts.says(" ".join(problems), True) if problems else parts.says(done),
        )

    async def _thumbs(self, sitting: Sitting) -> None:
        names = list(parts.colouring(self.models))
        if names:  # the last is what is compared with the first
            batcher = self.batchers[names[-1]]
            for photo in tuple(sitting.photos.values()):
                await thumb(self.desk, sitting, photo, batcher)


def example_files() -> list[Path]:
    """The images that a visitor may begin with."""
    return sorted(EXAMPLES.glob("*.jpg"), reverse=True)


def _is_colour(text: str) -> bool:
    return len(text) == 7 and text[0] == "#" and all(each in "0123456789abcdefABCDEF" for each in text[1:])
