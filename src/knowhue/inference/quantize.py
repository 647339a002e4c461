"""From an .onnx file to one whose convolutions multiply 8-bit numbers, with what that costs measured on images.

Static quantisation: weights by output channel, activations by the mean over images of their extremes. Half the
time on a CPU comes from the convolutions; what is left in float was chosen by measurement. docs/colorize.md has what
8 bits cost.
"""

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch

from knowhue.color import rgb_to_lab
from knowhue.errors import ConfigError, ImageError
from knowhue.images.image import walk
from knowhue.images.reading import read_image
from knowhue.images.vips import shrink
from knowhue.inference.description import KEY
from knowhue.inference.export import require_packages
from knowhue.inference.networks import FloatArray, Network, Predictions
from knowhue.inference.onnx_network import INPUT, INT8_KEY, network_of, open_onnx
from knowhue.inference.pixels import working_size
from knowhue.storage import replacing
from knowhue.temporary import temporary_folder

CALIBRATED_ON = 128
MEASURED_ON = 256
KEPT_AT_THE_END = 2
"""Convolutions of the colour head, at the finest sizes, that stay float: they cost little and show most."""
FEWEST_EXAMPLES = 8
"""Images to calibrate on, and to measure on."""


class Example(NamedTuple):
    """A colour image at the network's size."""

    lightness: FloatArray
    """L* (h, w), 0 to 100"""
    chroma: FloatArray
    """a*b* (h, w, 2), CIELAB units"""
    label: str | None = None
    """the name of the folder that it lies in, or None"""


class Examples(NamedTuple):
    """Images of a folder to fit 8 bits to, and others to measure what these cost."""

    calibration: list[Example]
    measured: list[Example]
    left_out: int
    """beyond the most, or gray"""


def read_examples(folder: Path, size_px: int) -> Examples:
    """Every other image of a folder to calibrate on (up to 128), the others to measure on (up to 256).

    They should be like those to be coloured. In folders named as the model's classes they measure accuracy.

    Raises:
        ImageError: one cannot be read, or there are too few, or too few in colour.
    """
    found = sorted(file for file, skipped in walk(folder) if not skipped)
    if len(found) < 2 * FEWEST_EXAMPLES:
        raise ImageError(
            f"`images` should be a folder of at least {2 * FEWEST_EXAMPLES} colour images, better some hundreds. "
            f"Found {len(found)} in `{folder}`."
        )
    # every other image: both halves hold all classes, and none measures itself
    calibration = _read_half(found[::2], CALIBRATED_ON, size_px)
    measured = _read_half(found[1::2], MEASURED_ON, size_px)
    return Examples(calibration, measured, len(found) - len(calibration) - len(measured))


def _read_half(files: Sequence[Path], most: int, size_px: int) -> list[Example]:
    """Up to `most` of some files, evenly spread, those that are in colour."""
    # evenly spread, not the first: files are sorted, and folders are classes
    chosen = np.unique(np.linspace(0, len(files) - 1, min(most, len(files))).round().astype(int))
    examples = [_read_example(files[place], size_px) for place in chosen]
    kept = [each for each in examples if each is not None]
    if len(kept) < FEWEST_EXAMPLES:
        raise ImageError(
            f"`images` should hold at least {2 * FEWEST_EXAMPLES} images in colour. Found {len(kept)} in colour among "
            f"{len(examples)}."
        )
    return kept


def _read_example(file: Path, size_px: int) -> Example | None:
    """An image, or None if its file says that it is gray."""
    pixels = read_image(file).pixels
    if pixels.shape[2] != 3:
        return None
    small = shrink(pixels, *working_size(pixels.shape[0], pixels.shape[1], size_px))
    lightness, chroma = rgb_to_lab(torch.from_numpy(small).permute(2, 0, 1)[None])
    return Example(lightness[0, 0].numpy(), chroma[0].permute(1, 2, 0).numpy(), file.parent.name)


class QuantizationCost(NamedTuple):
    """What 8 bits cost, on images that were not calibrated on; None for a head that the model lacks."""

    chroma: float | None
    """mean absolute difference of a*b* to the float model's, CIELAB units"""
    ab_l1_before: float | None
    """mean absolute error of a*b* of the float model, CIELAB units"""
    ab_l1_after: float | None
    """the same in 8 bits"""
    agreement: float | None
    """share of images that are given the same class"""
    accuracy_before: float | None
    """share given the class that their folder names; None where folders name none"""
    accuracy_after: float | None
    """the same in 8 bits"""
    calibrated_on: int
    """images"""
    measured_on: int
    """images"""
    left_out: int = 0
    """images of the folder that were neither calibrated nor measured on: beyond the most, or gray"""


