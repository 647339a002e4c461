"""One request's work, before and after the network: bytes to a glimpse, and an answer to bytes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from knowhue.images.image import Image
from knowhue.images.reading import read_image, recognise
from knowhue.images.writing import encode_with_notes
from knowhue.inference.colorizer import Colorized, ColorizeOptions, Colorizer
from knowhue.inference.hints import Hint, parse_hint
from knowhue.inference.judgement import Judgement, judge
from knowhue.inference.naming import writable_suffix
from knowhue.inference.networks.network import Answers, FloatArray
from knowhue.inference.pixels import enlarge
from knowhue.serving.refusals import NoImageError

CALLED = "image"
"""What messages call an upload: never by the name that came with it."""


class Ask(NamedTuple):
    """What one request wants.

    Attributes:
        source: the bytes of an image file, or an image.
        colour: whether to colour; otherwise it is only classified.
        hints: points with a colour, as `Hint` or as written on the command line.
        saturation: what the predicted chroma is multiplied by.
        unknown_below: probability below which the class is `unknown`; None leaves it to the model.
        uncertainty: whether to say where the colours are unsure.
        suffix: of the image to write; None is what came.
        encode: whether to write it at all.
    """

    source: bytes | Image
    colour: bool = True
    hints: Sequence[str | Hint] = ()
    saturation: float = 1.0
    unknown_below: float | None = None
    uncertainty: bool = False
    suffix: str | None = None
    encode: bool = True


class Reply(NamedTuple):
    """What one request gets.

    Attributes:
        judgement: class, colourfulness, warnings.
        data: the bytes of the coloured image; empty if none was asked for.
        suffix: of that file.
        made: the coloured image itself; None if it was only classified.
    """

    judgement: Judgement
    data: bytes = b""
    suffix: str = ""
    made: Colorized | None = None


class Ready(NamedTuple):
    """A decoded request.

    Attributes:
        image: whole.
        seen: L* (h, w) at the network's size.
        options: hints read against the image's size.
        suffix: of what will be written.
    """

    image: Image
    seen: FloatArray
    options: ColorizeOptions
    suffix: str


def prepare(colorizer: Colorizer, ask: Ask, max_pixels: int) -> Ready:
    """Decode, and look.

    Raises:
        NoImageError: the bytes begin as no known kind of image.
        ImageError: it is damaged or too large.
        ConfigError: a hint cannot be read.
    """
    image = ask.source if isinstance(ask.source, Image) else _decoded(ask.source, max_pixels)
    height, width = image.pixels.shape[:2]
    hints = [parse_hint(each, width, height) if isinstance(each, str) else each for each in ask.hints]
    options = ColorizeOptions(tuple(hints), ask.saturation, ask.uncertainty, ask.unknown_below)
    suffix = ask.suffix or writable_suffix(image.origin.suffix)
    return Ready(image, colorizer.look(image), options, suffix)


def finish(colorizer: Colorizer, ask: Ask, ready: Ready, answer: Answers) -> Reply:
    """Paint and write; or, for a class alone, say it."""
    if not ask.colour:
        return Reply(_classified(colorizer, ready, answer, ask.unknown_below))
    made = colorizer.finish(ready.image, ready.seen, answer, ready.options)
    if not ask.encode:
        return Reply(made.judgement, suffix=ready.suffix, made=made)
    data, notes = encode_with_notes(made.image, ready.suffix)
    judgement = made.judgement._replace(warnings=(*made.judgement.warnings, *notes))
    return Reply(judgement, data, ready.suffix, made)


def uncertainty_map(made: Colorized) -> bytes:
    """A gray PNG of the image's size, 10 codes a CIELAB unit, up to 25.5 units."""
    assert made.uncertainty is not None
    height, width = made.image.pixels.shape[:2]
    codes = (enlarge(made.uncertainty, height, width) * 10).clip(0, 255).round().astype(np.uint8)
    return encode_with_notes(Image.of(codes[..., None]), ".png")[0]


def _decoded(data: bytes, max_pixels: int) -> Image:
    if recognise(data[:4096]) is None:
        raise NoImageError(
            f"`{CALLED}` should be an image (JPEG, PNG, TIFF, WebP, AVIF, GIF, BMP). Found something else."
        )
    return read_image(data, max_pixels=max_pixels, name=CALLED)


def _classified(
    colorizer: Colorizer, ready: Ready, answer: Answers, unknown_below: float | None
) -> Judgement:
    probabilities = None if answer.probabilities is None else answer.probabilities[0]
    novelty, notes = float(answer.novelty[0]), ready.image.origin.notes
    return judge(colorizer.network.description, probabilities, novelty, None, notes, unknown_below)
