"""The two answers say what the numbers carry, first of all when that is nothing."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from synthetic_study import BASELINES, change, run_of, write_study

from knowhue.report.answers import MIN_SEEDS, answer
from knowhue.report.chance import picture_interval
from knowhue.report.reading import read_study

EIGHT = tuple(range(8))


def ask(folder: Path, question: str):
    return answer(read_study(folder), question)


@pytest.mark.parametrize("question", ["colour", "class"])
def test_one_seed_gives_numbers_but_no_verdict(one_seed: Path, question: str):
    found = ask(one_seed, question)
    assert found.verdict == "none"
    assert found.sentence.startswith("No verdict yet: with 1 seed (a claim needs at least 7")
    assert "Over the 150 validation pictures of these runs" in found.sentence
    assert "not for the method" in found.sentence
    assert "helps" not in found.sentence


def test_six_seeds_are_too_few(tmp_path: Path):
    write_study(tmp_path, seeds=tuple(range(MIN_SEEDS - 1)), gain=1.0)
    assert ask(tmp_path, "colour").verdict == "none"


def test_planted_help_is_found(eight_seeds: Path):
    assert ask(eight_seeds, "colour").sentence.startswith("Multi-task training helps colouring: over 8 seeds")
    assert ask(eight_seeds, "class").sentence.startswith("Multi-task training helps classification:")
    assert "less" in ask(eight_seeds, "colour").sentence
    assert "points more" in ask(eight_seeds, "class").sentence


def test_planted_harm_is_found(tmp_path: Path):
    write_study(tmp_path, seeds=EIGHT, gain=-0.3)
    assert [ask(tmp_path, question).verdict for question in ("colour", "class")] == ["hurts", "hurts"]
    assert "fewer" in ask(tmp_path, "class").sentence


def test_no_effect_is_inconclusive(tmp_path: Path):
    write_study(tmp_path, seeds=EIGHT, gain=0.0, noise=0.5)
    found = ask(tmp_path, "colour")
    assert found.sentence.startswith("Inconclusive (")


def test_an_effect_shown_to_be_small_is_called_no_difference(tmp_path: Path):
    write_study(tmp_path, seeds=EIGHT, gain=0.03, noise=0.01)
    found = ask(tmp_path, "colour")
    assert found.verdict == "equivalent"
    assert found.sentence.startswith("Multi-task training makes no difference that matters to colouring")
    assert "smallest effect of interest 0.25" in found.sentence


def test_an_unfinished_seed_forbids_a_verdict(tmp_path: Path):
    write_study(tmp_path, seeds=EIGHT, gain=1.0)
    change(run_of(tmp_path, "multi", 3) / "status.json", lambda status: status.update(state="running"))
    found = ask(tmp_path, "colour")
    assert found.verdict == "none"
    assert found.sentence.startswith("Left out of the numbers: multi-task seed 3 (not finished)")
    assert "with 7 seeds" in found.sentence


def test_a_diverged_seed_stays_in_with_the_declared_score(tmp_path: Path):
    write_study(tmp_path, seeds=EIGHT, gain=1.0)
    whole = ask(tmp_path, "colour")
    change(run_of(tmp_path, "multi", 3) / "status.json", lambda status: status.update(state="diverged"))
    found = ask(tmp_path, "colour")
    assert found.sentence.startswith(
        "Diverged, and given the score of “gray” as declared: multi-task seed 3."
    )
    assert found.verdict == "inconclusive"
    assert found.multi == pytest.approx(whole.multi + (15.6 - 11.0) / 8, abs=0.05)


def test_a_missing_arm_is_named_with_its_command(tmp_path: Path):
    write_study(tmp_path, arms=("colour", "multi"))
    found = ask(tmp_path, "class")
    assert found.verdict == "missing"
    assert "single-task arm (“class”)" in found.sentence
    assert found.sentence.endswith("Make it with: knowhue study --preset demo --out runs/demo")
    assert ask(tmp_path, "colour").verdict == "none"


def test_the_command_no_longer_leaves_the_arm_out(tmp_path: Path):
    write_study(tmp_path, arms=("colour",))
    change(tmp_path / "study.json", lambda study: study.update(command="knowhue study --arms colour --out x"))
    assert ask(tmp_path, "colour").sentence.endswith("Make it with: knowhue study --out x")


def test_an_unbeaten_baseline_comes_first(tmp_path: Path):
    baselines = BASELINES | {"mean_colour": {"ab_l1": 11.9}, "majority_class": {"balanced_accuracy": 0.99}}
    write_study(tmp_path, baselines=baselines, gain=0.3)
    assert ask(tmp_path, "colour").sentence.startswith(
        "Not better than a trivial baseline: single-task; “mean colour” is off by 11.90 CIELAB units."
    )
    assert ask(tmp_path, "class").sentence.startswith(
        "Not better than a trivial baseline: single-task and multi-task; “majority class” is right for 99.0 %"
    )


def test_a_null_primary_score_is_left_out_by_name(tmp_path: Path):
    write_study(tmp_path)
    change(run_of(tmp_path, "multi") / "scores.json", lambda scores: scores["metrics"].update(ab_l1=None))
    assert "multi-task seed 0 (has no score)" in ask(tmp_path, "colour").sentence


def test_picture_interval_is_centred_on_the_difference_of_scores(one_seed: Path):
    study = read_study(one_seed)
    for question, column, metric in (("colour", "ab_l1", "ab_l1"), ("class", "correct", "balanced_accuracy")):
        single, multi = study.runs[question][0], study.runs["multi"][0]
        interval = picture_interval([(single, multi)], column)
        assert interval is not None
        expected = multi.scores["metrics"][metric] - single.scores["metrics"][metric]
        assert sum(interval) / 2 == pytest.approx(expected)


def test_picture_interval_covers_its_nominal_share():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(400):
        rows = rng.normal(0.1, 1, 60)
        single = _run([{"index": index, "ab_l1": 0.0} for index in range(60)])
        multi = _run([{"index": index, "ab_l1": float(value)} for index, value in enumerate(rows)])
        low, high = picture_interval([(single, multi)], "ab_l1") or (1, 0)
        hits += low <= 0.1 <= high
    assert 0.91 <= hits / 400 <= 0.98


def test_picture_interval_needs_every_score(one_seed: Path):
    multi = read_study(one_seed).runs["multi"][0]
    single = _run([{"index": row["index"], "ab_l1": None} for row in multi.images])
    assert picture_interval([(single, multi)], "ab_l1") is None


def test_unlabelled_pictures_do_not_take_the_interval_away(one_seed: Path):
    study = read_study(one_seed)
    extra = {"index": 999, "label": "", "correct": None}
    pair = [
        dataclasses.replace(run, images=(*run.images, extra))
        for run in (study.runs["class"][0], study.runs["multi"][0])
    ]
    whole = picture_interval([(study.runs["class"][0], study.runs["multi"][0])], "correct")
    assert picture_interval([(pair[0], pair[1])], "correct") == whole


def _run(images: list[dict]):
    from knowhue.report.records import Run

    return Run("colour", 0, "finished", images=tuple(images))
