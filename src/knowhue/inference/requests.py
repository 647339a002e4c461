"""An image and what is wanted of it, from its bytes to the bytes of the coloured one, in the stages of the pipeline."""

import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from knowhue.errors import ExtraError, ImageError, KnowhueError, RunError, WeightsError
from knowhue.images.image import Image, Pixels, recognise
from knowhue.images.reading import HEAD_BYTES, MAX_PIXELS, read_image, readable_formats, weigh_image
from knowhue.images.vips import shrink
from knowhue.images.writing import writable_suffix
from knowhue.inference.colorizer import Colorized, ColorizeOptions, Colorizer, encode_colorized
from knowhue.inference.hints import parse_hints, strokes_of
from knowhue.inference.judgement import Judgement
from knowhue.inference.networks import FloatArray, Predictions
from knowhue.inference.pipeline import Limits, Observe, Pipeline, Stages, TimedFuture, run

IMAGE_FIELD, REFERENCE_FIELD, STROKES_FIELD = "image", "reference", "strokes"
"""Names of the files in a form, by which messages call them, too: never by the name that came with one."""
_LOG = logging.getLogger(__name__)
_Item = TypeVar("_Item")


class NoImageError(ImageError):
    """What was sent is of no known kind."""


class ImageRequest(NamedTuple):
    """One image and what is wanted of it."""

    source: Path | bytes
    """an image file, or its bytes"""
    options: ColorizeOptions = ColorizeOptions()
    """of the colouring"""
    hints: Sequence[str] = ()
    """further points with a colour as the command line takes them, such as `30%,40%=orange`; they are read against the
    image's size once that is known"""
    colour: bool = True
    """whether to colour; otherwise it is only classified"""
    suffix: str | None = None
    """of the image to write, `.ora` for layers; None keeps its format"""
    max_px: int | None = None
    """longest side of the image to write; None is the whole"""
    reference: bytes | None = None
    """the bytes of a colour photo whose colours are taken, in place of that of the options"""
    strokes: bytes | None = None
    """the bytes of a transparent image as large as the photo, in place of those of the options"""
    fast: bool = False
    """whether the photo is seen at one size, see `Colorizer.load`"""


class ImageReply(NamedTuple):
    """What came of a request."""

    judgement: Judgement
    """class, colourfulness, warnings"""
    data: bytes = b""
    """the bytes of the coloured image; empty if none was asked for"""
    suffix: str = ""
    """of that file"""
    colorized: Colorized | None = None
    """the coloured image itself; None if it was only classified"""
    full: tuple[int, int, str] = (0, 0, "")
    """width, height and suffix of what would be written without `max_px` and `suffix`"""


class DecodedRequest(NamedTuple):
    """A request whose image was read."""

    request: ImageRequest
    """without the bytes; its options have all hints, reference and strokes, its suffix is what is written"""
    image: Image
    """whole"""
    network_input: FloatArray
    """L* (h, w) at the network's size"""


class Batcher(Pipeline[ImageRequest, ImageReply]):
    """One model's requests, several of them side by side."""

    def __init__(
        self,
        colorizer: Colorizer,
        limits: Limits = Limits(),
        max_pixels: int = MAX_PIXELS,
        observe: Observe = lambda stage, value: None,
        after_batch: Callable[[], object] = lambda: None,
    ) -> None:
        self.colorizer = colorizer
        fast = colorizer.at_one_size()

        def colorizer_of(request: ImageRequest) -> Colorizer:
            return fast if request.fast else colorizer

        stages = Stages(
            lambda request: _weigh(colorizer_of(request), request),
            lambda request: decode_request(colorizer_of(request), request, max_pixels),
            lambda batch: _predict(colorizer_of(batch[0].request), batch),
            lambda request, decoded, answer: paint_request(colorizer_of(request), decoded, answer),
            lambda decoded: (decoded.request.colour, decoded.request.fast, decoded.network_input.shape),
        )
        super().__init__(stages, limits, observe, after_batch)

    def submit(self, item: ImageRequest) -> TimedFuture[ImageReply]:
        """As of a pipeline; a failure that is none of the image's is logged."""
        future = super().submit(item)
        future.add_done_callback(_log_fault)
        return future


