"""What the page asks of the models: small images for the browser at once, the whole one when it is downloaded."""

import asyncio
import re
import secrets
from collections.abc import Mapping
from pathlib import PurePath
from typing import NamedTuple

import numpy as np

from knowhue.images.image import Image, Pixels
from knowhue.images.reading import read_image
from knowhue.images.vips import shrink
from knowhue.images.writing import encode_image
from knowhue.inference.colorizer import ColorizeOptions
from knowhue.inference.naming import writable_suffix
from knowhue.inference.networks import FloatArray
from knowhue.inference.pixels import paint
from knowhue.inference.requests import Batcher, ImageReply, ImageRequest
from knowhue.serving.page_desk import Desk, Look, Photo, Pin, Sitting

PREVIEW_PX = 1280
THUMB_PX = 240
_QUALITY = 88
UNSURE_AT = 40.0
"""Standard deviation of a*b*, CIELAB units, at which the overlay is as strong as it gets."""
_UNSURE_RGB = (255, 0, 170)
_UNSURE_ALPHA = 0.75
_LONGEST_NAME = 80


class View(NamedTuple):
    """What one model makes of the chosen photo.

    Attributes:
        reply: what it says.
        after: key of the coloured photo; None without a colour head.
        unsure: key of the overlay; None unless it is asked for.
        most_unsure: standard deviation of a*b* where it is largest, CIELAB units; None without an overlay.
    """

    reply: ImageReply
    after: str | None = None
    unsure: str | None = None
    most_unsure: float | None = None


def take_in(desk: Desk, sitting: Sitting, name: str, data: bytes, max_pixels: int) -> Photo:
    """Decode a photo once, keep it and a small one, and show it in gray.

    Raises:
        ImageError: it is no image, damaged, or too large.
        FullError: it does not fit beside the visitor's other photos.
    """
    shown = shown_name(name)
    whole = read_image(data, max_pixels=max_pixels, name=shown)
    preview = reduced(whole, PREVIEW_PX)
    height, width = whole.pixels.shape[:2]
    photo = Photo(
        secrets.token_urlsafe(16), shown, data, preview, (width, height), writable_suffix(whole.origin.suffix)
    )
    desk.add(sitting, photo)
    desk.show(photo, "before", _jpeg(Image(in_gray(preview.pixels), preview.alpha)))
    return photo


def reduced(image: Image, longest_px: int) -> Image:
    """An image of 8 bits without metadata, at most `longest_px` wide and high."""
    height, width = image.pixels.shape[:2]
    scale = min(1.0, longest_px / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    return Image(
        _resized(image.pixels, *size),
        None if image.alpha is None else _resized(image.alpha[..., None], *size)[..., 0].copy(),
    )


def in_gray(pixels: Pixels) -> Pixels:
    """What the models see of an image."""
    return paint(pixels, np.zeros((1, 1, 2), np.float32), np.zeros((1, 1), np.float32))[0]


def whole_ask(sitting: Sitting, photo: Photo) -> ImageRequest:
    """What a download asks: the same that `POST /v1/colorize` would be asked."""
    return ImageRequest(photo.data, _options(sitting), _written(photo.pins))


async def look(
    desk: Desk, sitting: Sitting, photo: Photo, batchers: Mapping[str, Batcher]
) -> dict[str, View]:
    """What every model makes of a photo at the page's size, all at once.

    Raises:
        Busy: too much is being done.
    """
    replies = await asyncio.gather(
        *(_ask(batcher, _small_ask(sitting, photo, batcher)) for batcher in batchers.values())
    )
    return {
        name: await asyncio.to_thread(_view, desk, photo, name, reply)
        for name, reply in zip(batchers, replies, strict=True)
    }


async def thumb(desk: Desk, sitting: Sitting, photo: Photo, batcher: Batcher) -> None:
    """Colour a photo for the gallery."""
    small = reduced(photo.preview, THUMB_PX)
    ask = ImageRequest(small, _options(sitting), _written(photo.pins), suffix=".jpg", encode=False)
    reply = await _ask(batcher, ask)
    if reply.colorized is not None:
        desk.show(photo, "thumb", _jpeg(reply.colorized.image))


def shown_name(name: str) -> str:
    """A file's name without its folders and without characters that mean something elsewhere.

    >>> shown_name("../../etc/<b>my photo.jpg")
    'b my photo.jpg'
    """
    plain = re.sub(r"[^\w.\- ]+", " ", PurePath(name.replace("\\", "/")).name)
    return " ".join(plain.split()).strip(". ")[-_LONGEST_NAME:] or "photo"


def download_name(photo: Photo, suffix: str) -> str:
    """The name of a coloured photo's file."""
    return f"{PurePath(photo.name).stem}-colour{suffix}"


def _small_ask(sitting: Sitting, photo: Photo, batcher: Batcher) -> ImageRequest:
    return ImageRequest(
        photo.preview,
        _options(sitting)._replace(uncertainty=sitting.is_unsure_shown),
        _written(photo.pins),
        colour="colour" in batcher.colorizer.network.description.tasks,
        suffix=".jpg",
        encode=False,
    )


def _options(sitting: Sitting) -> ColorizeOptions:
    return ColorizeOptions(saturation=sitting.chroma_scale)


async def _ask(batcher: Batcher, ask: ImageRequest) -> ImageReply:
    return await asyncio.wrap_future(batcher.submit(ask))


def _view(desk: Desk, photo: Photo, name: str, reply: ImageReply) -> View:
    if reply.colorized is None:
        return View(reply)
    after = desk.show(photo, f"after {name}", _jpeg(reply.colorized.image))
    view = View(reply._replace(colorized=None), after)
    if reply.colorized.uncertainty is None:
        return view
    unsure = desk.show(photo, f"unsure {name}", _overlay(reply.colorized.uncertainty))
    return view._replace(unsure=unsure, most_unsure=float(reply.colorized.uncertainty.max()))


def _overlay(uncertainty: FloatArray) -> Look:
    strength = (uncertainty / UNSURE_AT).clip(0, 1) ** 1.5 * _UNSURE_ALPHA  # the usual stays pale
    pixels = np.empty((*uncertainty.shape, 3), np.uint8)
    pixels[:] = _UNSURE_RGB
    image = Image(pixels, (255 * strength).round().astype(np.uint8))
    return Look(encode_image(image, ".png"), "image/png")


def _jpeg(image: Image) -> Look:
    return Look(encode_image(image, ".jpg", quality=_QUALITY), "image/jpeg")


def _resized(pixels: Pixels, height: int, width: int) -> Pixels:
    if pixels.dtype == np.uint8 and pixels.shape[:2] == (height, width):
        return pixels
    return (shrink(pixels, height, width).clip(0, 1) * 255).round().astype(np.uint8)


def _written(pins: list[Pin]) -> tuple[str, ...]:
    """Hints as the API takes them."""
    return tuple(f"{100 * pin.x:.2f}%,{100 * pin.y:.2f}%={pin.colour}" for pin in pins)
