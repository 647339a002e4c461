"""Scores of whole sets of colourings: distances to the true images, recognition, baselines, the noise floor.

What belongs to the true images (their features, the probe's weights) is computed once a study and kept in `features/`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from knowhue.config import Evaluation, fingerprint
from knowhue.data.loaders import plain_batches
from knowhue.evaluation.evaluate import Predict, evaluate
from knowhue.evaluation.features import (
    FeatureNetwork,
    Features,
    available_networks,
    measure_distances,
    open_networks,
)
from knowhue.evaluation.metrics import column_mean
from knowhue.evaluation.perceptual import open_perceptual
from knowhue.evaluation.recognition import Probe, fit_probe, recognised
from knowhue.randomness import stream
from knowhue.storage import cached, finite_or_none, read_arrays, replacing
from knowhue.tensors import Batch, Prediction
from knowhue.training.engine import Workspace


def measure_set(
    work: Workspace, settings: Evaluation, features: Mapping[str, Features]
) -> dict[str, dict[str, Any]]:
    """`distribution` and, where the settings ask for it, `recognition` of colourings, as `scores.json` holds them.

    Args:
        work: its true images are the reference.
        settings: which networks.
        features: of the colourings, from `evaluate`, in the order of the images' indices; without any there is nothing
            to measure.
    """
    found = {"distribution": distances(work, settings, features)}
    if settings.recognition:
        found["recognition"] = recognition(work, settings, features)
    return {name: values for name, values in found.items() if values}


def distances(
    work: Workspace, settings: Evaluation, features: Mapping[str, Features]
) -> dict[str, dict[str, Any]]:
    """Distances of colourings to the true images of the reporting split; arguments as `measure_set`."""
    if not features:
        return {}
    return measure_distances(
        features, _true_features(work, settings), open_networks(settings, work.engine.device)
    )


def recognition(work: Workspace, settings: Evaluation, features: Mapping[str, Features]) -> dict[str, Any]:
    """Shares of the reporting split whose class a probe recognises, by network; arguments as `measure_set`.

    The probe is linear on a network's features, fitted to the training images in their true colours.
    """
    label = work.prepared.label[work.prepared.positions(work.prepared.reporting_split)]
    return {
        name: {
            "title": f"Recognised by a linear probe on {network.provenance['network']}",
            "better": "higher",
            **recognised(_probe(work, name, network), features[name], label),
            **network.provenance,
        }
        for name, network in available_networks(settings, work.engine.device).items()
        if name in features
    }


def score_baseline(work: Workspace, settings: Evaluation, predict: Predict) -> dict[str, Any]:
    """The row of a baseline in `baselines.json`: its metrics, and `distribution` if it colours."""
    device, prepared = work.engine.device, work.prepared
    scored = evaluate(
        predict,
        _batches(work, prepared.positions(prepared.reporting_split)),
        full=True,
        networks=available_networks(settings, device),
        perceptual=open_perceptual(settings, device),
    )
    return finite_or_none(scored.metrics) | measure_set(work, settings, scored.features)


def noise_floor(work: Workspace, settings: Evaluation) -> dict[str, Any]:
    """What real images score: as many from the training split, drawn by their own stream, against those reported on.

    Only scores of whole sets have such a floor; other images have no error.
    """
    prepared, networks = work.prepared, available_networks(settings, work.engine.device)
    reported = prepared.positions(prepared.reporting_split)
    reference = evaluate(_truth, _batches(work, reported), full=True)
    # as many, for a Frechet distance grows as sets shrink
    chosen = np.sort(stream(0, "noise-floor").permutation(prepared.positions("train"))[: len(reported)])
    scored = evaluate(_truth, _batches(work, chosen), full=True, networks=networks)
    colourfulness = scored.metrics["colourfulness"]
    found = {
        "colourfulness": colourfulness,
        "colourfulness_absolute": scored.metrics["colourfulness_absolute"],
        "colourfulness_difference_of_means": abs(
            colourfulness - column_mean(reference.rows, "colourfulness_true")
        ),
        "distribution": distances(work, settings, scored.features),
    }
    # of the true images reported on: the probe was fitted to those of the training split
    if settings.recognition:
        found["recognition"] = recognition(work, settings, _true_features(work, settings))
    return found


def _true_features(work: Workspace, settings: Evaluation) -> dict[str, Features]:
    """Of the true images of the reporting split, by network; kept under all that they depend on."""
    prepared, found = work.prepared, {}
    for name, network in available_networks(settings, work.engine.device).items():
        key = fingerprint(
            {"images": prepared.fingerprint, "split": prepared.reporting_split, **network.provenance}
        )

        # bound as defaults: a closure would look up the loop's variables when it is called
        def write(path: Path, name: str = name, network: FeatureNetwork = network) -> None:
            batches = _batches(work, prepared.positions(prepared.reporting_split))
            features = evaluate(_truth, batches, networks={name: network}).features[name]
            with replacing(path, "wb") as file:
                np.savez(file, features=features)

        kept = work.root / "features" / f"truth-{name}-{key}.npz"
        found[name] = cached(kept, read_arrays, write)["features"]
    return found


def _probe(work: Workspace, name: str, network: FeatureNetwork) -> Probe:
    """Fitted to the true training images with known labels; kept under all that it depends on."""
    prepared = work.prepared
    key = fingerprint({"images": prepared.fingerprint, **network.provenance})

    def write(path: Path) -> None:
        positions = prepared.positions("train")
        positions = positions[prepared.label[positions] >= 0]
        features = evaluate(_truth, _batches(work, positions), networks={name: network}).features[name]
        fit_probe(features, prepared.label[positions], len(prepared.classes)).save(path)

    return cached(work.root / "features" / f"probe-{name}-{key}.npz", Probe.load, write)


def _batches(work: Workspace, positions: NDArray[np.int64]) -> Iterator[Batch]:
    return plain_batches(work.prepared, positions, 64, work.engine.device)


def _truth(batch: Batch) -> Prediction:
    return Prediction(batch.chroma, None)
