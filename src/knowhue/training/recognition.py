"""How often a classifier of true-colour images recognises colourings; its probe is fitted once a study."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from knowhue.config import Evaluation, fingerprint
from knowhue.data.loaders import plain_batches
from knowhue.evaluation.evaluate import evaluate
from knowhue.evaluation.features import FeatureNetwork, Features, available_networks
from knowhue.evaluation.recognition import Probe, fit_probe, recognised
from knowhue.storage import cached
from knowhue.tensors import Batch, Prediction
from knowhue.training.loop import Work


def recognition(work: Work, settings: Evaluation, features: Mapping[str, Features]) -> dict[str, Any]:
    """Shares of the reporting split whose class is recognised from their colourings, by network.

    Args:
        work: its training images, in their true colours, teach a probe on each network's features.
        settings: which networks.
        features: of the colourings, in the order of the images' indices; without any there is nothing to tell.
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


def _probe(work: Work, name: str, network: FeatureNetwork) -> Probe:
    """Fitted to the true training images with known labels; kept in `features/` under all that it depends on."""
    prepared = work.prepared
    key = fingerprint({"images": prepared.fingerprint, **network.provenance})

    def write(path: Path) -> None:
        positions = prepared.positions("train")
        positions = positions[prepared.label[positions] >= 0]
        batches = plain_batches(prepared, positions, 64, work.engine.device)
        features = evaluate(_truth, batches, networks={name: network}).features[name]
        fit_probe(features, prepared.label[positions], len(prepared.classes)).save(path)

    return cached(work.root / "features" / f"probe-{name}-{key}.npz", Probe.load, write)


def _truth(batch: Batch) -> Prediction:
    return Prediction(batch.chroma, None)
