"""The answers say no more than the numbers support, also if that is nothing."""

import dataclasses
import html
import re
from pathlib import Path

import numpy as np
import pytest
from synthetic_study import (
    BASELINES,
    answer_of,
    change,
    results_of,
    run_of,
    scores_of,
    table_text,
    write_study,
)

from knowhue.report.contrasts import image_differences
from knowhue.report.differences import forest_rows, transfer_rows
from knowhue.report.findings import find
from knowhue.report.page import write_report
from knowhue.report.reading import read_study
from knowhue.report.study import Run, ScoreTable
from knowhue.statistics import MIN_SEEDS

EIGHT = tuple(range(8))


def ask(folder: Path, question: str):
    return answer_of(read_study(folder), question)


@pytest.mark.parametrize("question", ["colour", "class"])
def test_one_seed_gives_numbers_but_no_verdict(one_seed: Path, question: str):
    found = ask(one_seed, question)
    assert found.verdict == "no verdict"
    assert found.sentence.startswith("No verdict yet: with 1 seed (a claim needs at least 8")
    assert "The 97.5 % interval over images is" in found.sentence
    assert "not for the method" in found.sentence
    assert "helps" not in found.sentence


def test_seven_seeds_are_too_few(tmp_path: Path):
    write_study(tmp_path, seeds=tuple(range(MIN_SEEDS - 1)), gain=1.0)
    found = ask(tmp_path, "colour")
    assert found.verdict == "no verdict"
    assert "97.5 % interval over seeds and images" in found.sentence


def test_planted_help_is_found(eight_seeds: Path):
    colour, class_ = (ask(eight_seeds, question) for question in ("colour", "class"))
    assert colour.sentence.startswith("Multi-task training helps colouring, by what matters: over 8 seeds")
    assert class_.sentence.startswith("Multi-task training helps classification")
    assert "CIELAB units less" in colour.sentence
    assert "points more" in class_.sentence
    assert "Exact sign-flip p = .008, against 0.025 (alpha shared out among 2 questions)." in colour.sentence
    assert "The 97.5 % interval over seeds and images is" in colour.detail
    assert colour.evidence.startswith("At 95 % it is −0.5")


def test_planted_harm_is_worded_as_help_is(tmp_path: Path):
    write_study(tmp_path, seeds=EIGHT, gain=-0.5)
    found = ask(tmp_path, "colour")
    assert found.verdict == "hurts, by what matters"
    assert found.sentence.startswith("Multi-task training hurts colouring, by what matters: over 8 seeds")
    assert "more" in found.sentence
    assert "points fewer" in ask(tmp_path, "class").sentence


def test_no_effect_is_inconclusive_with_a_range_of_seeds(tmp_path: Path):
    write_study(tmp_path, seeds=EIGHT, gain=0.0, noise=0.5)
    headline = ask(tmp_path, "colour").headline
    assert re.fullmatch(
        r"Inconclusive \(a new study would need about \d+ \(\d+ to \d+\) seeds\)", headline
    ), headline


def test_where_images_decide_more_of_them_are_asked_for(tmp_path: Path):
    write_study(tmp_path, seeds=EIGHT, gain=0.1, noise=0.001)
    for seed in EIGHT:
        _spread_images(run_of(tmp_path, "multi", seed), 3.0)
    found = ask(tmp_path, "colour")
    assert found.headline == "Inconclusive (more images, not more seeds, would tell)"


def test_an_effect_shown_to_be_small_is_called_no_difference_or_less_than_what_matters(tmp_path: Path):
    write_study(tmp_path / "none", seeds=EIGHT, gain=0.0, noise=0.05)
    found = ask(tmp_path / "none", "colour")
    assert found.verdict == "equivalent"
    assert found.sentence.startswith("Multi-task training makes no difference that matters to colouring")
    assert "The 95 % interval over seeds and images is" in found.detail
    assert "smallest effect of interest 0.25 CIELAB units" in found.sentence
    write_study(tmp_path / "small", seeds=EIGHT, gain=0.12, noise=0.01)
    small = ask(tmp_path / "small", "colour")
    assert small.headline == "Multi-task training helps colouring, by less than what matters"


