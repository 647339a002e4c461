"""All questions of a study are judged together, from its runs to the verdicts."""

import dataclasses

import numpy as np
import pytest

from knowhue.plan import QUESTIONS
from knowhue.report.answers import answers, headroom_sentences
from knowhue.report.contrasts import Bounds, contrast, primary
from knowhue.report.findings import ORACLE, Headroom, find, verdicts
from knowhue.report.integrity import warnings
from knowhue.report.study import Run, Study
from knowhue.report.text import measure
from knowhue.statistics import FEWEST_IMAGES
from knowhue.statistics.crossed import crossed
from knowhue.statistics.paired import sign_flip_p, t_interval
from knowhue.statistics.verdicts import Word

METRICS = {"ab_l1": {"better": "lower"}, "balanced_accuracy": {"better": "higher", "unit": "share"}}
BASELINES = {"gray": {"ab_l1": 22.0}, "majority_class": {"balanced_accuracy": 0.2}}


def study(colour, class_, seeds=None, images=None, levels=(12.0, 0.5), **settings):
    """A study whose paired differences are these, seed by seed; `images` (seeds, m) adds scores of single images."""
    error, right = levels
    runs = {
        "colour": {n: run("colour", n, ab_l1=error + n) for n in range(len(colour))},
        "class": {n: run("class", n, balanced_accuracy=right + n / 100) for n in range(len(class_))},
        "multi": {n: run("multi", n) for n in range(max(len(colour), len(class_)))},
    }
    for n, d in enumerate(colour):
        runs["multi"][n].scores["metrics"]["ab_l1"] = error + n + d
    for n, d in enumerate(class_):
        runs["multi"][n].scores["metrics"]["balanced_accuracy"] = right + n / 100 + d
    planned = list(range(len(colour) if seeds is None else seeds))
    if images is not None:
        _put_images(runs, images)
    return Study({"seeds": planned} | settings, runs, baselines=BASELINES, metrics=METRICS)


def _put_images(runs, images):
    for n, row in enumerate(images):
        for arm, extra in (("colour", np.zeros(len(row))), ("multi", row)):
            rows = tuple(
                {"index": i, "label": "a", "ab_l1": 12.0 + n + d} for i, d in enumerate(extra.tolist())
            )
            runs[arm][n] = dataclasses.replace(runs[arm][n], images=rows)


def run(arm, seed, **metrics):
    return Run(arm, seed, "finished", scores={"metrics": metrics})


def words(found):
    return {question: each.word for question, each in verdicts(found).items()}


def noise(n, spread, mean, seed=0):
    """Differences with exactly this mean and spread."""
    values = np.random.default_rng(seed).normal(size=n)
    return (mean + spread * (values - values.mean()) / values.std(ddof=1)).tolist()


def test_direction_follows_the_metric():
    helps, hurts = (study(noise(8, 0.1, -sign), noise(8, 0.01, sign / 10)) for sign in (1.0, -1.0))
    assert set(words(helps).values()) == {Word.HELPS}
    assert set(words(hurts).values()) == {Word.HURTS}


def test_an_effect_shown_to_be_smaller_than_matters_helps_by_less_than_what_matters():
    found = study(noise(10, 0.02, -0.1), noise(10, 0.001, -0.004))
    assert words(found) == {"colour": Word.HELPS_LITTLE, "class": Word.HURTS_LITTLE}


def test_seeds_needed_grow_with_the_spread_and_have_a_range():
    few, many = (verdicts(study(noise(8, s, 0.0), noise(8, 0.01, 0.0)))["colour"] for s in (0.3, 0.6))
    assert few.word == many.word == Word.INCONCLUSIVE
    assert 3.3 < many.needed.seeds / few.needed.seeds < 4.3  # the square of the spread
    assert few.needed.low < few.needed.seeds < few.needed.high


@pytest.mark.parametrize(("ended", "planned"), [(7, 7), (8, 9)])
def test_too_few_seeds_or_missing_runs_give_no_verdict(ended, planned):
    found = study(noise(ended, 0.1, -1.0), noise(ended, 0.01, 0.1), seeds=planned)
    assert set(words(found).values()) == {Word.NO_VERDICT}


