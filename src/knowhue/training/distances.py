"""Distances between colourings and true images; the true images' features are computed once a study."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knowhue.config import Evaluation as EvaluationSettings
from knowhue.config import fingerprint
from knowhue.data.loaders import ProcessShare, label_weights, split_batches, to_batch
from knowhue.evaluation.evaluate import Predict, evaluate
from knowhue.evaluation.features import (
    FeatureNetwork,
    Features,
    available_networks,
    measure_distances,
    open_networks,
)
from knowhue.evaluation.metrics import mean
from knowhue.evaluation.perceptual import open_perceptual
from knowhue.randomness import stream
from knowhue.storage import cached, finite_or_none, read_arrays, replacing
from knowhue.tensors import Batch, Prediction
from knowhue.training.loop import Work
from knowhue.training.recognition import recognition


def distances(
    work: Work, settings: EvaluationSettings, features: Mapping[str, Features]
) -> dict[str, dict[str, Any]]:
    """What `scores.json` says under `distribution`; on one process.

    Args:
        work: the images of its reporting split are the reference.
        settings: which networks.
        features: of the colourings, from `evaluate`; without any there is nothing to measure.
    """
    if not features:
        return {}
    networks = open_networks(settings, work.engine.device)
    truth = {name: true_features(work, name, network) for name, network in _networks(work, settings).items()}
    return measure_distances(features, truth, networks)


def measure_set(
    work: Work, settings: EvaluationSettings, features: Mapping[str, Features]
) -> dict[str, dict[str, Any]]:
    """`distribution` and, where it is asked for, `recognition` of a set of colourings, as `scores.json` holds them."""
    found = {"distribution": distances(work, settings, features)}
    if settings.recognition:
        found["recognition"] = recognition(work, settings, features)
    return {name: values for name, values in found.items() if values}


def true_features(work: Work, name: str, network: FeatureNetwork) -> Features:
    """Features of the true images of the reporting split, kept in `features/` under all that they depend on."""
    key = fingerprint(
        {
            "images": work.prepared.fingerprint,
            "split": work.prepared.reporting_split,
            **network.provenance,
        }
    )

    def write(path: Path) -> None:
        batches = _reported(work)
        features = evaluate(_truth, batches, networks={name: network}).features[name]
        with replacing(path, "wb") as file:
            np.savez(file, features=features)

    kept = work.root / "features" / f"truth-{name}-{key}.npz"
    return cached(kept, read_arrays, write)["features"]


def score_way(work: Work, settings: EvaluationSettings, predict: Predict) -> dict[str, Any]:
    """The row of a way to predict in `baselines.json`: its metrics, and `distribution` if it colours."""
    batches = _reported(work)
    perceptual = open_perceptual(settings, work.engine.device)
    scored = evaluate(
        predict,
        batches,
        full=True,
        networks=_networks(work, settings),
        perceptual=perceptual,
    )
    return finite_or_none(scored.metrics) | measure_set(work, settings, scored.features)


def noise_floor(work: Work, settings: EvaluationSettings) -> dict[str, Any]:
    """What real images score: as many from the training split, drawn by their own stream, against those reported on.

    Only scores of whole sets have such a floor; other images have no error.
    """
    prepared = work.prepared
    true_colourfulness = mean(evaluate(_truth, _reported(work), full=True).rows, "colourfulness_true")
    count = len(prepared.positions(prepared.reporting_split))
    chosen = np.sort(stream(0, "noise-floor").permutation(prepared.positions("train"))[:count])
    scored = evaluate(_truth, _batches(work, chosen), full=True, networks=_networks(work, settings))
    colourfulness = scored.metrics["colourfulness"]
    return {
        "colourfulness": colourfulness,
        "colourfulness_absolute": scored.metrics["colourfulness_absolute"],
        "colourfulness_difference_of_means": abs(colourfulness - true_colourfulness),
        "distribution": distances(work, settings, scored.features),
        **({"recognition": _truth_recognised(work, settings)} if settings.recognition else {}),
    }


def _truth_recognised(work: Work, settings: EvaluationSettings) -> dict[str, Any]:
    """Of the true images of the reporting split: those of the training split taught the classifier."""
    features = {
        name: true_features(work, name, network) for name, network in _networks(work, settings).items()
    }
    return recognition(work, settings, features)


def _reported(work: Work) -> Iterator[Batch]:
    return split_batches(work.prepared, work.prepared.reporting_split, 64, ProcessShare(), work.engine.device)


def _batches(work: Work, positions: NDArray[np.int64], size: int = 64) -> Iterator[Batch]:
    for start in range(0, len(positions), size):
        part = positions[start : start + size]
        weights = label_weights(work.prepared.label[part])
        yield to_batch(work.prepared, part, work.prepared.rgb[part], weights, work.engine.device)


def _networks(work: Work, settings: EvaluationSettings) -> dict[str, FeatureNetwork]:
    return available_networks(settings, work.engine.device)


def _truth(batch: Batch) -> Prediction:
    return Prediction(batch.chroma, None)