def _weigh(colorizer: Colorizer, request: ImageRequest) -> int:
    """Of all that a request holds: colours are predicted of the image that is coloured alone."""
    beside = filter(None, (request.reference, request.strokes))
    return colorizer.weigh(request.source, request.colour) + sum(
        weigh_image(each).held_bytes for each in beside
    )


def decode_request(
    colorizer: Colorizer, request: ImageRequest, max_pixels: int = MAX_PIXELS, path: str | None = None
) -> DecodedRequest:
    """Read a request's image, and make the network's input of it.

    Args:
        colorizer: the model.
        request: what is wanted.
        max_pixels: refused above.
        path: of one of many images, by which whoever reports it names it; None of what was sent.

    Raises:
        NoImageError: what was sent begins as no known kind of image.
        ImageError: it is damaged or too large.
        ConfigError: a hint cannot be read, the reference has no colours, the strokes do not fit, or the model cannot
            do what is asked.
    """
    source, options = request.source, request.options
    if path is None and isinstance(source, bytes):
        image = _read_upload(source, max_pixels, IMAGE_FIELD)
    else:
        image = read_image(source, max_pixels=max_pixels, name=None if path is None else "", file_name=path)
    if request.reference is not None:
        reference = _read_upload(request.reference, max_pixels, REFERENCE_FIELD)
        options = options._replace(reference=colorizer.reference(reference, f"`{REFERENCE_FIELD}`"))
    height, width = image.pixels.shape[:2]
    if request.strokes is not None:
        painted = _read_upload(request.strokes, max_pixels, STROKES_FIELD)
        options = options._replace(strokes=strokes_of(painted, f"`{STROKES_FIELD}`", width, height))
    options = options._replace(hints=(*options.hints, *parse_hints(request.hints, width, height)))
    if request.colour:
        colorizer.require_options(options)
    suffix = request.suffix or writable_suffix(image.origin.suffix)
    make_input = colorizer.network_input if request.colour else colorizer.class_input
    read = request._replace(
        source=b"", options=options, hints=(), suffix=suffix, reference=None, strokes=None
    )
    return DecodedRequest(read, image, make_input(image))


def _predict(colorizer: Colorizer, batch: Sequence[DecodedRequest]) -> list[Predictions]:
    """Of requests that are all coloured, or none."""
    predict = colorizer.predict if batch[0].request.colour else colorizer.predict_classes
    return predict([each.network_input for each in batch])


def _read_upload(data: bytes, max_pixels: int, name: str) -> Image:
    if recognise(data[:HEAD_BYTES]) is None:
        raise NoImageError(f"`{name}` is not an image that can be read ({', '.join(readable_formats())}).")
    try:
        return read_image(data, max_pixels=max_pixels, name=name)
    except ExtraError:  # whoever sent it cannot install the decoder
        raise NoImageError(
            f"`{name}` is of a kind that this server has no decoder for (HEIC). Send it as JPEG."
        ) from None


def paint_request(colorizer: Colorizer, decoded: DecodedRequest, answer: Predictions) -> ImageReply:
    """Paint and write an image; or, for a class alone, judge it.

    Raises:
        RunError: the format does not hold such an image.
    """
    request, whole, coarse = decoded
    if not request.colour:
        return ImageReply(colorizer.judge(whole, answer, request.options))
    assert request.suffix is not None
    image = whole if request.max_px is None else reduced(whole, request.max_px)
    colorized = colorizer.finish(image, coarse, answer, request.options)
    data, notes = encode_colorized(image, colorized.image, request.suffix)
    notes += colorizer.notes if request.fast else ()
    judgement = colorized.judgement._replace(warnings=(*colorized.judgement.warnings, *notes))
    height, width = whole.pixels.shape[:2]
    full = width, height, writable_suffix(whole.origin.suffix)
    return ImageReply(judgement, data, request.suffix, colorized, full)


def reduced(image: Image, max_px: int) -> Image:
    """An image of the same kind whose longest side has at most so many pixels.

    >>> reduced(Image.of(np.zeros((20, 40, 1), np.uint16)), 10).pixels.shape
    (5, 10, 1)
    """
    height, width = image.pixels.shape[:2]
    scale = max_px / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(height * scale)), max(1, round(width * scale))

    def resized(pixels: Pixels) -> Pixels:
        top = np.iinfo(pixels.dtype).max
        # For people to look at, not for a network: the blocks that take a tenth of the time are exact enough.
        return (shrink(pixels, *size, oversampling=1) * top).round().astype(pixels.dtype)

    alpha = None if image.alpha is None else resized(image.alpha[..., None])[..., 0].copy()
    return image._replace(pixels=resized(image.pixels), alpha=alpha)


