"""The folder of a study with synthetic runs, in the format that the report reads."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from knowhue.evaluation.aggregation import score_rows
from knowhue.plan import make_plan
from knowhue.presets import load_config
from knowhue.report.answers import Answer, answers
from knowhue.report.findings import find
from knowhue.report.page import render_page
from knowhue.report.results import conclude
from knowhue.report.study import Study, Table
from knowhue.report.tables import TABLES
from knowhue.runs import STUDY_SCHEMA, read_status, run_folder, write_status
from knowhue.storage import finite_or_none, read_csv, read_json, write_json

CLASSES = ["coral_reef", "jellyfish", "king_penguin", "sea_slug", "seashore"]
PARTS = {"images": "0a1b2c3d", "encoder_weights": {"tf_efficientnet_lite0 package": "0123abcd"}}
PER_CLASS = 30
SIDE = 48
METRICS = {
    "ab_l1": {
        "title": "Mean absolute error of a*b*",
        "unit": "CIELAB units",
        "better": "lower",
        "task": "colour",
    },
    "ciede2000": {"title": "CIEDE2000", "unit": "", "better": "lower", "task": "colour"},
    "psnr": {"title": "PSNR over RGB", "unit": "dB", "better": "higher", "task": "colour"},
    "adversarial": {"title": "Adversarial (GAN) loss", "unit": "", "better": "lower", "task": "colour"},
    "accuracy": {"title": "Accuracy", "unit": "share", "better": "higher", "task": "class"},
    "balanced_accuracy": {"title": "Balanced accuracy", "unit": "share", "better": "higher", "task": "class"},
}
BASELINES = {
    "gray": {"ab_l1": 15.6, "psnr": 19.1},
    "mean_colour": {"ab_l1": 15.1, "psnr": 19.6},
    "majority_class": {"accuracy": 0.2, "balanced_accuracy": 0.2},
}


def write_study(
    folder: Path,
    *,
    seeds: tuple[int, ...] = (0,),
    arms: tuple[str, ...] = ("class", "colour", "multi"),
    gain: float = 0.15,
    noise: float = 0.02,
    error: float = 12.0,
    classes: list[str] | None = None,
    baselines: dict[str, Any] = BASELINES,
) -> Path:
    """Write a study in which multi-task is better by `gain` CIELAB units of error and a tenth of it in accuracy."""
    names = classes or CLASSES
    plan = make_plan(load_config("demo"), arms, seeds)
    write_json(folder / "study.json", {
        "name": "demo", "preset": "demo", "command": "knowhue study --preset demo --out runs/demo",
        "version": "0.1.0", "created": "2026-11-23T01:00:00Z", "hash": plan.hash(PARTS),
        **STUDY_SCHEMA, "parts": PARTS,
        **plan.model_dump(mode="json"),
    })  # fmt: skip
    write_json(folder / "metrics.json", METRICS)
    write_json(folder / "baselines.json", baselines)
    _write_images(folder / "images", names)
    for task in ("colour", "class"):
        for seed in seeds:
            write_json(
                folder / "heads" / task / f"seed-{seed}-0" / "status.json", {"seconds": {"heads": 12.5}}
            )
    for arm in arms:
        for seed in seeds:
            run = run_folder(folder, arm, plan.run_config(arm, seed))
            better = (gain if arm == "multi" else 0.0) + noise * np.random.default_rng(
                [seed, len(arm)]
            ).normal()
            _write_run(run, arm, seed, names, error - better, 0.8 + better / 10)
    return folder


def answer_of(study: Study, question: str) -> Answer:
    return answers(find(study))[question]


def results_of(study: Study) -> dict[str, Any]:
    return conclude(study).results


def page_of(study: Study) -> str:
    return render_page(conclude(study))


def table_text(study: Study, name: str) -> Table:
    return TABLES[name].text(find(study))


def scores_of(study: Study, task: str) -> dict[str, dict[str, str]]:
    """The table of a task's scores as text by metric and column; `role` is the metric's role in the plan."""
    header, *rows = table_text(study, f"{task}_scores")
    return {
        metric.value: dict(zip(header[1:], cells, strict=True)) | {"role": metric.below}
        for metric, *cells in rows
    }


def change(path: Path, edit: Any) -> None:
    """Edit a JSON file in place."""
    value = read_json(path)
    edit(value)
    write_json(path, value)


def run_of(folder: Path, arm: str, seed: int = 0) -> Path:
    return next((folder / arm).glob(f"seed-{seed}-*"))


def _write_images(folder: Path, names: list[str]) -> None:
    write_json(folder / "prepared.json", {
        "classes": names, "size_px": SIDE, "source": "drawn", "fingerprint": "0a1b2c3d",
        "counts": {"train": dict.fromkeys(names, 240) | {"unlabelled": 12},
                   "validation": dict.fromkeys(names, PER_CLASS) | {"unlabelled": 0}},
        "left_out": [
            {"path": "coral_reef/00017.png", "split": "train", "reason": "near-gray: 2.1 is below 4.0"},
            {"path": "jellyfish/00003.png", "split": "train", "reason": "near-gray: 3.0 is below 4.0"},
            {"path": "seashore/00009.png", "split": "validation", "reason": "duplicate of 00008.png (train)"},
        ],
    })  # fmt: skip
    truth = _scenes(len(names), 0.0)
    gray = np.repeat(truth.mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.uint8)
    places = np.arange(2 * len(names))
    np.savez(folder / "samples.npz", index=places * 7, label=places // 2, gray=gray, truth=truth)


def _scenes(classes: int, wash: float) -> np.ndarray:
    """Two images per class: a disc on a gradient, with colours desaturated by `wash`, 0 to 1."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    images = []
    for number in range(2 * classes):
        rng = np.random.default_rng(number)
        low, high, disc = rng.uniform(30, 235, (3, 3))
        image = low + (high - low) * (0.7 * y + 0.3 * x)[..., None]
        cx, cy, radius = rng.uniform(0.3, 0.7, 3)
        image = np.where((np.hypot(x - cx, y - cy) < 0.5 * radius)[..., None], disc, image)
        gray = image.mean(axis=-1, keepdims=True)
        images.append(gray + (1 - wash) * (image - gray))
    return np.clip(images, 0, 255).astype(np.uint8)