def quantize(source: Path, target: Path, examples: Examples) -> QuantizationCost:
    """Write an .onnx file in float32 that `knowhue export` made in 8 bits, and say in it and here what that costs.

    Raises:
        ExtraError: a package of the extra `onnx` is not installed.
        WeightsError: the source cannot be read.
        ConfigError: the source is not in float32.
        RunError: the file cannot be written.
    """
    require_packages()
    before = open_onnx(source)
    if before.description.precision != "float32":
        raise ConfigError(
            f"`source` should be in float32. Found `{source}` in {before.description.precision}. Export the run "
            "to ONNX first."
        )
    model = _quantized(source, [each.lightness for each in examples.calibration])
    del model.metadata_props[:]  # what was measured of the float model
    model_name, of, folder = before.description.name.partition(", of ")  # the folder is not told to everybody
    name = f"{model_name}, in 8 bits{of}{folder}"
    described = before.description.model_copy(update={"precision": "int8", "name": name})
    model.metadata_props.add(key=KEY, value=described.model_dump_json())
    after = network_of(model.SerializeToString(), target)
    cost = judge_cost(before, after, examples)
    model.metadata_props.add(key=INT8_KEY, value=json.dumps(cost._asdict()))
    with replacing(target, "wb") as file:
        file.write(model.SerializeToString())
    return cost


def judge_cost(before: Network, after: Network, examples: Examples) -> QuantizationCost:
    """Compare two networks of one description on the examples to measure on."""
    measured = examples.measured
    pairs = [[network.predict(each.lightness[None]) for network in (before, after)] for each in measured]
    chroma = agreement = None
    ab_l1 = accuracy = None, None

    def means(score: Callable[[Predictions, Example], Any]) -> tuple[float, float]:
        """Of a score over the examples, before and after."""
        scores = [
            [score(answer, each) for answer in pair] for pair, each in zip(pairs, measured, strict=True)
        ]
        first, second = np.mean(np.asarray(scores, np.float64), 0)
        return float(first), float(second)

    if "colour" in before.description.tasks:
        chroma = float(np.mean([np.abs(one.colours - other.colours).mean() for one, other in pairs]))
        ab_l1 = means(lambda answer, each: np.abs(answer.colours[0] - each.chroma).mean())
    if "class" in before.description.tasks:
        names = before.description.classes
        agreement = float(np.mean([_class(one) == _class(other) for one, other in pairs]))
        if all(each.label in names for each in measured):
            accuracy = means(lambda answer, each: names[_class(answer)] == each.label)
    counts = len(examples.calibration), len(measured), examples.left_out
    return QuantizationCost(chroma, *ab_l1, agreement, *accuracy, *counts)


def _class(answer: Predictions) -> int:
    assert answer.probabilities is not None
    return int(answer.probabilities[0].argmax())


def _quantized(source: Path, calibration: Sequence[FloatArray]) -> Any:
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    waiting = ({INPUT: image[None, None]} for image in calibration)
    with temporary_folder("The graph in 8 bits") as folder, ExitStack() as after:
        # the quantiser warns users of what only its developers can act on
        logging.getLogger().addFilter(_is_not_quantiser)
        after.callback(logging.getLogger().removeFilter, _is_not_quantiser)
        ready, done = (folder / name for name in ("ready.onnx", "done.onnx"))
        quant_pre_process(source, ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            done,
            SimpleNamespace(get_next=lambda: next(waiting, None)),  # pyright: ignore[reportArgumentType]
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            reduce_range=True,  # without it the sums saturate on CPUs without VNNI
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_kept(onnx.load(ready)),
            extra_options={"CalibMovingAverage": True},
        )
        return onnx.load(done)


def _kept(model: Any) -> list[str]:
    """The first convolution, which sees L* itself, and the last of the colour head."""
    nodes = [(node.op_type, node.name) for node in model.graph.node]
    kinds = [kind for kind, _ in nodes]
    # the encoder has no transposed convolution: the first begins the head
    head = kinds.index("ConvTranspose") if "ConvTranspose" in kinds else len(nodes)
    last = [name for kind, name in nodes[head:] if kind == "Conv"][-KEPT_AT_THE_END:]
    return [nodes[kinds.index("Conv")][1], *last]


def _is_not_quantiser(record: logging.LogRecord) -> bool:
    return "onnxruntime" not in record.pathname
