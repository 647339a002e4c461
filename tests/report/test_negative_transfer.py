"""Harm to seeds, classes and images is counted correctly, also at equal training loss."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_study import CLASSES, METRICS, change, run_of, table_text, write_study

from knowhue.config import TRAIN_LOSSES
from knowhue.report.conditions import (
    class_transfer,
    equal_train_loss,
    image_flips,
    paired_table,
    seed_transfer,
)
from knowhue.report.contrasts import primary
from knowhue.report.reading import read_study
from knowhue.report.study import Run, Study

LABELS = ("coral", "coral", "coral", "slug")


def run(arm: str, seed: int = 0, **more: Any) -> Run:
    return Run(arm, seed, "finished", **more)


def study(*runs: Run, classes: tuple[str, ...] = ("coral", "slug")) -> Study:
    arms = dict.fromkeys(each.arm for each in runs)
    table = {arm: {each.seed: each for each in runs if each.arm == arm} for arm in arms}
    return Study({}, table, {"classes": list(classes)}, metrics=METRICS)


def scored(arm: str, seed: int, name: str, value: Any) -> Run:
    return run(arm, seed, scores={"metrics": {name: value}})


def shares(row: dict[str, Any]) -> tuple[float, float, float]:
    return row["right_to_wrong"], row["wrong_to_right"], row["net"]


def judged(arm: str, seed: int, correct: str, labels: tuple[str, ...] = LABELS, first: int = 0) -> Run:
    """A run that is right (1), wrong (0) or silent (-) on images, listed last to first."""
    known = {"1": 1.0, "0": 0.0, "-": None}
    rows = [{"index": first + i, "label": label, "correct": known[mark]}
            for i, (label, mark) in enumerate(zip(labels, correct, strict=True))]  # fmt: skip
    return run(arm, seed, images=tuple(reversed(rows) if arm == "multi" else rows))


def tuned(arm: str, losses: list[Any], scores: list[Any], seed: int = 0) -> Run:
    heads = {"phase": "heads", "train": {"l1": 0.05}, "validation": {"ab_l1": 99.0}}
    pairs = zip(losses, scores, strict=True)
    log = [{"phase": "finetune", "train": {"l1": a}, "validation": {"ab_l1": b}} for a, b in pairs]
    return run(arm, seed, log=(heads, *log))


def per_class(arm: str, seed: int, name: str, *values: Any) -> Run:
    """Scores of 30 images per class, equal except for the mean of the class."""
    column = "correct" if name == "accuracy" else name
    images = tuple(
        {
            "index": 30 * place + n,
            "label": label,
            column: None if value is None else value + (n % 2 - 0.5) / 9,
        }
        for place, (label, value) in enumerate(zip(("coral", "slug"), values, strict=True))
        for n in range(30)
    )
    return run(
        arm,
        seed,
        images=images,
        scores={"per_class": {c: {name: v} for c, v in zip(("coral", "slug"), values, strict=True)}},
    )


def test_seeds_worse_by_more_than_the_margin_are_counted():
    gaps = (0.3, 0.2, -0.4, 0.9)
    data = study(*(scored(arm, seed, "ab_l1", 10 + gap * (arm == "multi"))
                   for seed, gap in enumerate(gaps) for arm in ("colour", "multi")))  # fmt: skip
    (row,) = seed_transfer(data)
    assert row["hurt"][:3] == (2, 4, 0.5)
    assert row["hurt"].interval == pytest.approx((0.15, 0.85), abs=0.001)  # Wilson
    assert (row["worst"][1], row["best"][1]) == (3, 2)
    assert (row["worst"][0], row["best"][0]) == pytest.approx((0.9, -0.4))
    assert table_text(data, "seeds")[1][3:] == [
        "2 of 4",
        "50.0",
        "15.0 to 85.0",
        "+0.90 (seed 3)",
        "−0.40 (seed 2)",
    ]
    assert table_text(data, "seeds")[2][3:] == ["–"] * 5


def test_seeds_that_touch_the_margin_are_not_beyond_it_and_equal_ones_tie_however_they_are_rounded():
    pairs = ((0.84, 0.83), (0.98, 0.97), (0.57, 0.56), ((0.6 + 0.64 + 0.94) / 3, (0.6 + 0.94 + 0.64) / 3))
    assert pairs[3][0] != pairs[3][1]
    data = study(*(scored(arm, seed, "balanced_accuracy", pair[arm == "multi"])
                   for seed, pair in enumerate(pairs) for arm in ("class", "multi")))  # fmt: skip
    (row,) = seed_transfer(data)
    assert row["hurt"][:2] == (0, 4)
    assert (row["worst"], row["best"]) == ((-0.01, 0, 2), (0.0, 3, 0))
    found = primary(data, "class")
    assert found is not None
    assert (found.wins.count, found.ties) == (0, 1)


def test_worst_and_best_follow_the_direction_of_the_metric():
    data = study(*(scored("class", s, "balanced_accuracy", 0.5) for s in (0, 1)),
                 *(scored("multi", s, "balanced_accuracy", 0.4 + 0.2 * s) for s in (0, 1)))  # fmt: skip
    (row,) = seed_transfer(data)
    assert (row["worst"][1], row["best"][1], row["hurt"].count) == (0, 1, 1)


@pytest.mark.parametrize("value", [None, math.nan])
def test_a_score_that_is_no_number_gives_no_row(value: Any):
    assert seed_transfer(study(scored("colour", 0, "ab_l1", 12.0), scored("multi", 0, "ab_l1", value))) == []


def test_a_class_is_flagged_only_where_all_rows_together_allow_it():
    gains = (0.1, 0.2, 0.15, 0.12, 0.18, 0.11, 0.14, 0.16)
    noise = (0.1, -0.1) * 4
    runs = [
        each
        for seed, (gain, chance) in enumerate(zip(gains, noise, strict=True))
        for each in (
            per_class("colour", seed, "ab_l1", 10, 10),
            per_class("multi", seed, "ab_l1", 10 + gain, 10 + chance),
        )
    ]
    coral, slug = class_transfer(study(*runs))
    assert (coral["label"], coral["word"], slug["word"]) == ("coral", "hurt", "")
    assert coral["difference"] == pytest.approx(np.mean(gains))
    assert (coral["p"], coral["p_adjusted"]) == pytest.approx((2 / 256, 4 / 256))
    assert slug["p"] == 1


def test_a_higher_recall_is_help():
    runs = [per_class(arm, seed, "accuracy", 0.5 + 0.1 * (arm == "multi"), 0.5)
            for seed in range(8) for arm in ("class", "multi")]  # fmt: skip
    coral, slug = class_transfer(study(*runs))
    assert (coral["question"], coral["word"], slug["word"]) == ("class", "helped", "")
    coral_interval = table_text(study(*runs), "classes")[1][5]
    assert coral_interval.endswith("(95 %)")  # no dagger: over seeds and images
    assert table_text(study(*runs), "classes")[1] == [
        "coral", "Recall, %", "50.0", "60.0", "+10.0", coral_interval, "0.008", "0.016", 8, "helped",
    ]  # fmt: skip


def test_what_other_images_of_a_class_leave_open_gets_no_word():
    """The seeds agree on these images, whose differences scatter about 0: by the seeds alone it was flagged."""
    generator = np.random.default_rng(0)
    image, own = generator.normal(size=30), 0.01 * generator.normal(size=(12, 30))
    image += 0.15 - image.mean()
    runs = []
    for seed in range(12):
        for arm, moved in (("colour", np.zeros(30)), ("multi", image + own[seed])):
            rows = tuple(
                {"index": n, "label": "coral", "ab_l1": 10 + d} for n, d in enumerate(moved.tolist())
            )
            scores = {"per_class": {"coral": {"ab_l1": 10 + float(moved.mean())}}}
            runs.append(run(arm, seed, scores=scores, images=rows))
    (coral,) = class_transfer(study(*runs, classes=("coral",)))
    assert coral["p_adjusted"] < 0.001
    assert (coral["bounds"].over, coral["word"]) == ("seeds and images", "")
    bare = [each.__class__(each.arm, each.seed, each.state, scores=each.scores) for each in runs]
    (coral,) = class_transfer(study(*bare, classes=("coral",)))
    assert (coral["bounds"].over, coral["word"]) == (
        "seeds",
        "",
    )  # no scores of single images: no word either


def test_seven_seeds_have_no_word():
    runs = [per_class(arm, seed, "ab_l1", 10 + (arm == "multi"), 10)
            for seed in range(7) for arm in ("colour", "multi")]  # fmt: skip
    coral, _ = class_transfer(study(*runs))
    assert (coral["p_adjusted"], coral["word"]) == (2 / 64, "")
    assert coral["bounds"].interval[0] > 0


def test_five_seeds_flag_nothing_however_large_the_effect():
    runs = [
        per_class(arm, seed, "ab_l1", 10 + 5 * (arm == "multi"), 10)
        for seed in range(5)
        for arm in ("colour", "multi")
    ]
    assert [row["word"] for row in class_transfer(study(*runs))] == ["", ""]


def test_classes_without_scores_have_no_row():
    runs = [per_class("colour", 0, "ab_l1", 10, None), per_class("multi", 0, "ab_l1", 11, 12),
            per_class("colour", 1, "ab_l1", 10, math.nan), per_class("multi", 1, "ab_l1", 11, 12)]  # fmt: skip
    (row,) = class_transfer(study(*runs))
    assert (row["label"], row["seeds"]) == ("coral", (0, 1))


def test_planted_flips_are_found_whatever_the_order_of_the_rows():
    runs = [
        judged("class", 0, "1100"),
        judged("multi", 0, "0111"),
        judged("class", 1, "1100"),
        judged("multi", 1, "1101"),
    ]
    everything, coral, slug = image_flips(study(*runs))
    assert (everything["label"], everything["images"], everything["seeds"]) == (None, 4, (0, 1))
    assert shares(everything) == (1 / 8, 3 / 8, 1 / 4)
    assert everything["interval"] == pytest.approx((0.25, 0.25))
    assert shares(coral) == pytest.approx((1 / 6, 1 / 6, 0))
    assert shares(slug) == (0, 1, 1)
    assert table_text(study(*runs), "flips")[1] == ["All", 4, "12.5", "37.5", "+25.0", "+25.0 to +25.0", 2]


def test_images_without_a_label_do_not_count():
    labels = (*LABELS, "")
    everything, *_ = image_flips(
        study(judged("class", 0, "1100-", labels), judged("multi", 0, "01111", labels))
    )
    assert (everything["images"], everything["interval"]) == (4, None)


@pytest.mark.parametrize(
    "runs",
    [
        (),
        (judged("multi", 0, "1111"),),
        (judged("class", 0, "1111"), judged("multi", 1, "1111")),
        (judged("class", 0, "1111"), judged("multi", 0, "1111", first=7)),
        (run("class"), run("multi")),
    ],
    ids=["no runs", "one arm", "no common seed", "other images", "no images"],
)
def test_flips_need_two_arms_on_the_same_images(runs: tuple[Run, ...]):
    assert image_flips(study(*runs)) == []
    assert len(table_text(study(*runs), "flips")) == 1


def test_equal_train_loss_reads_between_epochs():
    single, multi = (
        tuned("colour", [0.4, 0.2, 0.1], [14, 12, 10]),
        tuned("multi", [0.5, 0.3, 0.15], [15, 13, 9]),
    )
    (row,) = paired_table(study(single, multi), equal_train_loss)
    assert (row["loss"], row["apart"]) == ("l1", ())
    assert row["level"] == 0.15  # multi-task never came lower
    assert (row["single"], row["multi"]) == pytest.approx((11.0, 9.0))


LOSS_TITLES = "L1", "L2", "Cross-entropy of 313 colours", "Colour loss"


@pytest.mark.parametrize(("loss", "title"), list(zip(TRAIN_LOSSES["colour"], LOSS_TITLES, strict=True)))
def test_the_loss_is_the_one_that_was_logged_and_the_page_has_its_title(loss: str, title: str):
    single, multi = tuned("colour", [0.4, 0.2], [14, 12]), tuned("multi", [0.3, 0.2], [12, 11])
    for entry in (*single.log, *multi.log):
        entry["train"] = {loss: entry["train"]["l1"]}
    (row,) = paired_table(study(single, multi), equal_train_loss)
    assert (row["loss"], row["level"]) == (loss, 0.2)
    assert title in table_text(study(single, multi), "equal_train_loss")[1]


def test_the_first_time_at_the_level_counts():
    single, multi = (
        tuned("colour", [0.4, 0.1, 0.3, 0.1], [14, 11, 30, 40]),
        tuned("multi", [0.5, 0.25], [15, 9]),
    )
    (row,) = paired_table(study(single, multi), equal_train_loss)
    assert row["single"] == pytest.approx(12.5)


def test_seeds_apart_are_named_and_a_question_of_them_alone_has_no_row():
    apart = (tuned("colour", [0.4, 0.3], [14, 13], 1), tuned("multi", [0.2, 0.1], [12, 11], 1))
    near = (tuned("colour", [0.4, 0.2], [14, 12]), tuned("multi", [0.3, 0.2], [12, 11]))
    (row,) = paired_table(study(*near, *apart), equal_train_loss)
    assert (row["seeds"], row["apart"]) == ((0,), (1,))
    assert paired_table(study(*apart), equal_train_loss) == []
    assert table_text(study(*apart), "equal_train_loss")[1][3:] == ["–"] * 5 + [0]


@pytest.mark.parametrize("hole", [None, math.nan])
def test_epochs_without_a_number_are_passed_over(hole: Any):
    single = tuned("colour", [0.4, hole, 0.2], [14, 99, 12])
    (row,) = paired_table(study(single, tuned("multi", [0.3, 0.2, 0.2], [13, 11, hole])), equal_train_loss)
    assert (row["single"], row["multi"]) == pytest.approx((12, 11))
    assert paired_table(study(single, tuned("multi", [hole], [13])), equal_train_loss) == []


def test_one_epoch_overlaps_only_where_it_is_the_level():
    (row,) = paired_table(
        study(tuned("colour", [0.4, 0.2], [14, 12]), tuned("multi", [0.3], [9])), equal_train_loss
    )
    assert (row["single"], row["multi"]) == pytest.approx((13, 9))


def test_a_diverged_run_counts_as_a_hurt_seed_and_in_no_class(tmp_path: Path):
    write_study(tmp_path, seeds=(0, 1))
    change(run_of(tmp_path, "multi", 1) / "status.json", lambda status: status.update(state="diverged"))
    data = read_study(tmp_path)
    assert [(row["hurt"].count, row["worst"][1]) for row in seed_transfer(data)] == [(1, 1), (1, 1)]
    assert {row["seeds"] for row in class_transfer(data)} == {(0,)}


def test_rows_of_a_whole_study_are_text(eight_seeds: Path):
    data = read_study(eight_seeds)
    tables = [table_text(data, name) for name in ("seeds", "classes", "flips", "equal_train_loss")]
    assert [len(table) for table in tables] == [3, 1 + 2 * len(CLASSES), 2 + len(CLASSES), 3]
    assert all(len({len(row) for row in table}) == 1 for table in tables)
    assert {row[-1] for row in tables[1][1:6]} == {"helped"}
    (everything, *classes) = image_flips(data)
    gain = [
        data.runs["multi"][s].metric("accuracy") - data.runs["class"][s].metric("accuracy") for s in range(8)
    ]  # type: ignore[operator]
    assert everything["net"] == pytest.approx(np.mean(gain))
    assert np.mean([each["net"] for each in classes]) == pytest.approx(everything["net"])
