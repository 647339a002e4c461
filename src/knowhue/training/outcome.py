"""What a run leaves to be read: scores, one row an image, and colourings of the fixed samples."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from knowhue.color import lab_to_rgb
from knowhue.data.loaders import to_batch
from knowhue.data.prepare import Prepared
from knowhue.errors import DamagedError
from knowhue.evaluation.calibration import calibration_bins
from knowhue.evaluation.evaluate import Scored, class_metrics
from knowhue.evaluation.metrics import METRICS, ImageRow, confusion_matrix
from knowhue.models.multitask import MultiTask
from knowhue.models.palette import diversity
from knowhue.runs import damaged_files, has_ended
from knowhue.storage import finite_or_none, replacing, write_csv, write_json
from knowhue.tensors import RGB, Batch
from knowhue.training.engine import Workspace
from knowhue.training.phases import predict

OUTCOME = frozenset({"scores.json", "per_image.csv", "samples.npz", "extremes.npz"})
"""The files of a run that scoring its weights again makes anew."""
SAMPLES_PER_CLASS = 2
EXTREMES = 4
DRAWN = 4
_ORDER = (
    "probability",
    "ab_l1",
    "ciede2000",
    "psnr_rgb",
    "ssim_rgb",
    "lpips_alex",
    "chroma",
    "chroma_true",
    "colourfulness",
    "colourfulness_true",
    "colourfulness_absolute",
    "adversarial",
    "cross_entropy",
)
# what a class answer gets right is written beside its name
FROM_ROW = tuple(
    dict.fromkeys((*_ORDER, *(each.column for each in METRICS.values() if each.column != "correct")))
)
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


def write_scores(
    folder: Path, prepared: Prepared, scored: Scored, of_set: Mapping[str, Any] | None = None
) -> None:
    """`scores.json` and `per_image.csv`.

    Args:
        folder: of the run.
        prepared: the images.
        scored: the model's evaluation.
        of_set: what is measured of its colourings as a set, see `training.set_scores.measure_set`.
    """
    classes, side = prepared.classes, prepared.rgb.shape[1]
    perceptual = {name: {**entry, "size_px": side} for name, entry in scored.perceptual.items()}
    has_class = bool(scored.rows) and "predicted" in scored.rows[0]
    write_json(
        folder / "scores.json",
        {
            "split": prepared.reporting_split,
            "images": len(scored.rows),
            "metrics": finite_or_none(scored.metrics),
            "per_class": {
                name: finite_or_none(row) for name, row in class_metrics(scored.rows, classes).items()
            },
            **(of_set or {}),
            **({"perceptual": perceptual} if perceptual else {}),
            **(_class_tables(scored.rows, len(classes)) if has_class else {}),
        },
    )
    rows = [_readable(row, prepared) for row in scored.rows]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    write_csv(folder / "per_image.csv", [columns, *([row.get(key) for key in columns] for row in rows)])


def sample_positions(prepared: Prepared) -> NDArray[np.int64]:
    """The images that every report shows, (N,): the first `SAMPLES_PER_CLASS` of each class of the reporting split."""
    # the first, so that nobody has chosen them
    positions = prepared.positions(prepared.reporting_split)
    labels = prepared.label[positions]
    return np.concatenate([positions[labels == n][:SAMPLES_PER_CLASS] for n in range(len(prepared.classes))])


def write_samples(work: Workspace, folder: Path, model: MultiTask) -> None:
    """`samples.npz`: what the model makes of the sample images."""
    positions = sample_positions(work.prepared)
    batch = _batch_of(work, positions)
    prediction = predict(work.engine, model, batch)
    arrays: dict[str, Any] = {"index": positions}
    if prediction.chroma is not None:
        arrays["rgb"] = to_bytes(lab_to_rgb(batch.lightness, prediction.chroma))
        arrays |= _drawn(work, model, batch)
    if prediction.logits is not None:
        probability, predicted = prediction.logits.softmax(1).max(1)
        arrays |= {"predicted": predicted.cpu().numpy(), "probability": probability.cpu().numpy()}
    _write_arrays(folder / "samples.npz", arrays)


def _drawn(work: Workspace, model: MultiTask, batch: Batch) -> dict[str, NDArray[Any]]:
    """Several colourings of each image and how far they lie apart; nothing of a head that has one answer."""
    with torch.no_grad(), work.engine.autocast():
        samples = model.samples(batch.lightness, DRAWN)
    if samples is None:
        return {}
    drawn = [to_bytes(lab_to_rgb(batch.lightness, sample)) for sample in samples]
    return {"drawn": np.stack(drawn), "diversity": diversity(samples).cpu().numpy()}


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
    _write_arrays(folder / "extremes.npz", arrays | {"rgb": to_bytes(lab_to_rgb(batch.lightness, chroma))})


def write_truth(work: Workspace) -> None:
    """`images/samples.npz`: the sample images in gray and in their own colours."""
    positions = sample_positions(work.prepared)
    batch = _batch_of(work, positions)
    gray = to_bytes(lab_to_rgb(batch.lightness, torch.zeros_like(batch.chroma)))
    _write_arrays(
        work.root / "images" / "samples.npz",
        {
            "index": positions,
            "label": work.prepared.label[positions],
            "gray": gray,
            "truth": work.prepared.rgb[positions],
        },
    )


def _batch_of(work: Workspace, positions: NDArray[np.int64]) -> Batch:
    prepared = work.prepared
    return to_batch(positions, prepared.rgb[positions], prepared.label[positions], work.engine.device)


def to_bytes(rgb: RGB) -> NDArray[np.uint8]:
    """(B, 3, H, W), 0 to 1, to (B, H, W, 3) uint8; what is not a number is black."""
    # a diverged run is drawn as well
    scaled = rgb.nan_to_num(0.0).clamp(0, 1) * 255
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def _class_tables(rows: Sequence[ImageRow], classes: int) -> dict[str, Any]:
    bins = [finite_or_none(each._asdict()) for each in calibration_bins(rows)]
    return {"confusion": confusion_matrix(rows, classes), "reliability": bins}


def _readable(row: ImageRow, prepared: Prepared) -> dict[str, Any]:
    """A row with names in place of numbers."""

    def name(label: int) -> str:
        return prepared.classes[label] if label >= 0 else ""

    readable = {"index": row["index"], "path": prepared.paths[row["index"]], "label": name(row["label"])}
    if "predicted" in row:
        readable |= {"predicted": name(row["predicted"]), "correct": row["correct"]}
    return readable | {key: round(row[key], 5) for key in FROM_ROW if row.get(key) is not None}


def _write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    with replacing(path, "wb") as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
