"""Score files of a run (scores, one row per image, samples), and scores of baselines and of real images.

Results that depend only on the true images (their features, the probe's weights) are cached in a study's `features/`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from knowhue.color import lab_to_rgb
from knowhue.config import Evaluation, fingerprint
from knowhue.data.loaders import plain_batches, to_batch
from knowhue.data.prepare import Prepared
from knowhue.errors import DamagedError, few
from knowhue.evaluation.aggregation import ImageRow, class_metrics, column_mean
from knowhue.evaluation.calibration import DECIMALS, calibration_bins
from knowhue.evaluation.evaluate import Predict, Scored, confusion_matrix, evaluate
from knowhue.evaluation.features import (
    Features,
    ImageNetwork,
    available_networks,
    measure_distances,
    open_networks,
)
from knowhue.evaluation.recognition import Probe, fit_probe, fitted_images, recognised
from knowhue.metric_table import RUN_COLUMNS
from knowhue.models.multitask import MultiTask
from knowhue.models.palette import diversity
from knowhue.randomness import stream
from knowhue.runs import damaged_files, has_ended, read_config
from knowhue.storage import (
    cached,
    finite_or_none,
    read_arrays,
    read_json,
    write_arrays,
    write_csv,
    write_json,
)
from knowhue.tensors import RGB, Batch, Prediction
from knowhue.training.engine import Counting, Workspace
from knowhue.training.phases import predict

OUTCOME = frozenset({"scores.json", "per_image.csv", "samples.npz", "extremes.npz"})
"""Files of a run that scoring its weights again replaces."""
_MEASURED = ("recognition", "networks", "inception_weights", "perceptual", "lpips_weights")
"""Evaluation settings that decide which scores a finished run has."""
_Arrays = dict[str, NDArray[Any]]
SAMPLES_PER_CLASS = 2
SAMPLED_CLASSES = 40
"""Limit on classes with sample images: those of 1000 would be one large batch, and a page of 100 MB."""
EXTREMES = 4  # number of best colourings, and of worst ones, in `extremes.npz`
DRAWN = 4  # number of colourings of each sample image, if the colour head can sample
_ORDER = (
    "probability", "ab_l1", "ab_l1_vivid", "ciede2000", "psnr_rgb", "ssim_rgb", "lpips_alex", "chroma", "chroma_true",
    "mean_a", "mean_a_true", "mean_b", "mean_b_true", "colourfulness", "colourfulness_true", "colourfulness_absolute",
    "adversarial", "cross_entropy",
)  # fmt: skip
# `correct` is written next to the predicted class
_OTHERS = (column for column in RUN_COLUMNS.values() if column != "correct")
FROM_ROW = tuple(dict.fromkeys((*_ORDER, *_OTHERS)))
"""Numeric columns of `per_image.csv`, including all that metrics read."""


def inspect_run(folder: Path) -> tuple[bool, list[str]]:
    """Return whether a run has ended and needs no training, and its damaged or missing files.

    If only files of `OUTCOME` are damaged, scoring the weights again restores them.
    """
    try:
        damaged = [path.name for path in damaged_files(folder)]
        return has_ended(folder) and OUTCOME.issuperset(damaged), damaged
    except DamagedError:
        return False, ["status.json"]


def inspect_scores(folder: Path, split: str, settings: Evaluation | None) -> tuple[bool, list[str], str]:
    """Return the result of `inspect_run`, and how an intact run's scoring differs from `split` and `settings`.

    It can differ in a run that was trained before its study. `settings` are None for a head, whose scores do not
    depend on them. The difference is empty if there is none.
    """
    is_trained, damaged = inspect_run(folder)
    if damaged or not is_trained:
        return is_trained, damaged, ""
    if (scored_on := read_json(folder / "scores.json").get("split")) != split:
        return True, [], f"on the {scored_on} split, not the {split} split"
    scored_by = read_config(folder).evaluation
    differ = [name for name in _MEASURED if settings and getattr(scored_by, name) != getattr(settings, name)]
    return True, [], f"by other {few([f'`evaluation.{name}`' for name in differ])}" if differ else ""


def write_scores(
    folder: Path, prepared: Prepared, scored: Scored, set_scores: Mapping[str, Any] | None = None
) -> None:
    """Write `scores.json`, including `set_scores`, and `per_image.csv`."""
    rows, classes = scored.rows, prepared.classes
    per_class = class_metrics(rows, classes)
    scores = {
        "split": prepared.reporting_split,
        "images": len(rows),
        "metrics": finite_or_none(scored.metrics),
        "per_class": {name: finite_or_none(values) for name, values in per_class.items()},
        **(set_scores or {}),
    }
    if scored.perceptual:
        side = prepared.rgb.shape[1]
        scores["perceptual"] = {name: {**each, "size_px": side} for name, each in scored.perceptual.items()}
    if rows and "predicted" in rows[0]:
        scores["confusion"] = confusion_matrix(rows, len(classes))
        scores["reliability"] = [finite_or_none(each._asdict()) for each in calibration_bins(rows)]
    write_json(folder / "scores.json", scores)
    lines = [_csv_row(row, prepared) for row in rows]
    columns = list(dict.fromkeys(key for line in lines for key in line))
    write_csv(folder / "per_image.csv", [columns, *([line.get(key) for key in columns] for line in lines)])


def _csv_row(row: ImageRow, prepared: Prepared) -> dict[str, Any]:
    label = prepared.classes[row["label"]] if row["label"] >= 0 else ""
    cells = {"index": row["index"], "path": prepared.paths[row["index"]], "label": label}
    if "predicted" in row:
        cells |= {"predicted": prepared.classes[row["predicted"]], "correct": row["correct"]}
    return cells | {key: round(row[key], DECIMALS) for key in FROM_ROW if row.get(key) is not None}


def sample_positions(prepared: Prepared) -> NDArray[np.int64]:
    """Positions (N,) of the report's sample images: the first `SAMPLES_PER_CLASS` of each class in the reporting split.

    If there are more than `SAMPLED_CLASSES` classes, only every second, third and so on is used.
    """
    # the first ones, so that they cannot be cherry-picked
    positions = prepared.positions(prepared.reporting_split)
    labels, count = prepared.label[positions], len(prepared.classes)
    sampled = range(0, count, -(-count // SAMPLED_CLASSES))
    return np.concatenate([positions[labels == n][:SAMPLES_PER_CLASS] for n in sampled])


def write_samples(work: Workspace, folder: Path, model: MultiTask) -> None:
    """Write `samples.npz`: the model's predictions for the sample images, and several colourings if it can sample."""
    positions = sample_positions(work.prepared)
    batch = _batch_of(work, positions)
    prediction = predict(work.engine, model, batch)
    arrays: dict[str, Any] = {"index": positions}
    if prediction.chroma is not None:
        arrays["rgb"] = to_bytes(lab_to_rgb(batch.lightness, prediction.chroma))
        with torch.no_grad(), work.engine.autocast():
            samples = model.samples(batch.lightness, DRAWN)
        if samples is not None:
            drawn = [to_bytes(lab_to_rgb(batch.lightness, sample)) for sample in samples]
            arrays |= {"drawn": np.stack(drawn), "diversity": diversity(samples).cpu().numpy()}
    if prediction.logits is not None:
        probability, predicted = prediction.logits.softmax(1).max(1)
        arrays |= {"predicted": predicted.cpu().numpy(), "probability": probability.cpu().numpy()}
    write_arrays(folder / "samples.npz", arrays)