def test_headline_figures_and_tables_quote_one_interval_with_its_level(eight_seeds: Path):
    study = read_study(eight_seeds)
    found = answer_of(study, "colour")
    low, high = find(study).verdicts["colour"].quoted.interval
    text = f"{low:+.2f} to {high:+.2f}".replace("-", "−")
    assert f"The 97.5 % interval over seeds and images is {text} CIELAB units." in found.detail
    (row,) = (row for row in scores_of(study, "colour").values() if row["role"] == "primary")
    assert row["Interval"] == f"{text} (97.5 %)"
    assert table_text(study, "equal_images")[1][5] == f"{text} (97.5 %)"
    mean = next(row for row in transfer_rows(study) if row["seed"] == "mean")
    assert (mean["low"], mean["high"], mean["level"], mean["over"]) == (low, high, 0.975, "seeds and images")
    drawn = forest_rows(study)[0]
    assert (drawn["low"], drawn["high"], drawn["level"]) == (low, high, 0.975)
    quoted = results_of(study)["tests"]["colour"]["quoted"]
    assert (tuple(quoted["interval"]), quoted["level"]) == ((low, high), 0.975)


@pytest.mark.parametrize(("gain", "seeds"), [(0.5, 8), (0.0, 8), (-0.5, 8), (0.1, 8), (0.5, 3)])
def test_without_scores_of_single_images_every_sentence_is_about_these_alone(
    tmp_path: Path, gain: float, seeds: int
):
    write_study(tmp_path, seeds=tuple(range(seeds)), gain=gain, noise=0.05)
    for path in tmp_path.rglob("per_image.csv"):
        path.unlink()
    for question in ("colour", "class"):
        found = ask(tmp_path, question)
        assert "on these validation images" in found.headline.lower()
        assert "on these 150 validation images" in found.detail
        assert "Multi-task training" not in found.sentence
        assert "method" not in found.sentence
        assert "over seeds and images" not in found.sentence


def test_no_difference_is_said_to_be_fewer_or_minus_nothing(tmp_path: Path):
    write_study(tmp_path, seeds=EIGHT, gain=0.0, noise=0.0)
    for question in ("colour", "class"):
        sentence = ask(tmp_path, question).sentence
        assert "the same to the last digit shown" in sentence
        assert not re.search(
            r"\b0\.0+ (CIELAB units |points )?(less|more|fewer)|[−+-]0\.0+(?!\d)", sentence
        ), sentence


def test_the_smallest_effect_is_a_share_of_what_could_be_gained(eight_seeds: Path):
    evidence = ask(eight_seeds, "colour").evidence
    assert (
        "The smallest effect of interest is 8 % of what single-task gains over “mean colour” (3.11 CIELAB"
        in evidence
    )


def test_an_oracle_that_gains_no_more_than_what_matters_is_said_beside_equivalence(tmp_path: Path):
    write_study(tmp_path, seeds=EIGHT, gain=0.0, noise=0.05)
    study = read_study(tmp_path)
    runs = {**study.runs, "oracle": study.runs["multi"]}
    found = answer_of(dataclasses.replace(study, runs=runs), "colour")
    assert found.verdict == "equivalent"
    assert "Even the arm that is given the true class is no better than single-task (−0.0" in found.evidence


def test_an_unfinished_seed_forbids_a_verdict(tmp_path: Path):
    write_study(tmp_path, seeds=EIGHT, gain=1.0)
    change(run_of(tmp_path, "multi", 3) / "status.json", lambda status: status.update(state="running"))
    found = ask(tmp_path, "colour")
    assert found.verdict == "no verdict"
    assert ask(tmp_path, "class").verdict == "no verdict"
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
    assert "on these validation images" in found.headline
    assert found.found.levels[1] == pytest.approx(whole.found.levels[1] + (15.6 - 11.0) / 8, abs=0.05)


def test_an_arm_without_a_finished_run_is_named_with_its_command(tmp_path: Path):
    write_study(tmp_path)
    change(run_of(tmp_path, "class") / "status.json", lambda status: status.update(state="running"))
    found = ask(tmp_path, "class")
    assert found.verdict == "missing"
    assert "single-task arm (“class”)" in found.sentence
    assert found.sentence.endswith("Make it with `knowhue study --preset demo --out runs/demo`.")
    assert ask(tmp_path, "colour").verdict == "no verdict"


