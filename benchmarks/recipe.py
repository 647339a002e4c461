"""Which training recipe gives vivid and accurate colours: the error of trained runs against their vividness.

For each run, on the validation images of its study: the scores at each saturation, on the photos themselves and on
copies degraded like old photos (`loaders.degrade`, applied to all of them). Heads of 313 colours are also evaluated at
several temperatures and logit adjustments. `--chroma` compares runs at equal vividness: each at the saturation that
makes the mean chroma of its colourings the given multiple of that of the true images, and degraded copies at the
saturation of their photos. Better: the share of photos that are nearer to the truth than the gray photo. Vivid: mean
error of the pixels with a true chroma above 20. Recognised: the share of colourings whose class is found by a linear
probe fitted to the true colours of the training images (`evaluation.recognition`).

    python benchmarks/recipe.py RUN [RUN ...] [--saturations .6,1 | --chroma .7] [--temperatures .38,1]
        [--adjustments 0,1] [--mirror]
"""

import argparse
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from knowhue.color import colourfulness, lab_to_rgb
from knowhue.config import Evaluation
from knowhue.data.loaders import degrade, draw_damage, grain, plain_batches, to_rgb
from knowhue.data.prepare import load_prepared
from knowhue.evaluation.evaluate import ab_l1, mean_chroma
from knowhue.evaluation.features import available_networks
from knowhue.evaluation.similarity import ciede2000
from knowhue.models.colour_classes import ColourClasses
from knowhue.models.multitask import MultiTask
from knowhue.runs import read_config
from knowhue.tensors import RGB, Batch, Chroma, Lightness
from knowhue.training.engine import Engine, Workspace
from knowhue.training.run import load_run
from knowhue.training.scores import recognition_probe

VIVID = 20.0
COLUMNS = ("a*b* error", "CIEDE2000", "chroma", "colourfulness", "better", "vivid", "recognised", "accuracy")
Recognise = Callable[[RGB, torch.Tensor], torch.Tensor]
"""A function of colourings and their labels: whether the class of each one is recognised."""


class Seen(NamedTuple):
    """A batch, the predicted chroma, and whether its class is predicted correctly."""

    batch: Batch
    chroma: Chroma
    correct: torch.Tensor


def main() -> None:
    """Print a table for each run."""
    args = read_arguments()
    for folder in args.runs:
        config, root = read_config(folder), folder.parent.parent
        prepared = load_prepared(root / "images", "validation")
        work = Workspace(root, Engine(config.training), prepared, lambda _: None)
        model = load_run(work, config, folder)
        model.saturation = 1.0  # because the saturations to evaluate are absolute
        recognise = recogniser(work)
        print(f"\n{folder}")
        print(f"{'':34}" + "".join(f"{each:>15}" for each in COLUMNS))
        is_classes = isinstance(model.colour, ColourClasses)
        ways = itertools.product(args.temperatures, args.adjustments)
        for temperature, adjustment in ways if is_classes else ((None, 0.0),):
            if isinstance(model.colour, ColourClasses) and temperature is not None:
                model.colour.temperature, model.colour.logit_adjustment = temperature, adjustment
            saturations = args.saturations
            for degraded in (False, True):
                seen = list(answers(work, model, degraded, args.mirror))
                if not degraded:
                    show("gray", seen, 0.0, recognise)
                    saturations = [ratio / chroma_ratio(seen) for ratio in args.chroma] or saturations
                for saturation in saturations:
                    name = f"saturation {saturation:.3g}" + (
                        f", T {temperature:g}, adjusted {adjustment:g}" if temperature else ""
                    )
                    show(name + (", old" if degraded else ""), seen, saturation, recognise)


def answers(work: Workspace, model: MultiTask, degraded: bool, mirror: bool) -> Iterator[Seen]:
    """The validation images and a model's predictions for them."""
    positions = work.prepared.positions("validation")
    damage = draw_damage(0, 0, len(positions), 1.0)
    with torch.no_grad():
        for number, batch in enumerate(plain_batches(work.prepared, positions, 50, work.engine.device)):
            rows = slice(50 * number, 50 * number + len(batch.position))
            lightness = batch.lightness
            if degraded:
                rgb = to_rgb(work.prepared.rgb[positions[rows]], work.engine.device)
                lightness = degrade(lightness, rgb, damage.of(rows), grain(0, 0, rows.start, lightness.shape))
            chroma, logits = predict(model, lightness, mirror)
            yield Seen(batch, chroma, logits.argmax(1) == batch.label)