@pytest.mark.parametrize("ended", [0, 5])
def test_no_question_is_answered_while_another_has_runs_to_come(ended):
    """Else one is judged at a level that the other takes away again."""
    found = study(noise(8, 0.1, -1.0), noise(ended, 0.01, 0.1) if ended else [])
    assert words(found) == {"colour": Word.NO_VERDICT, "class": Word.NO_VERDICT}
    assert words(study(noise(8, 0.1, -1.0), noise(8, 0.01, 0.1)))["colour"] == Word.HELPS


def test_alpha_is_the_plans_and_shared_among_the_asked_questions():
    colour, class_ = (Study({}, {}).questions[name].model_dump() for name in ("colour", "class"))
    both, one = {"colour": colour, "class": class_}, {"colour": colour}
    differences = noise(8, 0.6, -0.6)
    assert 0.025 < sign_flip_p(differences) < 0.05
    second = noise(8, 0.03, 0.0)
    assert words(study(differences, second, questions=both))["colour"] == Word.INCONCLUSIVE
    assert words(study(differences, second, questions=one)) == {"colour": Word.HELPS_UNKNOWN_SIZE}
    assert words(study(differences, second, questions=both, alpha=0.1))["colour"] == Word.HELPS_UNKNOWN_SIZE
    assert words(study(noise(10, 0.1, -1.0), noise(10, 0.01, 0.1), alpha=0.001))["colour"] == Word.NO_VERDICT
    assert Study({"questions": both, "alpha": 0.03}, {}).alpha == 0.015


def test_margin_is_the_plans():
    frozen = {"colour": Study({}, {}).questions["colour"].model_dump() | {"sesoi": 3.0}}
    assert words(study(noise(8, 0.1, -1.0), noise(8, 0.1, 0.0), questions=frozen)) == {
        "colour": Word.HELPS_LITTLE
    }


def test_what_is_judged_is_the_interval_over_seeds_and_images():
    """Ten seeds agree on these images, which say little about others: by the seeds alone it was equivalent."""
    d = 0.05 + 0.02 * np.random.default_rng(0).normal(size=(10, 1)) + np.linspace(-4, 4, 60)
    alone, both = (
        verdicts(study(d.mean(axis=1).tolist(), [0.1] * 10, images=images))["colour"] for images in (None, d)
    )
    assert (alone.word, alone.quoted.over) == (Word.HURTS_LITTLE, "seeds")
    assert (both.word, both.quoted.over, both.more_images) == (Word.INCONCLUSIVE, "seeds and images", True)
    assert both.quoted.interval == pytest.approx(crossed(d).interval(0.975))
    assert both.inner.interval == pytest.approx(crossed(d).interval(0.95))


def test_no_interval_is_given_of_too_few_images():
    d = np.random.default_rng(1).normal(size=(10, FEWEST_IMAGES - 1))
    found = verdicts(study(d.mean(axis=1).tolist(), [0.1] * 10, images=d))["colour"]
    assert found.word == Word.INCONCLUSIVE
    assert found.quoted.interval is None
    assert found.quoted.why_not == "too few images for an interval (19; 20 are needed)"


@pytest.mark.parametrize(
    ("question", "differences"), [("class", [0.9, -0.6]), ("colour", [12.0, -8.0]), ("class", [1.0, 0.2])]
)
def test_no_interval_reaches_beyond_what_the_metric_can_be(question, differences):
    found = study(
        differences if question == "colour" else [0.0] * 2, differences if question == "class" else [0.0] * 2
    )
    bounds = primary(found, question).bounds(0.95)
    assert t_interval(differences)[1] - t_interval(differences)[0] > 2
    assert bounds.interval is None
    assert "beyond what is possible" in bounds.why_not


def test_at_the_ceiling_and_at_the_floor_nothing_can_be_told():
    perfect = study(noise(8, 0.02, 0.0), [0.0] * 8, levels=(0.1, 0.995))
    for n in range(8):
        for arm in ("class", "multi"):
            perfect.runs[arm][n].scores["metrics"]["balanced_accuracy"] = 0.995 + n / 4000
        perfect.runs["colour"][n].scores["metrics"]["ab_l1"] = perfect.runs["multi"][n].scores["metrics"][
            "ab_l1"
        ] = 0.1
    assert {name: (each.word, each.limit) for name, each in verdicts(perfect).items()} == {
        "colour": (Word.CANNOT_TELL, "ceiling"),
        "class": (Word.CANNOT_TELL, "ceiling"),
    }
    blind = study(noise(8, 0.1, -1.0), noise(8, 0.01, 0.02), levels=(30.0, 0.1))
    assert {each.limit for each in verdicts(blind).values()} == {"floor"}
    one_sees = study(noise(8, 0.1, -1.0), noise(8, 0.01, 0.2), levels=(30.0, 0.1))
    assert verdicts(one_sees)["class"].word == Word.HELPS


