"""The report names its splits, and a tuning study gives no verdict."""

from dataclasses import replace

import pytest
from synthetic_study import answer_of

from knowhue.report.findings import verdicts
from knowhue.report.integrity import image_sentences
from knowhue.report.reading import read_study
from knowhue.statistics.verdicts import Word


@pytest.fixture
def study(eight_seeds):
    return read_study(eight_seeds)


def with_settings(study, **changes):
    return replace(study, settings={**study.settings, **changes})


def test_tuning_study_gives_no_verdict_where_the_same_numbers_would_give_one(study):
    assert verdicts(study)["class"].word != Word.NO_VERDICT
    tuning = with_settings(study, purpose="tuning")
    assert {each.word for each in verdicts(tuning).values()} == {Word.NO_VERDICT}
    for question in tuning.questions:
        sentence = answer_of(tuning, question).sentence
        assert "No verdict from a tuning study: over 8 seeds" in sentence
        assert "a claim needs at least" not in sentence


@pytest.mark.parametrize(
    ("supervision", "said"),
    [
        ({}, "All seeds train on the same images: intervals do not cover the choice"),
        (
            {"image_share": 0.4},
            "All seeds train on the same 40 % of the training images: intervals do not cover",
        ),
        (
            {"image_share": 0.125, "resample": True},
            "Each seed trains on 12.5 % of the training images, drawn anew",
        ),
    ],
)
def test_report_says_which_images_were_trained_on(study, supervision, said):
    config = {**study.settings.get("config", {}), "supervision": supervision}
    assert said in image_sentences(with_settings(study, config=config))[-1]


def test_report_says_what_was_tuned_and_on_which_split_it_reports(study):
    said = " ".join(image_sentences(with_settings(study, tuned_on_seeds=[0, 1])))
    assert "samples are of the validation split" in said
    assert "Settings were tuned on seeds 0, 1" in said


FOUND = {"study": "0a1b2c3d4e5f6789", "seeds": [0, 1], "test_images_seen": 0, "near_duplicate_bits": 8}


def test_that_tuning_saw_no_test_image_is_said_only_where_it_was_checked(study):
    unchecked, checked = (
        " ".join(image_sentences(with_settings(study, tuned_on_seeds=[0, 1], tuned_on=found)))
        for found in (None, FOUND)
    )
    assert "seeds differ; whether the test images were seen was not checked" in unchecked
    assert "on none of the test images" not in unchecked
    assert "on none of the test images, nor on a near-duplicate of one: they were compared" in checked
    assert "the study 0a1b2c3d4e5f." in checked
    assert "not checked" not in checked


def test_report_says_that_baselines_know_all_training_images_where_models_do_not(study):
    config = {**study.settings.get("config", {}), "supervision": {"image_share": 0.4}}
    said = "the majority class are taken from all training images"
    assert said in image_sentences(with_settings(study, config=config))[-1]
    assert said not in image_sentences(study)[-1]


def test_report_says_what_runs_started_from(study):
    start = {"model": "built-in", "sha256": "0123456789abcdef", "new_classes": 1}
    taken = {
        "colour": start | {"colour": True, "new_classes": 0},
        "class": start | {"classes": ["shark"]},
        "multi": start | {"colour": True, "classes": ["shark"]},
    }
    assert "Started from" not in " ".join(image_sentences(study))

    def put(run, is_started):
        return replace(run, environment={**run.environment, "start": taken[run.arm] if is_started else None})

    def with_starts(arms):
        runs = {
            arm: {seed: put(run, arm in arms) for seed, run in own.items()} for arm, own in study.runs.items()
        }
        return image_sentences(replace(study, runs=runs))[-1]

    said = with_starts(taken)
    assert said.startswith(
        "Started from `built-in` (SHA-256 0123456789ab): its encoder, its colour head and, of its class head, shark; "
        "1 class is new. All else began with weights drawn from each seed"
    )
    assert "did not" not in said
    assert with_starts(["multi", "colour"]).endswith("Arms that did not: class.")