def predict(model: MultiTask, lightness: Lightness, mirror: bool) -> tuple[Chroma, torch.Tensor]:
    """Chroma and logits, or their means over an image and its mirror image."""
    first = model(lightness)
    if not mirror:
        return first.chroma, first.logits
    second = model(lightness.flip(3))
    return (first.chroma + second.chroma.flip(3)) / 2, (first.logits + second.logits) / 2


def recogniser(work: Workspace) -> Recognise:
    """Recognition by a probe on EfficientNet-Lite0, whose weights are a package."""
    network = available_networks(Evaluation(), work.engine.device)["lite0"]
    probe = recognition_probe(work, "lite0", network)

    def recognise(rgb: RGB, label: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(probe.predict(network.compute(rgb).cpu().numpy())) == label.cpu()

    return recognise


def chroma_ratio(seen: Sequence[Seen]) -> float:
    """Mean chroma of the predictions, divided by that of the true images."""
    own, true = (
        torch.cat([mean_chroma(chroma(each)) for each in seen]).mean().item()
        for chroma in (lambda each: each.chroma, lambda each: each.batch.chroma)
    )
    return own / true


def show(name: str, seen: Sequence[Seen], saturation: float, recognise: Recognise) -> None:
    """Print the scores at one saturation."""
    columns: dict[str, list[float]] = {}
    vivid_error = vivid_pixels = 0.0
    for each in seen:
        true, chroma = each.batch.chroma, saturation * each.chroma
        lightness, own, gray = each.batch.lightness, ab_l1(chroma, true), ab_l1(0 * true, true)
        rgb, known = lab_to_rgb(lightness, chroma), each.batch.label.cpu() >= 0
        found = {
            "a*b* error": own,
            "CIEDE2000": ciede2000(lightness, chroma, true),
            "chroma": mean_chroma(chroma),
            "true chroma": mean_chroma(true),
            "colourfulness": colourfulness(255 * rgb),
            "true colourfulness": colourfulness(255 * lab_to_rgb(lightness, true)),
            "better": (own < gray - 1e-4).float(),
            "recognised": recognise(rgb, each.batch.label)[known].float(),
            "accuracy": each.correct.cpu()[known].float(),
        }
        for column, values in found.items():
            columns.setdefault(column, []).extend(values.tolist())
        mask = true.norm(dim=1) > VIVID
        vivid_error += (chroma - true).abs().mean(1)[mask].sum().item()
        vivid_pixels += mask.sum().item()
    mean = {column: float(np.mean(values)) for column, values in columns.items()}
    values = (
        f"{mean['a*b* error']:.2f}", f"{mean['CIEDE2000']:.2f}", f"{mean['chroma'] / mean['true chroma']:.2f}",
        f"{mean['colourfulness'] - mean['true colourfulness']:+.1f}", f"{100 * mean['better']:.0f} %",
        f"{vivid_error / vivid_pixels:.2f}", f"{100 * mean['recognised']:.1f} %", f"{100 * mean['accuracy']:.1f} %",
    )  # fmt: skip
    print(f"{name:34}" + "".join(f"{each:>15}" for each in values), flush=True)


def read_arguments() -> argparse.Namespace:
    """The options of the command line."""
    numbers = lambda text: [float(each) for each in text.split(",")]  # noqa: E731
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    vividness = parser.add_mutually_exclusive_group()
    vividness.add_argument(
        "--saturations",
        type=numbers,
        default=[0.6, 0.8, 1.0, 1.2, 1.4],
        help="saturations, separated by commas",
    )
    vividness.add_argument(
        "--chroma",
        type=numbers,
        default=[],
        help="mean chroma relative to the true one, instead of saturations",
    )
    parser.add_argument(
        "--temperatures",
        type=numbers,
        default=[0.38],
        help="temperatures of the 313 colours, separated by commas",
    )
    parser.add_argument(
        "--adjustments", type=numbers, default=[0.0], help="logit adjustments, separated by commas"
    )
    parser.add_argument(
        "--mirror", action="store_true", help="average the predictions for an image and its mirror image"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