def test_the_command_no_longer_leaves_the_arm_out(tmp_path: Path):
    write_study(tmp_path)
    change(run_of(tmp_path, "multi") / "status.json", lambda status: status.update(state="running"))
    change(tmp_path / "study.json", lambda study: study.update(command="knowhue study --arms colour --out x"))
    assert ask(tmp_path, "colour").sentence.endswith("Make it with `knowhue study --out x`.")


def test_only_what_is_asked_is_answered(tmp_path: Path):
    write_study(tmp_path, arms=("colour", "multi"), seeds=EIGHT, gain=0.5)
    results = results_of(read_study(tmp_path))
    assert list(results["answers"]) == ["colour"]
    assert results["tests"]["colour"]["alpha"] == 0.05
    assert "95 % interval over seeds and images" in results["answers"]["colour"]


def test_an_unbeaten_baseline_comes_first(tmp_path: Path):
    baselines = BASELINES | {"mean_colour": {"ab_l1": 11.9}, "majority_class": {"balanced_accuracy": 0.99}}
    write_study(tmp_path, baselines=baselines, gain=0.3)
    assert ask(tmp_path, "colour").sentence.startswith(
        "Not better than a trivial baseline: single-task (“mean colour” 11.90 CIELAB units)."
    )
    assert ask(tmp_path, "class").sentence.startswith(
        "Not better than a trivial baseline: single-task and multi-task (“majority class” 99.0 %)."
    )


def test_several_unbeaten_baselines_are_one_sentence(tmp_path: Path):
    write_study(tmp_path, baselines={"gray": {"ab_l1": 10.0}, "mean_colour": {"ab_l1": 9.0}})
    sentence = ask(tmp_path, "colour").sentence
    assert sentence.count("Not better than") == 1
    assert "(“gray” 10.00, “mean colour” 9.00 CIELAB units)" in sentence


def test_a_null_primary_score_is_left_out_by_name(tmp_path: Path):
    write_study(tmp_path)
    change(run_of(tmp_path, "multi") / "scores.json", lambda scores: scores["metrics"].update(ab_l1=None))
    assert "multi-task seed 0 (has no score)" in ask(tmp_path, "colour").sentence


def test_the_interval_over_images_is_centred_on_the_difference_of_scores(one_seed: Path):
    study = read_study(one_seed)
    for question, metric in (("colour", "ab_l1"), ("class", "balanced_accuracy")):
        single, multi = study.runs[question][0], study.runs["multi"][0]
        low, high = of_pair(single, multi, metric).over_images(0.95)
        expected = multi.scores["metrics"][metric] - single.scores["metrics"][metric]
        assert (low + high) / 2 == pytest.approx(expected)


def test_the_interval_over_images_covers_its_nominal_share():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(400):
        rows = rng.normal(0.1, 1, 60)
        single = _run([{"index": index, "ab_l1": 0.0} for index in range(60)])
        multi = _run([{"index": index, "ab_l1": float(value)} for index, value in enumerate(rows)])
        low, high = of_pair(single, multi, "ab_l1").over_images(0.95)
        hits += low <= 0.1 <= high
    assert 0.91 <= hits / 400 <= 0.98


def test_an_interval_over_images_needs_every_score_and_enough_images(one_seed: Path):
    multi = read_study(one_seed).runs["multi"][0]
    single = _run([{"index": row["index"], "ab_l1": None} for row in multi.images])
    assert of_pair(single, multi, "ab_l1") is None
    few = _run([{"index": index, "label": "a", "correct": 1.0} for index in range(15)])
    same = of_pair(few, few, "balanced_accuracy")
    assert same.over_images(0.95) is None
    assert same.too_few.startswith("too few images for an interval (15")


def test_classifiers_that_agree_on_every_image_have_an_interval_with_a_width():
    agreed = _run([{"index": index, "label": "ab"[index % 2], "correct": 1.0} for index in range(60)])
    low, high = of_pair(agreed, agreed, "balanced_accuracy").over_images(0.95)
    assert low < -0.02 < 0.02 < high


def test_unlabelled_images_do_not_take_the_interval_away(one_seed: Path):
    study = read_study(one_seed)
    extra = {"index": 999, "label": "", "correct": None}
    pair = [
        dataclasses.replace(run, images=(*run.images, extra))
        for run in (study.runs["class"][0], study.runs["multi"][0])
    ]
    whole = of_pair(study.runs["class"][0], study.runs["multi"][0], "balanced_accuracy")
    assert of_pair(*pair, "balanced_accuracy").over_images(0.95) == whole.over_images(0.95)


