"""One request's work, before and after the network: bytes to a glimpse, and an answer to bytes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from knowhue.inference.colorizer import Colorized, Colorizer, Wishes
from knowhue.inference.files.encoding import encode_with_notes
from knowhue.inference.files.formats import recognise
from knowhue.inference.files.media import read_picture
from knowhue.inference.files.picture import Picture
from knowhue.inference.hints import Hint, parse_hint
from knowhue.inference.judgement import Judgement, judge
from knowhue.inference.naming import writable_suffix
from knowhue.inference.networks.network import Answers, FloatArray
from knowhue.inference.pixels import enlarge
from knowhue.serving.refusals import NoPictureError

CALLED = "picture"
"""What messages call an upload: never by the name that came with it."""


class Ask(NamedTuple):
    """What one request wants.

    Attributes:
        source: the bytes of a picture file, or a picture.
        colour: whether to colour; otherwise it is only classified.
        hints: points with a colour, as `Hint` or as written on the command line.
        saturation: what the predicted chroma is multiplied by.
        unknown_below: probability below which the class is `unknown`; None leaves it to the model.
        uncertainty: whether to say where the colours are unsure.
        suffix: of the picture to write; None is what came.
        encode: whether to write it at all.
    """

    source: bytes | Picture
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
        data: the bytes of the coloured picture; empty if none was asked for.
        suffix: of that file.
        made: the coloured picture itself; None if it was only classified.
    """

    judgement: Judgement
    data: bytes = b""
    suffix: str = ""
    made: Colorized | None = None


class Ready(NamedTuple):
    """A decoded request.

    Attributes:
        picture: whole.
        seen: L* (h, w) at the network's size.
        wishes: hints read against the picture's size.
        suffix: of what will be written.
    """

    picture: Picture
    seen: FloatArray
    wishes: Wishes
    suffix: str


def prepare(colorizer: Colorizer, ask: Ask, max_pixels: int) -> Ready:
    """Decode, and look.

    Raises:
        NoPictureError: the bytes begin as no known kind of picture.
        PictureError: it is damaged or too large.
        ConfigError: a hint cannot be read.
    """
    picture = ask.source if isinstance(ask.source, Picture) else _decoded(ask.source, max_pixels)
    height, width = picture.pixels.shape[:2]
    hints = [parse_hint(each, width, height) if isinstance(each, str) else each for each in ask.hints]
    wishes = Wishes(tuple(hints), ask.saturation, ask.uncertainty, ask.unknown_below)
    suffix = ask.suffix or writable_suffix(picture.origin.suffix)
    return Ready(picture, colorizer.look(picture), wishes, suffix)


def finish(colorizer: Colorizer, ask: Ask, ready: Ready, answer: Answers) -> Reply:
    """Paint and write; or, for a class alone, say it."""
    if not ask.colour:
        return Reply(_classified(colorizer, ready, answer, ask.unknown_below))
    made = colorizer.finish(ready.picture, ready.seen, answer, ready.wishes)
    if not ask.encode:
        return Reply(made.judgement, suffix=ready.suffix, made=made)
    data, notes = encode_with_notes(made.picture, ready.suffix)
    judgement = made.judgement._replace(warnings=(*made.judgement.warnings, *notes))
    return Reply(judgement, data, ready.suffix, made)


def uncertainty_map(made: Colorized) -> bytes:
    """A gray PNG of the picture's size, 10 codes a CIELAB unit, up to 25.5 units."""
    assert made.uncertainty is not None
    height, width = made.picture.pixels.shape[:2]
    codes = (enlarge(made.uncertainty, height, width) * 10).clip(0, 255).round().astype(np.uint8)
    return encode_with_notes(Picture.of(codes[..., None]), ".png")[0]


def _decoded(data: bytes, max_pixels: int) -> Picture:
    if recognise(data[:4096]) is None:
        raise NoPictureError(
            f"`{CALLED}` should be a picture (JPEG, PNG, TIFF, WebP, AVIF, GIF, BMP). Found something else."
        )
    return read_picture(data, max_pixels=max_pixels, name=CALLED)


def _classified(
    colorizer: Colorizer, ready: Ready, answer: Answers, unknown_below: float | None
) -> Judgement:
    probabilities = None if answer.probabilities is None else answer.probabilities[0]
    novelty, notes = float(answer.novelty[0]), ready.picture.origin.notes
    return judge(colorizer.network.description, probabilities, novelty, None, notes, unknown_below)
