"""Requests to colour or classify one image, from its bytes to the output's bytes, in the stages of the pipeline."""

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
"""Form fields of uploaded files; messages use these names, never the file names that users sent."""
_LOG = logging.getLogger(__name__)
_Item = TypeVar("_Item")


class NoImageError(ImageError):
    """The uploaded bytes are no known kind of image."""


class ImageRequest(NamedTuple):
    """An image and its options."""

    source: Path | bytes
    options: ColorizeOptions = ColorizeOptions()
    hints: Sequence[str] = ()
    """further hints as the command line takes them, such as `30%,40%=orange`; parsed once the image's size is known"""
    colour: bool = True
    """whether to colour the image or only classify it"""
    suffix: str | None = None
    """suffix of the output, `.ora` for layers; None keeps the format"""
    max_px: int | None = None
    """longest side of the output in pixels; None keeps the size"""
    reference: bytes | None = None
    """bytes of a colour photo that replaces the reference of `options`"""
    strokes: bytes | None = None
    """bytes of a transparent image as large as the photo that replaces the strokes of `options`"""
    fast: bool = False
    """whether the model sees the photo at one size, see `Colorizer.load`"""


class ImageReply(NamedTuple):
    """The result of a request."""

    judgement: Judgement
    data: bytes = b""
    """the coloured image as a file; this and the rest are empty if the image was only classified"""
    suffix: str = ""
    colorized: Colorized | None = None
    full: tuple[int, int, str] = (0, 0, "")
    """width, height and suffix that the output would have without `max_px` and `suffix`"""


class DecodedRequest(NamedTuple):
    """A request after its image was read."""

    request: ImageRequest
    """the request without bytes; `options` has all hints, reference and strokes, `suffix` is set"""
    image: Image
    network_input: FloatArray
    """L* (h, w) at the network's size"""


class Batcher(Pipeline[ImageRequest, ImageReply]):
    """The pipeline of one model's requests."""

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
        """As `Pipeline.submit`; failures that are not the user's are logged."""
        future = super().submit(item)
        future.add_done_callback(_log_failure)
        return future


def _weigh(colorizer: Colorizer, request: ImageRequest) -> int:
    """Bytes of the image with its predictions, and of the reference and strokes without any."""
    others = sum(weigh_image(data).held_bytes for data in (request.reference, request.strokes) if data)
    return colorizer.weigh(request.source, request.colour) + others


def decode_request(
    colorizer: Colorizer, request: ImageRequest, max_pixels: int = MAX_PIXELS, path: str | None = None
) -> DecodedRequest:
    """Read a request's image, and compute the network's input from it.

    `path` is that of one of many images, with which the caller begins its message; None for an upload. An `ImageError`
    if an image is damaged or too large (a `NoImageError` if an upload is none); a `ConfigError` if hints, strokes or
    the reference do not fit, or the model does not support an option.
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
        strokes = _read_upload(request.strokes, max_pixels, STROKES_FIELD)
        options = options._replace(strokes=strokes_of(strokes, f"`{STROKES_FIELD}`", width, height))
    options = options._replace(hints=(*options.hints, *parse_hints(request.hints, width, height)))
    if request.colour:
        colorizer.require_options(options)
    suffix = request.suffix or writable_suffix(image.origin.suffix)
    make_input = colorizer.network_input if request.colour else colorizer.class_input
    request = request._replace(
        source=b"", options=options, hints=(), suffix=suffix, reference=None, strokes=None
    )
    return DecodedRequest(request, image, make_input(image))


def _predict(colorizer: Colorizer, batch: Sequence[DecodedRequest]) -> list[Predictions]:
    """Predict for requests with equal `colour`."""
    predict = colorizer.predict if batch[0].request.colour else colorizer.predict_classes
    return predict([decoded.network_input for decoded in batch])


def _read_upload(data: bytes, max_pixels: int, name: str) -> Image:
    if recognise(data[:HEAD_BYTES]) is None:
        raise NoImageError(f"`{name}` is not an image that can be read ({', '.join(readable_formats())}).")
    try:
        return read_image(data, max_pixels=max_pixels, name=name)
    except ExtraError:  # the user of a server cannot install the decoder
        raise NoImageError(
            f"`{name}` is HEIC, for which this server has no decoder. Send it as JPEG."
        ) from None


def paint_request(colorizer: Colorizer, decoded: DecodedRequest, answer: Predictions) -> ImageReply:
    """Paint and encode an image, or only judge it; a `RunError` if the format cannot hold such an image."""
    request, original, network_input = decoded
    if not request.colour:
        return ImageReply(colorizer.judge(original, answer, request.options))
    assert request.suffix is not None
    image = original if request.max_px is None else reduced(original, request.max_px)
    colorized = colorizer.finish(image, network_input, answer, request.options)
    data, notes = encode_colorized(image, colorized.image, request.suffix)
    notes += colorizer.notes if request.fast else ()
    judgement = colorized.judgement._replace(warnings=(*colorized.judgement.warnings, *notes))
    height, width = original.pixels.shape[:2]
    full = width, height, writable_suffix(original.origin.suffix)
    return ImageReply(judgement, data, request.suffix, colorized, full)


def reduced(image: Image, max_px: int) -> Image:
    """The image with its longest side reduced to at most `max_px` pixels.

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
        # without oversampling it takes a tenth of the time, and is exact enough for people, unlike for a network
        return (shrink(pixels, *size, oversampling=1) * top).round().astype(pixels.dtype)

    alpha = None if image.alpha is None else resized(image.alpha[..., None])[..., 0].copy()
    return image._replace(pixels=resized(image.pixels), alpha=alpha)