def of_pair(single: Run, multi: Run, metric: str):
    """Differences of single images of one seed, from the tidy table."""
    rows = [
        row._replace(arm=arm)
        for arm, run in (("before", single), ("after", multi))
        for row in run.image_scores()
    ]
    return image_differences(ScoreTable(rows, {}), metric, ("before", "after"), [0])


def _run(images: list[dict]):
    return Run("colour", 0, "finished", images=tuple(images))


def _spread_images(run: Path, by: float) -> None:
    """Move the scores of single images of a run apart, the same way in every seed, the mean kept."""
    lines = (run / "per_image.csv").read_text(encoding="utf-8").splitlines()
    place = lines[0].split(",").index("ab_l1")
    rows = [line.split(",") for line in lines[1:]]
    for number, row in enumerate(rows):
        row[place] = str(float(row[place]) + by * (-1) ** number)
    (run / "per_image.csv").write_text("\n".join([lines[0], *map(",".join, rows)]), encoding="utf-8")


def test_a_bound_that_excludes_zero_is_never_rounded_to_it(tmp_path: Path):
    write_study(tmp_path, seeds=EIGHT, gain=-0.003, noise=0.0002)
    for path in tmp_path.rglob("per_image.csv"):
        path.unlink()
    study = read_study(tmp_path)
    found = answer_of(study, "colour")
    assert found.verdict == "hurts, by less than what matters"
    assert "The 95 % interval over seeds is +0.003 to +0.003 CIELAB units" in found.detail
    assert "0.003 CIELAB units more" in found.detail
    assert "At 97.5 % it is +0.003 to +0.003 CIELAB units" in found.evidence
    assert "+0.00 " not in found.sentence
    (row,) = (row for row in scores_of(study, "colour").values() if row["role"] == "primary")
    assert (row["Difference"], row["Interval"]) == ("+0.003", "+0.003 to +0.003 (95 %†)")
    assert table_text(study, "equal_images")[1][4:6] == ["+0.003", "+0.003 to +0.003 (95 %†)"]


@pytest.mark.usefixtures("without_figures")
def test_a_model_that_learnt_less_than_what_matters_is_told_to_train_longer_before_the_verdict(
    tmp_path: Path,
):
    write_study(tmp_path, seeds=EIGHT, baselines=BASELINES | {"median_colour": {"ab_l1": 12.04}}, noise=0.0)
    found = ask(tmp_path, "colour")
    said = (
        "The single-task model gains only 0.04 CIELAB units over median colour, less than the smallest effect of "
        "interest (0.25 CIELAB units): train longer before reading this."
    )
    assert found.sentence.startswith(f"{said} {found.headline}")
    assert "train longer" not in ask(tmp_path, "class").sentence
    page = html.unescape(write_report(tmp_path).read_text(encoding="utf-8"))
    assert page.index(said) < page.index(f">{found.headline}<")


def test_levels_images_effect_and_ties_are_explained_where_they_stand(tmp_path: Path):
    write_study(tmp_path, seeds=EIGHT, gain=0.0, noise=0.0)
    for seed in EIGHT:
        for arm in ("multi", "colour"):
            value = 11.9 if (arm, seed) == ("multi", 3) else 12.0
            change(
                run_of(tmp_path, arm, seed) / "scores.json",
                lambda each, v=value: each["metrics"].update(ab_l1=v),
            )
    study = read_study(tmp_path)
    found = answer_of(study, "colour")
    assert "better in 1 of 8 seeds, tied in 7 " in found.evidence
    assert (
        "(97.5 % decides whether there is a difference, 95 % whether it is less than what matters)"
        in found.evidence
    )
    assert (
        "Effect size d_z (mean difference over its standard deviation between seeds, corrected after Hedges) −0."
        in found.evidence
    )
    assert ", on the 150 validation images, the multi-task model" in found.detail
    worst, best = table_text(study, "seeds")[1][6:]
    assert (worst, best) == ("0.00 (seed 0, tied with 6 more)", "−0.10 (seed 3)")
