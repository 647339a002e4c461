"""Quantise the convolutions of an .onnx file to 8 bits, and measure the cost on images.

Static quantisation: weights have a scale per output channel, and the range of activations is the mean over images of
their extremes. Which convolutions stay float was chosen by measurement. docs/colorize.md and docs/performance.md give
the cost and the gain.
"""

import json
import logging
from collections.abc import Sequence
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
from knowhue.inference.networks import FloatArray, Network
from knowhue.inference.onnx_network import INPUT, INT8_KEY, open_onnx, open_onnx_bytes
from knowhue.inference.pixels import working_size
from knowhue.storage import replacing
from knowhue.temporary import temporary_folder

CALIBRATED_ON = 128
MEASURED_ON = 256
KEPT_AT_THE_END = 2
"""Last convolutions of the colour head that stay float: they take little time, and their errors show most."""
FEWEST_EXAMPLES = 8
"""Least number of images to calibrate on, and to measure on."""


class Example(NamedTuple):
    """A colour image, resized to the network's size."""

    lightness: FloatArray
    """L* (h, w), 0 to 100"""
    chroma: FloatArray
    """a*b* (h, w, 2), CIELAB units"""
    label: str | None = None
    """name of its folder, or None"""


class Examples(NamedTuple):
    """Images of a folder to calibrate on, and others to measure on."""

    calibration: list[Example]
    measured: list[Example]
    left_out: int
    """number of images not used: too many, or gray"""


def read_examples(folder: Path, size_px: int) -> Examples:
    """Read every other image of a folder to calibrate on (up to 128), and the rest to measure on (up to 256).

    They should be similar to the photos to colour. If their folders are named like the model's classes, accuracy is
    measured, too. An `ImageError` if an image cannot be read, or too few are in colour.
    """
    found = sorted(file for file, skipped in walk(folder) if not skipped)
    if len(found) < 2 * FEWEST_EXAMPLES:
        raise ImageError(
            f"`{folder}` should be a folder of at least {2 * FEWEST_EXAMPLES} colour images, better some hundreds. "
            f"Found {len(found) if folder.is_dir() else 'no such folder'}."
        )
    # every other image, so that both halves contain all classes
    calibration = _read_half(found[::2], CALIBRATED_ON, size_px)
    measured = _read_half(found[1::2], MEASURED_ON, size_px)
    return Examples(calibration, measured, len(found) - len(calibration) - len(measured))


def _read_half(files: Sequence[Path], most: int, size_px: int) -> list[Example]:
    """Read up to `most` files, and keep the images that are in colour."""
    # evenly spread, not the first: files are sorted by folder, which can be the class
    chosen = np.unique(np.linspace(0, len(files) - 1, min(most, len(files))).round().astype(int))
    examples = [_read_example(files[index], size_px) for index in chosen]
    kept = [each for each in examples if each is not None]
    if len(kept) < FEWEST_EXAMPLES:
        raise ImageError(
            f"The images should include at least {FEWEST_EXAMPLES} in colour to calibrate on, and as many to measure "
            f"on. Found {len(kept)} in colour among {len(examples)}."
        )
    return kept


def _read_example(file: Path, size_px: int) -> Example | None:
    """An image at the network's size, or None if its file has one channel."""
    pixels = read_image(file).pixels
    if pixels.shape[2] != 3:
        return None
    small = shrink(pixels, *working_size(pixels.shape[0], pixels.shape[1], size_px))
    lightness, chroma = rgb_to_lab(torch.from_numpy(small).permute(2, 0, 1)[None])
    return Example(lightness[0, 0].numpy(), chroma[0].permute(1, 2, 0).numpy(), file.parent.name)


class QuantizationCost(NamedTuple):
    """The cost of 8 bits on images not used for calibration; None for a head that the model lacks.

    `before` is the float model. Accuracies are None if folders are not named like classes. `left_out` counts images of
    the folder that were not used: too many, or gray.
    """

    chroma: float | None
    """mean absolute difference of a*b* from the float model, CIELAB units"""
    ab_l1_before: float | None
    """mean absolute error of a*b*, CIELAB units"""
    ab_l1_after: float | None
    agreement: float | None
    """share of images that get the same class from both"""
    accuracy_before: float | None
    accuracy_after: float | None
    calibrated_on: int
    measured_on: int
    left_out: int = 0