class _ModelFault(Exception):
    """The model failed; its cause says how."""


@dataclass(eq=False, slots=True)
class _OneOfMany:
    """An image on its way, with what is wanted of it until it is read."""

    item: Any
    request: ImageRequest | None = None


def colour_many(
    colorizer: Colorizer,
    items: Iterable[_Item],
    limits: Limits,
    request_of: Callable[[_Item], ImageRequest],
    put: Callable[[_Item, ImageReply, dict[str, Any], Predictions], Any],
) -> Generator[tuple[_Item, str, dict[str, Any], Any]]:
    """Colour many images, items with `path` and `output`, as there is room for them.

    Args:
        colorizer: the model.
        items: images.
        limits: threads and memory.
        request_of: item to what is wanted of it; an image that is afar is fetched.
        put: writes the reply to an item away; to the line of the ledger it may add what the prediction says.

    Yields:
        An item as soon as it is done; why it failed, or nothing; its line, in plain values; and what `put` returned.

    Raises:
        Exception: of the disk, the store or the model, which every other image would meet, too.
    """

    def weigh(one: _OneOfMany) -> int:
        one.request = request_of(one.item)
        return colorizer.weigh(one.request.source)

    def decode(one: _OneOfMany) -> DecodedRequest:
        request, one.request = one.request, None  # whose bytes nobody needs any longer
        assert request is not None
        return decode_request(colorizer, request, path=one.item.path)

    def predict(batch: Sequence[DecodedRequest]) -> list[Predictions]:
        try:
            return _predict(colorizer, batch)
        except Exception as error:
            raise _ModelFault from error

    def paint(one: _OneOfMany, decoded: DecodedRequest, answer: Predictions) -> Any:
        try:
            reply = paint_request(colorizer, decoded, answer)
        except RunError as error:  # of the format: one of the disk or the store would end the whole job
            raise ImageError(str(error)) from None
        line = _line_of(one.item, decoded.image, reply)
        done = put(one.item, reply, line, answer)
        return line | {"model": colorizer.network.description.name}, done

    stages = Stages(weigh, decode, predict, paint, lambda decoded: decoded.network_input.shape)
    with closing(run_on_cores(colorizer, stages, map(_OneOfMany, items), limits)) as outcomes:
        for one, future in outcomes:
            if (error := future.exception()) is not None:
                yield one.item, _reason_of(error), {}, None
            else:
                line, done = future.result()
                yield one.item, "", line | {"seconds": round(future.seconds, 4)}, done


def _line_of(item: Any, image: Image, reply: ImageReply) -> dict[str, Any]:
    height, width = image.pixels.shape[:2]
    line = {"path": item.path, "output": item.output, "width": width, "height": height}
    return line | reply.judgement.as_record()


def run_on_cores(
    colorizer: Colorizer, stages: Stages, items: Iterable[_Item], limits: Limits
) -> Generator[tuple[_Item, TimedFuture[Any]]]:
    """As `pipeline.run`, where each thread of torch that predicts has one core: the others have images of their own.

    Where several cores share one prediction, each spins while it waits for the others: on two cores a batch of 8 took
    nine times as long of them as with one.
    """
    with ExitStack() as stack:
        if colorizer.network.runtime == "torch":
            import torch

            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(1)
        yield from stack.enter_context(closing(run(stages, items, limits)))


def _reason_of(error: BaseException) -> str:
    """Why one of many images failed, in a line; what every other image would meet, too, is raised."""
    if isinstance(error, _ModelFault):
        raise error.__cause__ or error
    if isinstance(error, RunError):
        raise error
    text = " ".join(str(error).split())
    return text if isinstance(error, KnowhueError) else f"{type(error).__name__}: {text}"


def _log_fault(future: Future[ImageReply]) -> None:
    error = None if future.cancelled() else future.exception()
    # of the user's own errors none: callers could fill the log with them
    if isinstance(error, WeightsError):
        _LOG.error("%s", error)
    elif error is not None and not isinstance(error, KnowhueError):
        _LOG.error("A request failed.", exc_info=error)