def write_extremes(work: Workspace, folder: Path, model: MultiTask, rows: Sequence[ImageRow]) -> None:
    """Write `extremes.npz`: the colourings with the smallest and the largest errors, best first, if the run colours."""
    scored = [row for row in rows if row.get("ab_l1") is not None and math.isfinite(row["ab_l1"])]
    # then by index, so that scoring again chooses the same images if errors are equal
    ordered = sorted(scored, key=lambda row: (row["ab_l1"], row["index"]))
    half = min(EXTREMES, len(ordered) // 2)
    chosen = ordered[:half] + ordered[len(ordered) - half :]
    if not chosen:
        return
    positions = np.array([row["index"] for row in chosen])
    batch = _batch_of(work, positions)
    chroma = predict(work.engine, model, batch).chroma
    assert chroma is not None  # rows with an error come from a colour head
    arrays = {"index": positions, "ab_l1": np.array([row["ab_l1"] for row in chosen])}
    arrays["truth"] = work.prepared.rgb[positions]
    write_arrays(folder / "extremes.npz", arrays | {"rgb": to_bytes(lab_to_rgb(batch.lightness, chroma))})


def write_truth(work: Workspace) -> None:
    """Write `images/samples.npz`: the sample images in gray and in their true colours."""
    positions = sample_positions(work.prepared)
    batch = _batch_of(work, positions)
    gray = to_bytes(lab_to_rgb(batch.lightness, torch.zeros_like(batch.chroma)))
    arrays = {"index": positions, "label": work.prepared.label[positions], "gray": gray}
    write_arrays(work.root / "images" / "samples.npz", arrays | {"truth": work.prepared.rgb[positions]})


def _batch_of(work: Workspace, positions: NDArray[np.int64]) -> Batch:
    prepared = work.prepared
    return to_batch(positions, prepared.rgb[positions], prepared.label[positions], work.engine.device)


def to_bytes(rgb: RGB) -> NDArray[np.uint8]:
    """Convert sRGB (B, 3, H, W), 0 to 1, to uint8 (B, H, W, 3); NaN, as in a diverged run, becomes black."""
    scaled = rgb.nan_to_num(0.0).clamp(0, 1) * 255
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def measure_set(
    work: Workspace, settings: Evaluation, features: Mapping[str, Features]
) -> dict[str, dict[str, Any]]:
    """Return `distribution` and, if `settings.recognition`, `recognition` of a set of colourings, for `scores.json`.

    The former holds distances to the true images of the reporting split. The latter is the accuracy of a linear probe
    on a network's features, fitted to the training images in their true colours. `features` are the colourings'
    features, from `evaluate`.
    """
    scores = {"distribution": _distances(work, settings, features)}
    if settings.recognition:
        scores["recognition"] = _recognition(work, settings, features)
    return {name: values for name, values in scores.items() if values}


def _distances(work: Workspace, settings: Evaluation, features: Mapping[str, Features]) -> dict[str, Any]:
    if not features:
        return {}
    networks = open_networks(settings, work.engine.device)
    return measure_distances(features, _true_features(work, settings), networks)


def _recognition(work: Workspace, settings: Evaluation, features: Mapping[str, Features]) -> dict[str, Any]:
    label = work.prepared.label[work.prepared.positions(work.prepared.reporting_split)]
    return {
        name: {
            "title": f"Recognised by a linear probe on {network.provenance['network']}",
            "better": "higher",
            **recognised(recognition_probe(work, name, network), features[name], label),
            **network.provenance,
        }
        for name, network in available_networks(settings, work.engine.device).items()
        if name in features
    }


def score_baseline(
    work: Workspace, settings: Evaluation, predict: Predict, count: Counting = iter
) -> dict[str, Any]:
    """Score a baseline: its metrics and `distribution`, as in `baselines.json`.

    `validation` holds its metrics on the validation images, for comparison with a run's epochs. `count` reports
    progress.
    """
    split = work.prepared.reporting_split
    batches = count(_batches(work, work.prepared.positions(split)))
    scored = evaluate(predict, batches, full=True, networks=open_networks(settings, work.engine.device))
    validation = scored
    if split != "validation":
        validation = evaluate(predict, count(_batches(work, work.prepared.positions("validation"))))
    set_scores = measure_set(work, settings, scored.features)
    return finite_or_none(scored.metrics) | {"validation": finite_or_none(validation.metrics)} | set_scores


def noise_floor(work: Workspace, settings: Evaluation, count: Counting = iter) -> dict[str, Any]:
    """Scores of real images: a random subset of the training split, compared with the reporting split.

    Only scores of whole sets have such a floor; errors of single images need each image's true colours. `count` reports
    progress.
    """
    prepared, networks = work.prepared, available_networks(settings, work.engine.device)
    reported = prepared.positions(prepared.reporting_split)
    reference = evaluate(_truth, count(_batches(work, reported)), full=True)
    # as many images as are reported on, because a Frechet distance is larger for smaller sets
    chosen = np.sort(stream(0, "noise-floor").permutation(prepared.positions("train"))[: len(reported)])
    scored = evaluate(_truth, count(_batches(work, chosen)), full=True, networks=networks)
    colourfulness = scored.metrics["colourfulness"]
    true_colourfulness = column_mean(reference.rows, "colourfulness_true")
    floor = {
        "colourfulness": colourfulness,
        "colourfulness_absolute": scored.metrics["colourfulness_absolute"],
        "colourfulness_difference_of_means": abs(colourfulness - true_colourfulness),
        "distribution": _distances(work, settings, scored.features),
    }
    # on the true images of the reporting split, because the probe was fitted to those of the training split
    if settings.recognition:
        floor["recognition"] = _recognition(work, settings, _true_features(work, settings))
    return floor


def _true_features(work: Workspace, settings: Evaluation) -> dict[str, Features]:
    """Features of the reporting split's true images by network, cached."""
    split, features = work.prepared.reporting_split, {}
    for name, network in available_networks(settings, work.engine.device).items():
        compute = partial(_features, work, work.prepared.positions(split), name, network)
        dependencies = {"split": split, **network.provenance}
        features[name] = _cached(work, f"truth-{name}", dependencies, compute)["features"]
    return features


def recognition_probe(work: Workspace, name: str, network: ImageNetwork) -> Probe:
    """Linear probe fitted to the true training images, see `fitted_images`; cached."""
    prepared = work.prepared
    positions = prepared.positions("train")
    positions = positions[fitted_images(prepared.label[positions])]

    def fit() -> _Arrays:
        features = _features(work, positions, name, network)["features"]
        return fit_probe(features, prepared.label[positions], len(prepared.classes))._asdict()

    return Probe(**_cached(work, f"probe-{name}", {"fitted": len(positions), **network.provenance}, fit))


def _cached(
    work: Workspace, name: str, dependencies: Mapping[str, Any], compute: Callable[[], _Arrays]
) -> _Arrays:
    """Arrays from a file in `features/` whose name depends on the images and `dependencies`, computed if missing."""
    key = fingerprint({"images": work.prepared.fingerprint, **dependencies})
    path = work.root / "features" / f"{name}-{key}.npz"
    return cached(path, partial(read_arrays, sealed=True), lambda path: write_arrays(path, compute()))


def _features(work: Workspace, positions: NDArray[np.int64], name: str, network: ImageNetwork) -> _Arrays:
    batches = work.counting("truth", len(positions))(_batches(work, positions))
    return {"features": evaluate(_truth, batches, networks={name: network}).features[name]}


def _batches(work: Workspace, positions: NDArray[np.int64]) -> Iterator[Batch]:
    return plain_batches(work.prepared, positions, 64, work.engine.device)


def _truth(batch: Batch) -> Prediction:
    return Prediction(batch.chroma, None)