class _ModelFailure(Exception):
    """The model failed; `__cause__` is its error."""


@dataclass(eq=False, slots=True)
class _Pending:
    """An image in the pipeline, with its request until it is decoded."""

    item: Any
    request: ImageRequest | None = None


def colour_many(
    colorizer: Colorizer,
    items: Iterable[_Item],
    limits: Limits,
    request_of: Callable[[_Item], ImageRequest],
    put: Callable[[_Item, ImageReply, dict[str, Any], Predictions], Any],
) -> Generator[tuple[_Item, str, dict[str, Any], Any]]:
    """Colour many images, which have the attributes `path` and `output`, in a pipeline.

    `request_of` makes an item's request, and fetches a remote image. `put` stores the reply to an item, and can add
    values from the prediction to its line for the ledger. Yields each item as soon as it is done, with the reason of
    its failure or an empty text, its line in plain values, and what `put` returned. Failures of the disk, the store or
    the model are raised, because they would affect every other image, too.
    """

    def weigh(pending: _Pending) -> int:
        pending.request = request_of(pending.item)
        return colorizer.weigh(pending.request.source)

    def decode(pending: _Pending) -> DecodedRequest:
        request, pending.request = pending.request, None  # its bytes are not needed any more
        assert request is not None
        return decode_request(colorizer, request, path=pending.item.path)

    def predict(batch: Sequence[DecodedRequest]) -> list[Predictions]:
        try:
            return _predict(colorizer, batch)
        except Exception as error:
            raise _ModelFailure from error

    def paint(pending: _Pending, decoded: DecodedRequest, answer: Predictions) -> Any:
        try:
            reply = paint_request(colorizer, decoded, answer)
        except RunError as error:  # fails this image; a RunError would end the job
            raise ImageError(str(error)) from None
        item = pending.item
        height, width = decoded.image.pixels.shape[:2]
        line = {"path": item.path, "output": item.output, "width": width, "height": height}
        line |= reply.judgement.as_record()
        stored = put(item, reply, line, answer)
        return line | {"model": colorizer.network.description.name}, stored

    stages = Stages(weigh, decode, predict, paint, lambda decoded: decoded.network_input.shape)
    with closing(run_on_cores(colorizer, stages, map(_Pending, items), limits)) as outcomes:
        for pending, future in outcomes:
            if (error := future.exception()) is not None:
                yield pending.item, _reason_of(error), {}, None
            else:
                line, stored = future.result()
                yield pending.item, "", line | {"seconds": round(future.seconds, 4)}, stored


def run_on_cores(
    colorizer: Colorizer, stages: Stages, items: Iterable[_Item], limits: Limits
) -> Generator[tuple[_Item, TimedFuture[Any]]]:
    """`pipeline.run` with one core per predicting thread of torch, because the other cores work on other images.

    If several cores share a prediction, each spins while it waits for the others: on two cores a batch of 8 took nine
    times as much CPU time as on one.
    """
    with ExitStack() as stack:
        if colorizer.network.runtime == "torch":
            import torch

            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(1)
        yield from stack.enter_context(closing(run(stages, items, limits)))


def _reason_of(error: BaseException) -> str:
    """Why one image failed, in one line; raises errors that would affect every other image, too."""
    if isinstance(error, _ModelFailure):
        raise error.__cause__ or error
    if isinstance(error, RunError):
        raise error
    text = " ".join(str(error).split())
    return text if isinstance(error, KnowhueError) else f"{type(error).__name__}: {text}"


def _log_failure(future: Future[ImageReply]) -> None:
    error = None if future.cancelled() else future.exception()
    # users' errors are not logged, because callers could fill the log with them
    if isinstance(error, WeightsError):
        _LOG.error("%s", error)
    elif error is not None and not isinstance(error, KnowhueError):
        _LOG.error("A request failed.", exc_info=error)