def _write_run(run: Path, arm: str, seed: int, names: list[str], error: float, accuracy: float) -> None:
    colour, classes = arm != "class", arm != "colour"
    write_json(run / "environment.json", {"python": "3.11.2", "torch": "2.14.0", "platform": "Linux x86_64",
                                   "device": "cpu", "precision": "bfloat16", "cpu_threads": 2})  # fmt: skip
    lines = [_epoch(epoch, colour, classes, error, accuracy, [seed, epoch]) for epoch in range(1, 11)]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    rows, confusion = _images(names, [seed, len(arm)], error, accuracy)
    kept = ["index", "path", "label"] + ["predicted", "probability", "correct"] * classes + ["ab_l1"] * colour
    with (run / "per_image.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, kept, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    write_json(run / "scores.json", _scores(names, rows, confusion, colour=colour, classes=classes))
    _write_samples(run, names, colour=colour, classes=classes, wash=0.45 if arm == "multi" else 0.6)
    write_json(
        run / "status.json",
        {"state": "finished", "seconds": {"heads": 12.5, "finetune": 45.5, "evaluate": 1.25}},
    )


def _epoch(
    number: int, colour: bool, classes: bool, error: float, accuracy: float, seed: list[int]
) -> dict[str, Any]:
    rng, other = np.random.default_rng(seed), np.random.default_rng([*seed, 1])
    tuned = number > 6
    left = np.exp(-number / 4) + 0.15 * (not tuned)
    line: dict[str, Any] = {"phase": "finetune" if tuned else "heads", "epoch": number}
    line |= {"train": {}, "validation": {}, "seconds": 3.2, "images_per_second": 210.0, "warnings": []}
    if colour:
        real = min(0.55 + 0.045 * number, 0.99)
        line["train"] |= {"l1": 0.1 + left / 10, "generator": 0.4 + 0.05 * number + 0.02 * rng.normal(),
                          "discriminator": 0.25 - 0.012 * number + 0.01 * rng.normal(),
                          "discriminator_real": real, "discriminator_fake": real - 0.05}  # fmt: skip
        shift = (error - 12.0) if tuned else 0.0  # arms are equal while the encoder is frozen
        line["validation"] |= {"ab_l1": 12.0 + shift + 3 * left + 0.05 * rng.normal(), "adversarial": 0.5}
        if number >= 8:
            line["warnings"] = [
                f"discriminator saturated: it judges {100 * real:.0f} % of true patches right"
            ]
    if classes:
        shift = (accuracy - 0.8) if tuned else 0.0
        value = 0.8 + shift - 0.35 * left + 0.004 * other.normal()
        line["train"] |= {"cross_entropy": 1.6 * left, "accuracy": value + 0.05}
        line["validation"] |= {"accuracy": value, "balanced_accuracy": value}
    return line


def _images(
    names: list[str], seed: list[int], error: float, accuracy: float
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Rows of the same images for every run, with a little noise of the run."""
    rng, own = np.random.default_rng(11), np.random.default_rng(seed)
    spread, coin = rng.normal(0, 2, len(names) * PER_CLASS), rng.permutation(len(names) * PER_CLASS)
    spread += own.normal(0, 0.3, len(spread))
    spread -= spread.mean()
    confusion = np.zeros((len(names), len(names)), int)
    rows = []
    for index in range(len(names) * PER_CLASS):
        label = index // PER_CLASS
        right = coin[index] < accuracy * len(coin)
        predicted = label if right else (label + 1 + coin[index] % (len(names) - 1)) % len(names)
        confusion[label, predicted] += 1
        rows.append({
            "index": index, "path": f"{names[label]}/{index:05d}.png", "label": names[label],
            "predicted": names[predicted], "probability": round(0.5 + 0.4 * bool(right), 3),
            "correct": int(right), "ab_l1": error + label - (len(names) - 1) / 2 + spread[index],
        })  # fmt: skip
    return rows, confusion


def _scores(
    names: list[str], rows: list[Any], confusion: np.ndarray, *, colour: bool, classes: bool
) -> dict[str, Any]:
    metrics: dict[str, float] = {}
    per_class: dict[str, dict[str, float]] = {name: {"images": PER_CLASS} for name in names}
    if colour:
        mean = float(np.mean([row["ab_l1"] for row in rows]))
        metrics |= {"ab_l1": mean, "ciede2000": 0.9 * mean, "psnr": 34 - mean, "adversarial": 0.512}
    if classes:
        recall = float(np.mean(confusion.diagonal() / confusion.sum(axis=1)))
        metrics |= {"accuracy": float(confusion.trace() / confusion.sum()), "balanced_accuracy": recall}
    for label, name in enumerate(names):
        own = [row for row in rows if row["label"] == name]
        per_class[name] |= {"ab_l1": float(np.mean([row["ab_l1"] for row in own]))} if colour else {}
        per_class[name] |= {"accuracy": float(confusion[label, label] / PER_CLASS)} if classes else {}
    scores = {"split": "validation", "images": len(rows), "metrics": metrics, "per_class": per_class}
    return scores | ({"confusion": confusion.tolist()} if classes else {})


def _write_samples(run: Path, names: list[str], *, colour: bool, classes: bool, wash: float) -> None:
    arrays: dict[str, np.ndarray] = {"index": np.arange(2 * len(names)) * 7}
    if colour:
        arrays["rgb"] = _scenes(len(names), wash)
    if classes:
        predicted = np.arange(2 * len(names)) // 2
        predicted[3] = 0
        arrays |= {"predicted": predicted, "probability": np.linspace(0.55, 0.97, 2 * len(names))}
    np.savez(run / "samples.npz", **arrays)  # type: ignore[arg-type]


def write_own_scores(folder: Path) -> None:
    """Compute the scores of a study's runs from their rows, as training does."""
    for run in folder.glob("*/seed-*"):
        rows = [_typed(row) for row in read_csv(run / "per_image.csv")]
        scores = read_json(run / "scores.json")
        names = list(scores["per_class"])
        rows = [row | {"label": names.index(row["label"])} for row in rows]
        scores["metrics"] = finite_or_none(score_rows(rows))
        for place, name in enumerate(names):
            own = score_rows([row for row in rows if row["label"] == place])
            scores["per_class"][name] = finite_or_none(
                {k: v for k, v in own.items() if k != "balanced_accuracy"}
            )
        write_json(run / "scores.json", scores)
        write_status(run, read_status(run))


def _typed(row: dict[str, str]) -> dict[str, Any]:
    return {
        name: text if name in ("path", "label", "predicted") else float(text) for name, text in row.items()
    }