def test_headroom_that_is_what_matters_but_for_rounding_is_not_below_it():
    for gain, below in ((0.06 - 0.05, False), (0.0099, True)):
        row = Headroom(ORACLE, gain, 0.01 / gain, Bounds((0.0, gain), 0.9, "seeds"))
        (said,) = headroom_sentences([row], measure({}, QUESTIONS["colour"]), 0.01, Word.EQUIVALENT)
        assert ("the label could hardly have helped by more" in said) is below


def test_claims_without_effect_stay_below_alpha_end_to_end():
    """Every study has new random seeds and images, simulated as scores of single images."""
    rng, claims, count = np.random.default_rng(5), 0, 250
    for _ in range(count):
        d = 0.05 * rng.normal(size=(8, 1)) + rng.normal(size=40) + 0.3 * rng.normal(size=(8, 40))
        found = verdicts(study(d.mean(axis=1).tolist(), (0.2 * rng.normal(size=8)).tolist(), images=d))
        claims += any(each.word.direction for each in found.values())
    assert claims / count < 0.05 + 3.5 * (0.05 * 0.95 / count) ** 0.5


def test_contrast_is_paired_by_seed_not_by_place():
    found = study([0.1] * 8, [0.0] * 8)
    runs = dict(found.runs) | {"multi": dict(reversed(list(found.runs["multi"].items())))}
    assert primary(dataclasses.replace(found, runs=runs), "colour").differences == pytest.approx([0.1] * 8)
    assert t_interval(primary(found, "colour").differences) == pytest.approx((0.1, 0.1))


def test_diverged_run_has_the_declared_score_and_only_in_its_question():
    found = study([0.0] * 8, [0.0] * 8)
    found.runs["multi"][2] = dataclasses.replace(found.runs["multi"][2], state="diverged")
    assert primary(found, "colour").scores[2].tolist() == [14.0, 22.0]
    assert primary(found, "class").scores[2].tolist() == pytest.approx([0.52, 0.2])
    assert primary(found, "colour").diverged == (("multi", 2),)
    assert contrast(found.table, "psnr_rgb", "colour", "multi") is None


def test_worst_seed_and_wins_follow_the_direction():
    found = primary(study([-0.1, 0.3, -0.2, 0.0, -0.1, -0.1, -0.1], [0.0] * 7), "colour")
    assert found.seeds[found.gains.argmin()] == 1
    assert (found.wins.count, found.wins.of) == (5, 7)
    assert found.hurt(0.25).count == 1


@pytest.mark.parametrize("level", [0.6, 0.3])
def test_a_question_about_recognition_has_its_floor_and_declared_score_where_networks_said_them(level):
    kept = {"recognition": {"lite0": {"accuracy": 0.35}}}
    asked = {"metric": "recognition", "single": "colour", "sesoi": 0.01, "if_diverged": "gray"}
    runs = {
        arm: {
            n: dataclasses.replace(
                run(arm, n), scores={"metrics": {}, "recognition": {"lite0": {"accuracy": level + gain}}}
            )
            for n in range(8)
        }
        for arm, gain in (("colour", 0.0), ("multi", 0.01))
    }
    runs["multi"][3] = dataclasses.replace(run("multi", 3), state="diverged")
    data = Study(
        {"seeds": list(range(8)), "questions": {"colour": asked}},
        runs,
        baselines={"gray": kept},
        metrics={"recognition": {"better": "higher", "unit": "share", "task": "colour"}},
    )
    found = primary(data, "colour")
    assert found is not None
    assert found.scores[3].tolist() == [level, 0.35]
    said = answers(find(data))["colour"].sentence
    assert ("Not better than a trivial baseline: single-task and multi-task (“gray” 35.0" in said) == (
        level < 0.35
    )
    assert any("gray 35.0" in text for _, text in warnings(data)) == (level < 0.35)
