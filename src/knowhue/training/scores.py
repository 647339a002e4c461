"""What a run leaves to be read: scores, one row an image, samples; and what baselines and real images score.

What belongs to the true images (their features, the probe's weights) is computed once a study and kept in `features/`.
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
from knowhue.evaluation.evaluate import (
    Predict,
    Scored,
    confusion_matrix,
    evaluate,
)
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
"""The files of a run that scoring its weights again makes anew."""
_MEASURED = ("recognition", "networks", "inception_weights", "perceptual", "lpips_weights")
"""Settings of the evaluation that decide which scores a run has at its end."""
_Arrays = dict[str, NDArray[Any]]
SAMPLES_PER_CLASS = 2
SAMPLED_CLASSES = 40
"""Images of a thousand classes would be predicted in one batch, and fill a page of 100 MB."""
EXTREMES = 4
DRAWN = 4
_ORDER = (
    "probability", "ab_l1", "ab_l1_vivid", "ciede2000", "psnr_rgb", "ssim_rgb", "lpips_alex", "chroma", "chroma_true",
    "mean_a", "mean_a_true", "mean_b", "mean_b_true", "colourfulness", "colourfulness_true", "colourfulness_absolute",
    "adversarial", "cross_entropy",
)  # fmt: skip
# what a class answer gets right is written beside its name
_OTHERS = (column for column in RUN_COLUMNS.values() if column != "correct")
FROM_ROW = tuple(dict.fromkeys((*_ORDER, *_OTHERS)))
"""The columns of `per_image.csv` that are numbers: any that a metric reads is among them."""


def inspect_run(folder: Path) -> tuple[bool, list[str]]:
    """Whether a run has ended and needs no training again, and which of its files are damaged or gone.

    Damage of `OUTCOME` alone is mended by scoring the weights.
    """
    try:
        damaged = [path.name for path in damaged_files(folder)]
        return has_ended(folder) and OUTCOME.issuperset(damaged), damaged
    except DamagedError:
        return False, ["status.json"]


def inspect_scores(folder: Path, split: str, settings: Evaluation | None) -> tuple[bool, list[str], str]:
    """As `inspect_run`; and how a whole run, as one that was trained alone before its study, was scored otherwise.

    Of a head, whose `settings` are None, no more is read than what every run is scored by.
    """
    is_trained, damaged = inspect_run(folder)
    if damaged or not is_trained:
        return is_trained, damaged, ""
    if (own := read_json(folder / "scores.json").get("split")) != split:
        return True, [], f"on the {own} split, not the {split} split"
    found = read_config(folder).evaluation
    differ = [name for name in _MEASURED if settings and getattr(found, name) != getattr(settings, name)]
    return True, [], f"by other {few([f'`evaluation.{name}`' for name in differ])}" if differ else ""


def write_scores(
    folder: Path, prepared: Prepared, scored: Scored, of_set: Mapping[str, Any] | None = None
) -> None:
    """`scores.json` and `per_image.csv`."""
    rows, classes = scored.rows, prepared.classes
    per_class = class_metrics(rows, classes)
    found = {
        "split": prepared.reporting_split,
        "images": len(rows),
        "metrics": finite_or_none(scored.metrics),
        "per_class": {name: finite_or_none(values) for name, values in per_class.items()},
        **(of_set or {}),
    }
    if scored.perceptual:
        side = prepared.rgb.shape[1]
        found["perceptual"] = {name: {**each, "size_px": side} for name, each in scored.perceptual.items()}
    if rows and "predicted" in rows[0]:
        found["confusion"] = confusion_matrix(rows, len(classes))
        found["reliability"] = [finite_or_none(each._asdict()) for each in calibration_bins(rows)]
    write_json(folder / "scores.json", found)
    readable = [_readable(row, prepared) for row in rows]
    columns = list(dict.fromkeys(key for row in readable for key in row))
    write_csv(folder / "per_image.csv", [columns, *([row.get(key) for key in columns] for row in readable)])


def _readable(row: ImageRow, prepared: Prepared) -> dict[str, Any]:
    label = prepared.classes[row["label"]] if row["label"] >= 0 else ""
    found = {"index": row["index"], "path": prepared.paths[row["index"]], "label": label}
    if "predicted" in row:
        found |= {"predicted": prepared.classes[row["predicted"]], "correct": row["correct"]}
    return found | {key: round(row[key], DECIMALS) for key in FROM_ROW if row.get(key) is not None}


def sample_positions(prepared: Prepared) -> NDArray[np.int64]:
    """The images that every report shows, (N,): the first `SAMPLES_PER_CLASS` of each class of the reporting split.

    Of more classes than `SAMPLED_CLASSES` every second, third and so on is shown.
    """
    # the first, so that nobody has chosen them
    positions = prepared.positions(prepared.reporting_split)
    labels, count = prepared.label[positions], len(prepared.classes)
    shown = range(0, count, -(-count // SAMPLED_CLASSES))
    return np.concatenate([positions[labels == n][:SAMPLES_PER_CLASS] for n in shown])


def write_samples(work: Workspace, folder: Path, model: MultiTask) -> None:
    """`samples.npz`: what the model makes of the sample images; several colourings of each where it draws them."""
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
    """`extremes.npz`: the colourings with the least and the greatest error, best first; none without colours."""
    scored = [row for row in rows if row.get("ab_l1") is not None and math.isfinite(row["ab_l1"])]
    # by index where errors are equal, so that scoring again chooses the same
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
    """`images/samples.npz`: the sample images in gray and in their own colours."""
    positions = sample_positions(work.prepared)
    batch = _batch_of(work, positions)
    gray = to_bytes(lab_to_rgb(batch.lightness, torch.zeros_like(batch.chroma)))
    arrays = {"index": positions, "label": work.prepared.label[positions], "gray": gray}
    write_arrays(work.root / "images" / "samples.npz", arrays | {"truth": work.prepared.rgb[positions]})


def _batch_of(work: Workspace, positions: NDArray[np.int64]) -> Batch:
    prepared = work.prepared
    return to_batch(positions, prepared.rgb[positions], prepared.label[positions], work.engine.device)


def to_bytes(rgb: RGB) -> NDArray[np.uint8]:
    """(B, 3, H, W), 0 to 1, to (B, H, W, 3) uint8; what is not a number is black."""
    # a diverged run is drawn as well
    scaled = rgb.nan_to_num(0.0).clamp(0, 1) * 255
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def measure_set(
    work: Workspace, settings: Evaluation, features: Mapping[str, Features]
) -> dict[str, dict[str, Any]]:
    """`distribution` and, where the settings ask for it, `recognition` of colourings, as `scores.json` holds them.

    Distances are to the true images of the reporting split. Recognition is the share of it whose class is found by a
    linear probe on a network's features, fitted to the training images in their true colours. `features` are those of
    the colourings, from `evaluate`.
    """
    found = {"distribution": _distances(work, settings, features)}
    if settings.recognition:
        found["recognition"] = _recognition(work, settings, features)
    return {name: values for name, values in found.items() if values}


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
    """The row of a baseline in `baselines.json`: its metrics, and `distribution` if it colours.

    `validation` has those of the validation images, which every epoch of a run is scored on. `count` reports progress.
    """
    split = work.prepared.reporting_split
    batches = count(_batches(work, work.prepared.positions(split)))
    scored = evaluate(predict, batches, full=True, networks=open_networks(settings, work.engine.device))
    epochs = (
        scored
        if split == "validation"
        else evaluate(predict, count(_batches(work, work.prepared.positions("validation"))))
    )
    of_set = measure_set(work, settings, scored.features)
    return finite_or_none(scored.metrics) | {"validation": finite_or_none(epochs.metrics)} | of_set


def noise_floor(work: Workspace, settings: Evaluation, count: Counting = iter) -> dict[str, Any]:
    """What real images score: as many from the training split, drawn by their own stream, against those reported on.

    Only scores of whole sets have such a floor; other images have no error. `count` reports progress.
    """
    prepared, networks = work.prepared, available_networks(settings, work.engine.device)
    reported = prepared.positions(prepared.reporting_split)
    reference = evaluate(_truth, count(_batches(work, reported)), full=True)
    # as many, for a Frechet distance grows as sets shrink
    chosen = np.sort(stream(0, "noise-floor").permutation(prepared.positions("train"))[: len(reported)])
    scored = evaluate(_truth, count(_batches(work, chosen)), full=True, networks=networks)
    colourfulness = scored.metrics["colourfulness"]
    true_colourfulness = column_mean(reference.rows, "colourfulness_true")
    found = {
        "colourfulness": colourfulness,
        "colourfulness_absolute": scored.metrics["colourfulness_absolute"],
        "colourfulness_difference_of_means": abs(colourfulness - true_colourfulness),
        "distribution": _distances(work, settings, scored.features),
    }
    # of the true images reported on: the probe was fitted to those of the training split
    if settings.recognition:
        found["recognition"] = _recognition(work, settings, _true_features(work, settings))
    return found


def _true_features(work: Workspace, settings: Evaluation) -> dict[str, Features]:
    """Of the true images of the reporting split, by network; kept under all that they depend on."""
    networks = available_networks(settings, work.engine.device)
    return {name: _true_features_of(work, name, network) for name, network in networks.items()}


def _true_features_of(work: Workspace, name: str, network: ImageNetwork) -> Features:
    split = work.prepared.reporting_split

    def show() -> _Arrays:
        return {"features": _features(work, work.prepared.positions(split), name, network)}

    return _kept(work, f"truth-{name}", {"split": split, **network.provenance}, show)["features"]


def recognition_probe(work: Workspace, name: str, network: ImageNetwork) -> Probe:
    """Fitted to the true training images, see `fitted_images`; kept under all that it depends on."""
    prepared = work.prepared
    positions = prepared.positions("train")
    positions = positions[fitted_images(prepared.label[positions])]

    def fit() -> _Arrays:
        features = _features(work, positions, name, network)
        # scikit-learn's own object would be pickled, and a pickle may run code
        return fit_probe(features, prepared.label[positions], len(prepared.classes))._asdict()

    return Probe(**_kept(work, f"probe-{name}", {"fitted": len(positions), **network.provenance}, fit))


def _kept(work: Workspace, name: str, depends: Mapping[str, Any], make: Callable[[], _Arrays]) -> _Arrays:
    key = fingerprint({"images": work.prepared.fingerprint, **depends})
    path = work.root / "features" / f"{name}-{key}.npz"
    return cached(path, partial(read_arrays, sealed=True), lambda path: write_arrays(path, make()))


def _features(work: Workspace, positions: NDArray[np.int64], name: str, network: ImageNetwork) -> Features:
    batches = work.counting("truth", len(positions))(_batches(work, positions))
    return evaluate(_truth, batches, networks={name: network}).features[name]


def _batches(work: Workspace, positions: NDArray[np.int64]) -> Iterator[Batch]:
    return plain_batches(work.prepared, positions, 64, work.engine.device)


def _truth(batch: Batch) -> Prediction:
    return Prediction(batch.chroma, None)