def quantize(source: Path, target: Path, examples: Examples) -> QuantizationCost:
    """Quantise a float32 .onnx file that `knowhue export` made; store the measured cost in its metadata and return it.

    Raises like `open_onnx` and `export_onnx`; a `ConfigError` if the source is not in float32.
    """
    require_packages()
    before = open_onnx(source)
    if before.description.precision != "float32":
        raise ConfigError(
            f"`source` should be in float32. Found `{source}` in {before.description.precision}. Export the run "
            "to ONNX first."
        )
    model = _quantized(source, [each.lightness for each in examples.calibration])
    del model.metadata_props[:]  # measurements of the float model do not apply
    model_name, of, folder = before.description.name.partition(", of ")  # as in "multi, seed 0, of FOLDER"
    name = f"{model_name}, in 8 bits{of}{folder}"
    described = before.description.model_copy(update={"precision": "int8", "name": name})
    model.metadata_props.add(key=KEY, value=described.model_dump_json())
    after = open_onnx_bytes(model.SerializeToString(), target)
    cost = measure_cost(before, after, examples)
    model.metadata_props.add(key=INT8_KEY, value=json.dumps(cost._asdict()))
    with replacing(target, "wb") as file:
        file.write(model.SerializeToString())
    return cost


def measure_cost(before: Network, after: Network, examples: Examples) -> QuantizationCost:
    """Compare two networks of the same heads on `examples.measured`."""
    rows = []
    for example in examples.measured:
        one, other = (network.predict(example.lightness[None]) for network in (before, after))
        row = dict.fromkeys(QuantizationCost._fields[:6], np.nan)
        if one.chroma is not None:
            row["chroma"] = np.abs(one.colours - other.colours).mean()
            row["ab_l1_before"] = np.abs(one.colours[0] - example.chroma).mean()
            row["ab_l1_after"] = np.abs(other.colours[0] - example.chroma).mean()
        if one.probabilities is not None and other.probabilities is not None:
            best = one.probabilities.argmax(), other.probabilities.argmax()
            first, second = (before.description.classes[index] for index in best)
            row["agreement"] = first == second
            if example.label in before.description.classes:
                row["accuracy_before"] = first == example.label
                row["accuracy_after"] = second == example.label
        rows.append(row)
    means = {name: float(np.mean([row[name] for row in rows])) for name in QuantizationCost._fields[:6]}
    return QuantizationCost(
        **{name: None if np.isnan(mean) else mean for name, mean in means.items()},
        calibrated_on=len(examples.calibration),
        measured_on=len(rows),
        left_out=examples.left_out,
    )


def _quantized(source: Path, calibration: Sequence[FloatArray]) -> Any:
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    waiting = ({INPUT: image[None, None]} for image in calibration)
    with temporary_folder("The graph in 8 bits") as folder, ExitStack() as after:
        # the quantiser's warnings are of no use to users
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
            nodes_to_exclude=_float_nodes(onnx.load(ready)),
            extra_options={"CalibMovingAverage": True},
        )
        return onnx.load(done)


def _float_nodes(model: Any) -> list[str]:
    """Names of nodes to keep in float: the first convolution, which reads L*, and the last of the colour head."""
    nodes = [(node.op_type, node.name) for node in model.graph.node]
    kinds = [kind for kind, _ in nodes]
    # the colour head begins with the first transposed convolution; the encoder has none
    head = kinds.index("ConvTranspose") if "ConvTranspose" in kinds else len(nodes)
    last = [name for kind, name in nodes[head:] if kind == "Conv"][-KEPT_AT_THE_END:]
    return [nodes[kinds.index("Conv")][1], *last]


def _is_not_quantiser(record: logging.LogRecord) -> bool:
    return "onnxruntime" not in record.pathname
