"""Distances, metrics that were not computed, reliability and extreme images in the report."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from synthetic_study import change, run_of, scores_of, table_text, write_study

from knowhue.report.figures import draw_extremes
from knowhue.report.levels import draw_reliability, reliability_bins, reliability_rows
from knowhue.report.page import write_report
from knowhue.report.reading import read_study
from knowhue.report.results import (
    distance_warnings,
    has_fid,
    left_out_counts,
    not_computed,
    provenance,
)
from knowhue.report.study import Study, floors
from knowhue.report.style import lay_out

pytestmark = pytest.mark.usefixtures("without_figures")
NO_RECOGNITION = (
    "Recognised by a probe of true colours",
    "the plan names it, but the setting `evaluation.recognition` is off",
)


def entry(value: float | None, name: str = "n") -> dict:
    about = {"title": f"Distance {name}", "better": "lower"}
    if value is None:
        return {**about, "value": None, "reason": "not computed: <no weights>"}
    tool = {"network": name, "weights": "0a1b", "resize": "to 224", "tool": "knowhue"}
    return {**about, "value": value, **tool, "images": 9, "reference_images": 9, "warning": "9 are few"}


def study_with_distances(folder: Path) -> Path:
    write_study(folder, seeds=(0, 1))
    bins = [{"lower": 0.0, "upper": 0.5, "images": 0, "confidence": None, "accuracy": None},
            {"lower": 0.5, "upper": 1.0, "images": 10, "confidence": 0.8, "accuracy": 0.6}]  # fmt: skip
    for arm, values in {"colour": (10.0, 12.0), "multi": (8.0, 9.0), "class": (None, None)}.items():
        for seed, value in enumerate(values):
            added: dict = {"distribution": {"fd": entry(value), "fid": entry(None, "fid")}} if value else {}
            added |= {"reliability": bins} if arm != "colour" else {}
            change(run_of(folder, arm, seed) / "scores.json", lambda scores, a=added: scores.update(a))
    real = {"distribution": {"fd": entry(5.0), "fid": entry(None, "fid")}}
    change(folder / "baselines.json", lambda baselines: baselines.update(real=real))
    return folder


def test_distances_stand_beside_the_noise_floor(tmp_path: Path):
    study = read_study(study_with_distances(tmp_path))
    assert table_text(study, "distances") == [
        ["Distance", "Single-task", "Multi-task", "Other real images"],
        ["Distance n", "11.00 ± 1.41", "8.50 ± 0.71", "5.00"],
    ]
    assert distance_warnings(study) == ["9 are few."]
    assert provenance(study, "distribution") == ["n: weights 0a1b; to 224; knowhue; 9 images against 9."]


def test_recognition_stands_beside_that_of_the_baselines(tmp_path: Path):
    write_study(tmp_path, seeds=(0, 1))
    for arm, seed in product(("colour", "multi"), (0, 1)):
        shown_to = {"lite0": {"accuracy": 0.5 + seed / 10, "balanced_accuracy": 0.4, "labelled": 9}}
        change(
            run_of(tmp_path, arm, seed) / "scores.json",
            lambda scores, a=shown_to: scores.update(recognition=a),
        )
    shown_to = {"lite0": {"accuracy": 0.25, "balanced_accuracy": 0.2, "labelled": 9}}
    change(tmp_path / "baselines.json", lambda baselines: baselines["gray"].update(recognition=shown_to))
    study = read_study(tmp_path)
    assert floors(study.baselines, "recognition") == {"gray": 0.25}
    title = "Recognised by a probe of true colours, %"
    assert scores_of(study, "colour")[f"{title} ↑"]["Gray"] == "25.0"
    assert title.replace(" %", "\N{NO-BREAK SPACE}%") in write_report(tmp_path).read_text(encoding="utf-8")


def test_what_was_not_computed_is_on_the_page(tmp_path: Path):
    study_with_distances(tmp_path)
    study = read_study(tmp_path)
    assert not_computed(study) == [("Distance fid", "<no weights>"), NO_RECOGNITION]
    assert not has_fid(study)
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "<b>Distance fid</b> – &lt;no weights&gt;" in text
    assert "Small sample." in text


def test_perceptual_scores_are_quoted_with_their_network(tmp_path: Path):
    write_study(tmp_path)
    tool = {"network": "LPIPS", "weights": "0a1b", "resize": "not resized", "tool": "knowhue"}
    perceptual = {
        "lpips_alex": {"title": "LPIPS", "value": 0.3, **tool, "images": 9, "size_px": 64},
        "another": {
            "title": "Another",
            "value": None,
            "reason": "not computed: no package; pip install 'x'",
        },
    }
    for arm in ("colour", "multi"):
        change(run_of(tmp_path, arm) / "scores.json", lambda scores: scores.update(perceptual=perceptual))
    study = read_study(tmp_path)
    assert provenance(study, "perceptual") == [
        "LPIPS: weights 0a1b; not resized; knowhue; 9 images of 64 pixels a side."
    ]
    assert not_computed(study) == [("Another", "no package; pip install 'x'"), NO_RECOGNITION]
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "9 images of 64 pixels a side." in text
    assert "<b>Another</b> – no package; pip install &#39;x&#39;" in text


def test_left_out_images_are_counted_by_kind(tmp_path: Path):
    reasons = [
        "duplicate of a (train)",
        "duplicate of b (train)",
        "near-duplicate of a (train)",
        "near-gray: 3",
    ]
    study = Study({}, {}, prepared={"left_out": [{"reason": reason} for reason in reasons]})
    assert left_out_counts(study) == [["duplicate", 2], ["near-duplicate", 1], ["near-gray", 1]]


def test_an_older_study_has_no_distances(one_seed: Path):
    study = read_study(one_seed)
    assert len(table_text(study, "distances")) == 1
    assert not_computed(study) == [NO_RECOGNITION]


def test_what_the_plan_names_and_the_settings_measure_is_not_missed(tmp_path: Path):
    write_study(tmp_path)
    assert not_computed(read_study(tmp_path)) == [NO_RECOGNITION]
    change(tmp_path / "study.json", lambda study: study["config"]["evaluation"].update(recognition=True))
    assert not_computed(read_study(tmp_path)) == []


def test_reliability_adds_up_over_seeds(tmp_path: Path):
    study = read_study(study_with_distances(tmp_path))
    empty, full = reliability_bins(study, "multi")
    assert (empty["images"], empty["accuracy"]) == (0, None)
    assert (full["images"], round(full["confidence"], 6), round(full["accuracy"], 6)) == (20, 0.8, 0.6)
    assert len(reliability_rows(study)) == 2 * 2


def test_no_text_of_the_reliability_diagram_can_lie_under_a_point(tmp_path: Path):
    for figure in draw_reliability(read_study(study_with_distances(tmp_path))).values():
        lay_out(figure)
        (ax,) = figure.axes
        words = [each for each in ax.texts if each.get_text()]
        assert [each.get_text() for each in words] == ["calibration error 20.0 %"]
        assert not any(each.get_window_extent().overlaps(ax.bbox) for each in words)


def test_extremes_are_those_with_the_least_and_greatest_error(tmp_path: Path):
    write_study(tmp_path)
    images = np.zeros((4, 8, 8, 3), np.uint8)
    errors = np.array([1.0, 2.0, 30.0, 40.0])
    np.savez(
        run_of(tmp_path, "multi") / "extremes.npz",
        index=np.arange(4),
        ab_l1=errors,
        rgb=images,
        truth=images,
    )
    study = read_study(tmp_path)
    (figure,) = draw_extremes(study).values()  # single-task has stored none
    assert [len(ax.images) for ax in figure.axes] == [2 * 4]
    below = [text for text in figure.axes[0].texts if text.get_text()[0].isdigit()]
    assert [text.get_text() for text in below] == ["1.0", "2.0", "30.0", "40.0"]
    assert [image.get_extent()[1] > text.get_position()[0] > image.get_extent()[0]
            for image, text in zip(figure.axes[0].images, below, strict=False)] == [True] * 4  # fmt: skip
