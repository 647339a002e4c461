"""One word from numbers: planted effects of known size get the word they deserve, at the rate they should."""

import dataclasses

import numpy as np
import pytest

from knowhue.report.contrasts import contrast, primary, questions
from knowhue.report.records import Run, Study
from knowhue.report.verdicts import verdicts
from knowhue.statistics.multiplicity import holm
from knowhue.statistics.paired import sign_flip_p, t_interval

METRICS = {"ab_l1": {"better": "lower"}, "balanced_accuracy": {"better": "higher"}}
BASELINES = {"gray": {"ab_l1": 22.0}, "majority_class": {"balanced_accuracy": 0.2}}


def study(colour, class_, seeds=None, **settings):
    """A study whose paired differences are these, seed by seed."""
    runs = {
        "colour": {n: run("colour", n, ab_l1=12.0 + n) for n in range(len(colour))},
        "class": {n: run("class", n, balanced_accuracy=0.8 + n / 100) for n in range(len(class_))},
        "multi": {
            n: run("multi", n, ab_l1=12.0 + n + d, balanced_accuracy=0.8 + n / 100 + e)
            for n, (d, e) in enumerate(zip(colour, class_, strict=True))
        },
    }
    planned = list(range(len(colour) if seeds is None else seeds))
    return Study({"seeds": planned} | settings, runs, baselines=BASELINES, metrics=METRICS)


def run(arm, seed, **metrics):
    return Run(arm, seed, "finished", scores={"metrics": metrics})


def words(found):
    return {question: verdict.word for question, verdict in verdicts(found).items()}


def noise(n, spread, mean, seed=0):
    """Differences with exactly this mean and spread."""
    values = np.random.default_rng(seed).normal(size=n)
    return (mean + spread * (values - values.mean()) / values.std(ddof=1)).tolist()


def test_direction_follows_the_metric():
    assert words(study(noise(8, 0.1, -1.0), noise(8, 0.01, 0.1))) == {"colour": "helps", "class": "helps"}
    assert words(study(noise(8, 0.1, 1.0), noise(8, 0.01, -0.1))) == {"colour": "hurts", "class": "hurts"}


def test_effect_shown_to_be_smaller_than_matters_is_equivalent_even_if_it_is_not_zero():
    found = study(noise(10, 0.02, -0.1), noise(10, 0.001, 0.004))
    assert verdicts(found)["colour"].p_holm < 0.05
    assert words(found) == {"colour": "equivalent", "class": "equivalent"}


def test_spread_makes_it_inconclusive_with_a_number_of_seeds():
    verdict = verdicts(study(noise(8, 1.0, -0.2), noise(8, 0.05, 0.0)))
    assert [each.word for each in verdict.values()] == ["inconclusive", "inconclusive"]
    assert all(each.seeds_needed > 8 for each in verdict.values())


def test_seeds_needed_grow_with_the_spread():
    few, many = (verdicts(study(noise(8, s, 0.0), noise(8, 0.01, 0.0)))["colour"] for s in (0.3, 0.6))
    assert few.seeds_needed < many.seeds_needed
    assert 3.3 < many.seeds_needed / few.seeds_needed < 4.3  # the square of the spread


@pytest.mark.parametrize(("ended", "planned"), [(6, 6), (8, 9)])
def test_too_few_seeds_or_missing_runs_give_no_verdict(ended, planned):
    found = study(noise(ended, 0.1, -1.0), noise(ended, 0.01, 0.1), seeds=planned)
    assert set(words(found).values()) == {"none"}


def test_holm_is_over_both_questions():
    found = study(noise(7, 1.0, -0.9), noise(7, 0.03, 0.03))
    p = {question: sign_flip_p(primary(found, question).differences) for question in ("colour", "class")}
    assert {question: verdict.p_holm for question, verdict in verdicts(found).items()} == holm(p)


def test_alpha_is_the_plans():
    differences = noise(7, 0.6, -1.0)
    loose, strict = (study(differences, noise(7, 0.03, 0.0), alpha=a) for a in (0.2, 0.001))
    assert (words(loose)["colour"], words(strict)["colour"]) == ("helps", "inconclusive")


def test_margin_is_the_plans():
    frozen = {"colour": {"metric": "ab_l1", "single": "colour", "sesoi": 3.0, "if_diverged": "gray"}}
    assert words(study(noise(8, 0.1, -1.0), noise(8, 0.1, 0.0), questions=frozen)) == {"colour": "equivalent"}


def test_false_claims_stay_below_alpha():
    """Under no effect in either question, a word other than inconclusive or equivalent is a false claim."""
    rng = np.random.default_rng(5)
    claims = 0
    for _ in range(400):
        found = study((2 * rng.normal(size=8)).tolist(), (0.2 * rng.normal(size=8)).tolist())
        claims += bool({"helps", "hurts"} & set(words(found).values()))
    assert claims / 400 < 0.05 + 2 * (0.05 * 0.95 / 400) ** 0.5


def test_contrast_is_paired_by_seed_not_by_place():
    found = study([0.1] * 8, [0.0] * 8)
    runs = dict(found.runs) | {"multi": dict(reversed(list(found.runs["multi"].items())))}
    assert primary(dataclasses.replace(found, runs=runs), "colour").differences == pytest.approx([0.1] * 8)
    assert t_interval(primary(found, "colour").differences) == pytest.approx((0.1, 0.1))


def test_diverged_run_has_the_declared_score_and_only_in_its_question():
    found = study([0.0] * 8, [0.0] * 8)
    found.runs["multi"][2] = dataclasses.replace(found.runs["multi"][2], state="diverged")
    assert primary(found, "colour").scores[2].tolist() == [14.0, 22.0]
    assert primary(found, "class").scores[2].tolist() == pytest.approx([0.82, 0.2])
    assert [each.seed for each in primary(found, "colour").diverged] == [2]
    assert contrast(found, "psnr_rgb", "colour", "multi") is None


def test_worst_seed_and_wins_follow_the_direction():
    found = primary(study([-0.1, 0.3, -0.2, 0.0, -0.1, -0.1, -0.1], [0.0] * 7), "colour")
    assert found.worst_seed == 1
    assert (found.wins.count, found.wins.of) == (5, 7)
    assert found.hurt(0.25).count == 1


def test_questions_of_an_older_study_are_the_usual_ones():
    assert questions(Study({}, {}))["colour"].metric == "ab_l1"
