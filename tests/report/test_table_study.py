"""Verdicts on a user's table: independent formulas, questions, and an error for every invalid row."""

import itertools
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from knowhue.errors import ConfigError, KnowhueError, TableError
from knowhue.metric_table import METRICS
from knowhue.report.contrasts import wording
from knowhue.report.page import write_verdict
from knowhue.report.results import conclude
from knowhue.report.table_study import MOST_QUESTIONS, TableOptions, notices, read_table
from knowhue.storage import read_json

HEAD = "arm,seed,metric,value\n"
LOSS = TableOptions(sesoi={"loss": 0.25}, better={"loss": "lower"}, against="old")
BOTH = {"loss": "lower", "psnr": "higher"}


def write(path, lines, head=HEAD):
    path.write_text(head + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def totals(differences, metric="loss", arms=("old", "new"), level=5.0):
    return [
        f"{arm},{seed},{metric},{float(level + seed / 10 + (gap if arm == arms[1] else 0.0))!r}"
        for seed, gap in enumerate(differences)
        for arm in arms
    ]


def of_images(table, metric="loss", arms=("old", "new"), labels="a"):
    """Rows of single images; the arm after is `table` (seeds, images) above the one before."""
    base = np.random.default_rng(9).normal(5, 1, table.shape)
    return [
        f"{arm},{seed},{metric},{value!r},image-{image}.png,{labels[image % len(labels)]}"
        for arm, values in zip(arms, (base, base + table), strict=True)
        for seed, row in enumerate(values.tolist())
        for image, value in enumerate(row)
    ]


def test_the_numbers_of_a_table_without_images_are_those_of_plain_formulas(tmp_path):
    gaps = np.random.default_rng(0).normal(-0.4, 0.2, 10)
    found = conclude(read_table([write(tmp_path / "t.csv", totals(gaps))], LOSS))
    tests = found.results["tests"]["loss"]
    t = stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
    assert tests["intervals"][0]["interval"] == pytest.approx((t.low, t.high))
    signs = np.array(list(itertools.product((-1, 1), repeat=10)))
    assert tests["p"] == pytest.approx(np.mean(abs(signs @ gaps) >= abs(gaps.sum()) - 1e-12))
    assert tests["differences"] == pytest.approx(gaps.tolist())
    assert t.high < -0.25
    assert found.results["verdicts"] == {"loss": "helps, by what matters"}


def test_of_single_images_the_interval_is_that_of_a_two_way_layout(tmp_path):
    generator = np.random.default_rng(1)
    seeds, images = 9, 40
    d = -0.6 + generator.normal(0, 0.1, (seeds, 1)) + generator.normal(0, 0.5, (1, images))
    d = d + generator.normal(0, 0.3, (seeds, images))
    path = write(tmp_path / "t.csv", of_images(d), "arm,seed,metric,value,image,class\n")
    found = conclude(read_table([path], LOSS))
    quoted = found.results["tests"]["loss"]["intervals"][0]
    # Cornfield and Tukey: expected mean squares of rows, columns and residual, with Satterthwaite's freedom
    rows, columns = d.mean(axis=1), d.mean(axis=0)
    ms_rows, ms_columns = images * rows.var(ddof=1), seeds * columns.var(ddof=1)
    freedom = (seeds - 1) * (images - 1)
    ms_rest = ((d - rows[:, None] - columns + d.mean()) ** 2).sum() / freedom
    variance = (ms_rows + ms_columns - ms_rest) / (seeds * images)
    parts = ((ms_rows, seeds - 1), (ms_columns, images - 1), (ms_rest, freedom))
    df = (ms_rows + ms_columns - ms_rest) ** 2 / sum(ms**2 / f for ms, f in parts)
    half = stats.t.ppf(0.975, df) * math.sqrt(variance)
    assert quoted["over"] == "seeds and images"
    assert quoted["interval"] == pytest.approx((d.mean() - half, d.mean() + half))
    assert found.answers["loss"].headline == "“new” is better than “old” in loss, by what matters"


def test_without_images_no_sentence_names_the_method(tmp_path):
    cases = {"better": -0.6, "worse": 0.6, "differ": 0.0}
    for word, gap in cases.items():
        gaps = gap + np.random.default_rng(2).normal(0, 0.03, 10)
        path = write(tmp_path / "t.csv", totals(gaps - (gaps.mean() - gap)))
        answer = conclude(read_table([path], LOSS)).answers["loss"]
        assert answer.headline.startswith("On these test images the models of “new”")
        assert word in answer.headline
        assert "which speaks for these test images alone" in answer.detail


def test_right_and_wrong_of_single_images_counts_as_binary_under_any_name(tmp_path):
    right = (np.random.default_rng(3).random((8, 30)) < 0.8).astype(int)
    lines = [
        f"{arm},{seed},top1,{right[seed, image]},{image}"
        for arm, seed, image in itertools.product(("old", "new"), range(8), range(30))
    ]
    path = write(tmp_path / "t.csv", lines, "arm,seed,metric,value,image\n")
    study = read_table([path], TableOptions(sesoi={"top1": 0.05}, better={"top1": "higher"}, against="old"))
    found = conclude(study).findings.verdicts["top1"].found
    assert found is not None
    assert found.images is not None
    # models that agree on all images at hand may differ on others
    assert found.images.binary
    assert found.bounds(0.95).interval[1] > 0.05


def test_what_was_not_asked_is_a_further_metric_once_and_alpha_is_shared_by_what_was(tmp_path):
    rng = np.random.default_rng(4)
    lines = [
        row for metric in ("loss", "f1", "auc", "speed") for row in totals(rng.normal(0.1, 0.1, 8), metric)
    ]
    asked = TableOptions(
        sesoi={"loss": 0.1, "f1": 0.1},
        better={"loss": "lower", "f1": "higher", "auc": "higher"},
        against="old",
    )
    found = conclude(read_table([write(tmp_path / "t.csv", lines)], asked))
    assert {test["alpha"] for test in found.results["tests"].values()} == {0.025}
    assert [row["metric"] for row in found.results["secondary"]] == ["auc"]
    assert notices(found.findings.study) == [
        "Not compared, because it is not known whether more or less is better (--better): speed."
    ]


@pytest.mark.parametrize(
    ("name", "stays"), [("Test_F1", "Test F1"), ("IoU", "IoU"), ("Dice", "Dice"), ("F1", "F1")]
)
def test_a_metric_is_spelt_as_the_table_spells_it(tmp_path, name, stays):
    asked = TableOptions(sesoi={name: 0.1}, better={name: "higher"}, against="old")
    study = read_table([write(tmp_path / "t.csv", totals([0.1] * 8, name))], asked)
    assert wording(study, name).question == f"Is “new” better than “old” in {stays}?"


def test_several_arms_are_each_a_question_and_columns_say_what_options_would(tmp_path):
    lines = [
        *(f"{line},,," for line in totals([0.1] * 8, arms=("old", "new"))),
        *(f"{line},old,lower,0.2" for line in totals([0.1] * 8, arms=("x", "third")) if "third" in line),
    ]
    path = write(tmp_path / "t.csv", lines, HEAD.replace("\n", ",against,better,sesoi\n"))
    assert list(read_table([path], TableOptions()).questions) == ["loss"]
    several = read_table([path], TableOptions(against="old"))
    assert {name: (q.single, q.multi, q.sesoi) for name, q in several.questions.items()} == {
        "loss: new": ("old", "new", 0.2), "loss: third": ("old", "third", 0.2),
    }  # fmt: skip
    assert several.alpha == pytest.approx(0.025)


def test_names_are_the_same_however_their_accents_are_written(tmp_path):
    one, other = "\u00e9t\u00e9", "e\u0301te\u0301"
    lines = totals([0.1] * 8, other, (other, "new"))
    lines[0] = lines[0].replace(other, one)
    study = read_table(
        [write(tmp_path / "t.csv", lines)], TableOptions((), {one: "lower"}, {one: 0.25}, other)
    )
    assert [*study.runs] == [one, "new"]
    assert notices(study) == []
    (question,) = study.questions.values()
    assert (question.single, question.metric) == (one, one)


def test_tables_are_read_together(tmp_path):
    lines = totals([-0.5] * 8)
    first, second = (
        write(tmp_path / f"{name}.csv", [r for r in lines if r.startswith(name)]) for name in ("old", "new")
    )
    study = read_table([first, second], LOSS)
    assert study.seeds == list(range(8))
    assert [(each["file"], each["rows"]) for each in study.settings["tables"]] == [
        ("old.csv", 8),
        ("new.csv", 8),
    ]
    with pytest.raises(TableError, match=r"old.csv, row 2: a second row of arm `old`, seed 0, metric `loss`"):
        read_table([first, second, first], LOSS)


@pytest.mark.parametrize("rounded", [("0.808", "0.813"), ("0.81", "0.81"), ("0.8", "0.8")])
def test_a_rounded_total_counts_as_the_mean_of_its_images(rounded, tmp_path):
    lines = [
        f"{arm},0,accuracy,{int(image < right)},{image}"
        for arm, right in (("old", 8075), ("new", 8125))
        for image in range(10_000)
    ]
    lines += [f"{arm},0,accuracy,{total}," for arm, total in zip(("old", "new"), rounded, strict=True)]
    path = write(tmp_path / "t.csv", lines, "arm,seed,metric,value,image\n")
    study = read_table([path], TableOptions(sesoi={"accuracy": 0.01}, against="old"))
    assert [study.table.scores(arm, "accuracy")[0] for arm in ("old", "new")] == [0.8075, 0.8125]


@pytest.mark.parametrize("total", ["1.000", "0", "0.5"])
def test_a_total_of_few_digits_that_is_far_from_its_images_is_refused(total, tmp_path):
    is_low = total == "0"
    lines = [
        f"{arm},0,accuracy,{int((image < 6) != is_low)},{image}"
        for arm in ("old", "new")
        for image in range(10)
    ]
    path = write(tmp_path / "t.csv", [*lines, f"new,0,accuracy,{total},"], "arm,seed,metric,value,image\n")
    with pytest.raises(TableError, match="mean over its images is 0"):
        read_table([path], TableOptions(sesoi={"accuracy": 0.01}, against="old"))


def test_balanced_accuracy_has_the_interval_of_its_classes(tmp_path):
    generator = np.random.default_rng(5)
    right = generator.random((2, 8, 100)) < np.where(np.arange(100) < 90, 0.9, 0.3)
    right[1, :, 90:] |= generator.random((8, 10)) < 0.5
    lines = [
        f"{arm},{seed},accuracy,{int(right[side, seed, image])},{image},{'rare' if image >= 90 else 'common'}"
        for side, arm in enumerate(("old", "new"))
        for seed, image in itertools.product(range(8), range(100))
    ]
    by_class = (right[..., :90].mean(axis=-1) + right[..., 90:].mean(axis=-1)) / 2
    lines += [
        f"{arm},{seed},balanced_accuracy,{by_class[side, seed]:.3f},,"
        for side, arm in enumerate(("old", "new"))
        for seed in range(8)
    ]
    path = write(tmp_path / "t.csv", lines, IMAGES)
    study = read_table([path], TableOptions(metrics=["balanced_accuracy"], against="old"))
    found = conclude(study).findings.verdicts["balanced_accuracy"].found
    assert found is not None
    assert found.images is not None
    assert found.differences == pytest.approx(by_class[1] - by_class[0])
    interval = found.bounds(0.95).interval
    assert interval is not None
    # plain accuracy gained a tenth of it
    assert interval[0] < found.estimate < interval[1]
    assert found.images.groups is not None
    assert np.bincount(found.images.groups).tolist() == [90, 10]


def test_what_the_message_on_a_balanced_image_says_leads_to_a_verdict(tmp_path):
    lines = [
        f"{arm},{seed},accuracy,{int(image != 2)},{image},{'aab'[image]}"
        for arm, seed, image in itertools.product(("old", "new"), range(2), range(3))
    ]
    study = read_table(
        [write(tmp_path / "t.csv", lines, IMAGES)], TableOptions(metrics=["balanced_accuracy"], against="old")
    )
    assert list(study.questions) == ["balanced_accuracy"]
    assert study.table.scores("old", "balanced_accuracy") == {0: 0.5, 1: 0.5}


def test_a_plan_has_another_hash_where_anything_that_decides_is_other(tmp_path):
    path = write(tmp_path / "t.csv", totals([-0.5] * 8))
    other = write(tmp_path / "u.csv", totals([-0.6] * 8))
    asked = [
        LOSS,
        TableOptions(**{**vars(LOSS), "sesoi": {"loss": 0.3}}),
        TableOptions(**{**vars(LOSS), "alpha": 0.01}),
    ]
    hashes = [read_table([path], each).settings["hash"] for each in asked]
    hashes.append(read_table([other], LOSS).settings["hash"])
    assert len(set(hashes)) == 4
    assert read_table([path], LOSS).settings["hash"] == hashes[0]


def test_scores_without_a_seed_are_what_costs_nothing(tmp_path):
    path = write(tmp_path / "t.csv", [*totals([0.0] * 8), "constant,,loss,3.0"])
    found = conclude(read_table([path], LOSS))
    assert found.results["verdicts"] == {"loss": "cannot tell"}
    assert found.answers["loss"].caveat.startswith(
        "Not better than a trivial baseline: old and new (“constant” 3.00"
    )


def test_a_missing_run_means_no_verdict_and_is_named(tmp_path):
    path = write(tmp_path / "t.csv", totals([-0.5] * 10)[:-1])
    found = conclude(read_table([path], LOSS))
    assert found.results["verdicts"] == {"loss": "no verdict"}
    assert found.answers["loss"].caveat == "Left out of the numbers: new seed 9 (has no row)."
    reason, numbers = found.answers["loss"].lines
    assert reason.endswith(". Left out of the numbers: new seed 9 (has no row).")
    assert numbers.startswith("With 9 seeds (a claim needs at least 8, all of them finished), on ")


def test_a_diverged_run_counts_with_what_was_declared(tmp_path):
    rows = [f"{row}," for row in totals([-0.5] * 10)]
    rows[-1] = "new,9,loss,9.0,diverged"
    found = conclude(read_table([write(tmp_path / "t.csv", rows, HEAD.replace("\n", ",state\n"))], LOSS))
    assert found.results["tests"]["loss"]["differences"][9] == pytest.approx(9.0 - 5.9)
    assert found.answers["loss"].caveat.startswith("Diverged, and given the score of")


MEANT = "Write a point for a decimal comma, nothing between thousands, and 0.015 for 1.5 %."
IMAGES, BETTER = "arm,seed,metric,value,image,class\n", "arm,seed,metric,value,better\n"
FAULTS = {
    "twice": (HEAD, ["old,0,loss,1", "old,0,loss,1"], "row 3: a second row of arm `old`, seed 0, metric `loss`."),
    "nan": (HEAD, ["old,0,loss,nan"], "row 2: the value of `loss` should be a finite number"),
    "infinite": (HEAD, ["old,0,loss,1e999"], "should be a finite number"),
    "words": (HEAD, ["old,0,loss,n/a"], "Found `n/a`. If the run diverged, give the score declared for it"),
    "comma": (HEAD, ['old,0,loss,"0,8687"'], f"Found `0,8687`. {MEANT}"),
    "sign": (HEAD, ["old,0,accuracy,84.8 %"], f"Found `84.8 %`. {MEANT}"),
    "both": (HEAD, ['old,0,accuracy,"84,8%"'], f"Found `84,8%`. {MEANT}"),
    "thousands": (HEAD, ['old,0,loss,"1,234,567"'], MEANT),
    "thousands and decimals": (HEAD, ['old,0,loss,"806,440.9"'], MEANT),
    "nothing": (HEAD, ["old,0,loss,"], "Found nothing"),
    "seed": (HEAD, ["old,one,loss,1"], "row 2: `seed` should be a whole number from 0 on"),
    "half a seed": (HEAD, ["old,0.5,loss,1"], "Found `0.5`"),
    "no seed": (HEAD, ["old,,loss,1"], "no row has a seed"),
    "no arm": (HEAD, [",0,loss,1"], "row 2: `arm` should be a name"),
    "long": (HEAD, [f"{'a' * 300},0,loss,1"], "at most 200 characters. Found `aaa"),
    "no rows": (HEAD, [], "no row with a score"),
    "crashed": ("arm,seed,metric,value,state\n", ["old,0,loss,1,crashed"], "finished run (1 of `crashed`)"),
    "per cent": (HEAD, ["old,0,accuracy,91.2"], "`accuracy` is a share from 0 to 1. Found 91.2"),
    "direction": (BETTER, ["old,0,loss,1,less"], "`better` should be lower or higher"),
    "two directions": (
        BETTER, ["old,0,loss,1,lower", "old,1,loss,1,higher"],
        "row 3: `better` of `loss` is `higher`, and in a row above `lower`",
    ),
    "effect": ("arm,seed,metric,value,sesoi\n", ["old,0,loss,1,0"], "`sesoi` should be a number above 0"),
    "effect with a comma": (
        "arm,seed,metric,value,sesoi\n", ['old,0,loss,1,"0,1"'], f"Found `0,1`. {MEANT}",
    ),
    "image twice": (
        IMAGES, ["old,0,loss,1,x,a", "old,0,loss,1,x,a"],
        "row 3: a second row of arm `old`, seed 0, metric `loss` for the image `x`. The first is",
    ),
    "other images": (
        IMAGES, ["old,0,loss,1,x,a", "new,0,loss,1,y,a"],
        "arm `old`, seed 0, metric `loss` has the image `x`, but arm `new`, seed 0 lacks it (2 such images)",
    ),
    "image lacks": (
        IMAGES, ["old,0,loss,1,x,a", "old,0,loss,1,y,a", "new,0,loss,1,y,a"],
        "has the image `x`, but arm `new`, seed 0 lacks it",
    ),
    "some without images": (
        IMAGES, ["old,0,loss,1,x,a", "old,1,loss,1,,"],
        "row 3: arm `old`, seed 1, metric `loss` has no rows of single images",
    ),
    "other class": (IMAGES, ["old,0,loss,1,x,a", "new,0,loss,1,x,b"], "row 3: the image `x` has the class `b`"),
    "other total": (
        IMAGES, ["old,0,loss,1,x,a", "old,0,loss,2,y,a", "old,0,loss,9,,"],
        "seed 0, metric `loss` is 9, but the mean over its images",
    ),
    "contradicting total": (
        IMAGES, [*(f"old,0,accuracy,{int(image < 800)},{image},a" for image in range(1000)), "old,0,accuracy,0.8075,,"],
        "row 1002: arm `old`, seed 0, metric `accuracy` is 0.8075, but the mean over its images is 0.8. Remove",
    ),
    "balanced total without classes": (
        IMAGES, ["old,0,accuracy,1,x,", "old,0,accuracy,0,y,", "old,0,balanced_accuracy,0.5,,"],
        "row 4: arm `old`, seed 0, metric `balanced_accuracy` gives all classes equal weight, but the image `x` has no",
    ),
    "balanced total of other images": (
        IMAGES,
        [*(f"old,0,accuracy,{right},{image},{'aab'[image]}" for image, right in enumerate((1, 1, 0))),
         "old,0,balanced_accuracy,0.667,,"],
        "row 5: arm `old`, seed 0, metric `balanced_accuracy` is 0.667, but the mean over its images is 0.5",
    ),
    "classes alone": (
        IMAGES, ["old,0,loss,1,,a", "new,0,loss,1,,a"], "every row has a `class`, so that no run has a score of all",
    ),
    "mean over seeds": (
        HEAD, [*(f"{arm},{seed},loss,1" for arm in ("old", "new") for seed in range(2)), "new,,loss,0.9"],
        "row 6: arm `new`, without a seed, metric `loss`, but other rows of this arm have one. Remove means",
    ),
    "baseline of a class": (
        IMAGES, ["old,0,loss,1,,", "constant,,loss,3,,cat"], "row 3: a row without a seed is a trivial baseline, which",
    ),
    "baseline twice": (
        HEAD, ["old,0,loss,1", "constant,,loss,3", "constant,,loss,2"],
        "row 4: a second row of arm `constant`, without a seed, metric `loss`. The first is",
    ),
    "balanced image": (IMAGES, ["old,0,balanced_accuracy,1,x,a"], "Call its row `accuracy`, and give its class"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_with_row_and_remedy(tmp_path, fault):
    head, lines, message = FAULTS[fault]
    with pytest.raises(TableError) as error:
        read_table([write(tmp_path / "t.csv", lines, head)], LOSS)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(tmp_path))


TWO, ONE, LESS = totals([0.1] * 3), {"loss": 1.0}, {"loss": "lower"}
OPTIONS = {
    "no effect": (
        TWO, TableOptions(against="old"), "is not known for loss. Give it, in the metric's unit: --sesoi loss=0.01",
    ),
    "no effect of it": (
        TWO, TableOptions(metrics=["loss"]), "below which no difference matters, is not known for loss",
    ),
    "no direction": (TWO, TableOptions(sesoi=ONE), "Whether more or less of `loss` is better is not known"),
    "own metric misspelt": (
        totals([0.1] * 3, "acuracy"), TableOptions(sesoi={"acuracy": 0.01}, against="old"),
        "--better acuracy=higher, or =lower. Did you mean `accuracy`?",
    ),
    "effect of own metric misspelt": (
        totals([0.1] * 3, "ciede200"), TableOptions(metrics=["ciede200"], against="old"),
        "--sesoi ciede200=0.01. Did you mean `ciede2000`?",
    ),
    "own metric misspelt, of no effect": (
        totals([0.1] * 3, "acuracy"), TableOptions(against="old"), "--sesoi acuracy=0.01. Did you mean `accuracy`?",
    ),
    "no direction of a name in two words": (
        totals([0.1] * 3, "Test F1"), TableOptions(sesoi={"Test F1": 0.01}, against="old"),
        "--better 'Test F1'=higher, or",
    ),
    "no effect of a name in two words": (
        totals([0.1] * 3, "Test F1"), TableOptions(against="old"), "unit: --sesoi 'Test F1'=0.01",
    ),
    "no arm": (TWO, TableOptions(sesoi=ONE, better=LESS), "Give it: --against old. Found the arms old, new."),
    "another arm": (TWO, TableOptions(against="odl"), "has: old, new. Found `odl`. Did you mean `old`?"),
    "another metric": (
        TWO, TableOptions(metrics=["los"]), "`--metric` should name what the table has: loss. Found `los`",
    ),
    "itself": (TWO, TableOptions(sesoi=ONE, better=LESS, against="old", arms=["old"]), "Found `old` alone"),
    "own metric turned": (
        totals([0.1] * 3, "ab_l1", ("colour", "multi")), TableOptions(better={"ab_l1": "higher"}),
        "Two directions of `ab_l1`",
    ),
    "points": (
        totals([0.1] * 3, "accuracy", level=0.1), TableOptions(sesoi={"accuracy": 1}, against="old"),
        "a share, such as 0.01",
    ),
    "one arm": (totals([0.1] * 3)[::2], LOSS, "Only one arm has the metric `loss`: old"),
}  # fmt: skip


@pytest.mark.parametrize("case", OPTIONS)
def test_what_cannot_be_known_is_asked_for(tmp_path, case):
    lines, asked, message = OPTIONS[case]
    with pytest.raises(KnowhueError) as error:
        read_table([write(tmp_path / "t.csv", lines)], asked)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_of_an_own_metric_nobody_asks_whether_it_was_meant(tmp_path):
    lines = totals([0.1] * 3, "accuracy", level=0.1)
    with pytest.raises(ConfigError, match=r"--sesoi accuracy=0\.01$"):
        read_table([write(tmp_path / "t.csv", lines)], TableOptions(metrics=["accuracy"], against="old"))


def test_more_questions_than_any_alpha_can_serve_are_refused(tmp_path):
    lines = [f"{arm},0,loss,1" for arm in ["old", *(f"arm-{place}" for place in range(MOST_QUESTIONS + 1))]]
    with pytest.raises(ConfigError, match="61 questions share alpha, and 60 are the most"):
        read_table([write(tmp_path / "t.csv", lines)], LOSS)


def test_the_page_escapes_names_and_holds_all_numbers(tmp_path):
    arms = ("<i>o$x$</i>", "n" * 60)
    path = write(tmp_path / "t.csv", totals([-0.5] * 8, arms=arms))
    asked = TableOptions(sesoi={"loss": 0.25}, better={"loss": "lower"}, against=arms[0])
    found = conclude(read_table([path], asked))
    write_verdict(found, tmp_path / "v.html", tmp_path / "v.json", "knowhue verdict t.csv")
    page = (tmp_path / "v.html").read_text(encoding="utf-8")
    assert 'download="v.json"' in page
    assert "results.json" not in page
    assert "<i>" not in page
    assert "&lt;i&gt;o$x$" in page
    assert "<code><span>knowhue</span> <span>verdict</span> <span>t.csv</span></code>" in page
    assert found.results["tables"][0]["sha256"] in page
    numbers = read_json(tmp_path / "v.json")
    assert numbers["schema"] == {"name": "knowhue-results", "version": 1}
    assert numbers["verdicts"] == {"loss": "helps, by what matters"}
    # the cell of the table says no more than the sentence
    assert "On these test images" in page
    assert re.search(
        r'<td class="text">helps, by what matters<br>\s*<small[^>]*>on these images</small></td>', page
    )


def test_a_column_of_quoted_names_is_aligned_like_other_words(tmp_path):
    path = write(tmp_path / "t.csv", totals([-0.5] * 8, metric="“loss”"))
    asked = TableOptions(sesoi={"“loss”": 0.25}, better={"“loss”": "lower"}, against="old")
    write_verdict(conclude(read_table([path], asked)), tmp_path / "v.html", tmp_path / "v.json")
    assert '<td class="text">“loss”</td>' in (tmp_path / "v.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("metric", ["loss", "mean_b", "adversarial"])
def test_a_log_likelihood_below_0_has_an_interval_like_any_other(tmp_path, metric):
    path = write(tmp_path / "t.csv", totals(np.linspace(-0.1, 0.4, 8), metric, level=-30.0))
    asked = TableOptions(sesoi={metric: 0.25}, better={metric: "lower"}, against="old")
    found = conclude(read_table([path], asked)).findings.verdicts[metric]
    assert found.outer is not None
    assert found.outer.interval is not None


def test_the_split_is_named_and_two_are_not_judged_together(tmp_path):
    lines = [
        f"{line},{split}" for line, split in zip(totals([0.1] * 8), ["val", "validation"] * 8, strict=True)
    ]
    path = write(tmp_path / "t.csv", lines, HEAD.replace("\n", ",split\n"))
    answer = conclude(read_table([path], LOSS)).answers["loss"]
    assert "on these validation images" in answer.sentence
    assert "test images" not in answer.sentence
    mixed = write(tmp_path / "m.csv", [*lines, "old,9,loss,1,test"], HEAD.replace("\n", ",split\n"))
    with pytest.raises(
        TableError, match=r"row 18: this row has the split `test`, and rows above have the split `validation`"
    ):
        read_table([mixed], LOSS)
    half = write(tmp_path / "h.csv", [*lines, "old,9,loss,1,"], HEAD.replace("\n", ",split\n"))
    with pytest.raises(
        TableError, match=r"row 18: this row has no split, and rows above have the split `validation`"
    ):
        read_table([half], LOSS)
    with pytest.raises(
        TableError, match=r"this row has the split `validation`, and rows above have no split"
    ):
        read_table([write(tmp_path / "n.csv", totals([0.1] * 2)), path], LOSS)
    other = write(tmp_path / "o.csv", ["old,9,loss,1,fold-3"], HEAD.replace("\n", ",split\n"))
    with pytest.raises(TableError, match=r"`split` should be test or validation\. Found `fold-3`"):
        read_table([other], LOSS)


def test_what_looks_like_a_slip_of_the_pen_is_asked_about(tmp_path):
    good = totals([0.1] * 8)
    assert notices(read_table([write(tmp_path / "t.csv", good)], LOSS)) == []
    misspelt = [good[0].replace("old", "olld"), *good[1:]]
    (asked,) = notices(read_table([write(tmp_path / "n.csv", misspelt)], LOSS))
    assert asked == "“olld” has 1 seed, which others lack. Did you mean `old`?"
    misspelt = [good[0].replace("loss", "los"), *good[1:]]
    asked, _ = notices(read_table([write(tmp_path / "l.csv", misspelt)], LOSS))
    assert asked == "“los” has 1 score, which others lack. Did you mean `loss`?"
    # as many of both, and the first in the table is meant
    in_capitals = [
        row.replace("old", "OLD") if seed % 2 else row for seed, row in enumerate(totals([0.1] * 8)[::2])
    ]
    mixed = [*in_capitals, *totals([0.1] * 8)[1::2]]
    with pytest.raises(TableError, match=r"`old` \(4 seeds\) and `OLD` \(4 seeds\) differ only in case"):
        read_table([write(tmp_path / "c.csv", mixed)], LOSS)
    with pytest.raises(ConfigError) as raised:
        read_table([tmp_path / "c.csv"], TableOptions())
    assert raised.value.args[1:] == ("“old” and “OLD” differ only in case: are they one arm?",)
    # neither is compared
    for first in (3, 4):  # as many of both, or fewer: it is asked but once
        third = [f"{'Mid' if seed < first else 'mid'},{seed},loss,5.{seed}" for seed in range(8)]
        path = write(tmp_path / "m.csv", [*good, *third])
        (asked,) = notices(read_table([path], replace(LOSS, arms=("new",))))
        assert asked == "“Mid” and “mid” differ only in case: are they one arm?"
    with pytest.raises(TableError, match=r"`Mid` \(4 seeds\) and `mid` \(4 seeds\) differ only in case"):
        read_table([path], LOSS)
    # beside what must be answered first
    with pytest.raises(ConfigError) as asked:
        read_table([write(tmp_path / "n.csv", [good[0].replace("old", "olld"), *good[1:]])], TableOptions())
    assert asked.value.args[1:] == ("“olld” has 1 seed, which others lack. Did you mean `old`?",)
    # a metric that not all runs have beside the other
    assert not any(
        "lack" in each
        for each in notices(read_table([write(tmp_path / "b.csv", [*good, "old,0,los,1"])], LOSS))
    )
    both = [*good, *totals([-0.1] * 8, "Loss", level=5.5)]
    (asked,) = notices(
        read_table(
            [write(tmp_path / "i.csv", both)],
            replace(LOSS, better={"loss": "lower", "Loss": "lower"}, sesoi={"loss": 0.25, "Loss": 0.25}),
        )
    )
    assert asked == "“loss” and “Loss” differ only in case: are they one metric?"
    # an arm of its own, with seeds that all have
    fewer = [*good, *(f"older,{seed},loss,5" for seed in range(2))]
    assert not notices(read_table([write(tmp_path / "f.csv", fewer)], LOSS))
    arm, seed, metric, value = good[3].split(",")
    slipped = [*good[:3], f"{arm},{seed},{metric},{float(value) * 100}", *good[4:]]
    (asked,) = notices(read_table([write(tmp_path / "p.csv", slipped)], LOSS))
    assert asked.startswith(
        "loss of “new” with seed 1 is 520, all others are at most 5.8: is its decimal point"
    )


@pytest.mark.parametrize("name", ["fid", "kid", "top1_accuracy", "ab_auc", "lightness_change"])
def test_the_better_side_of_each_of_our_own_metrics_is_known(tmp_path, name):
    asked = TableOptions(sesoi={name: 0.01}, against="old")
    study = read_table(
        [write(tmp_path / "t.csv", totals([0.02] * 8, name, level=-0.9 if name == "kid" else 0.1))], asked
    )
    own = METRICS[name]
    assert (study.about(name)["better"], study.about(name)["unit"]) == (own.better, own.unit)
    word = "helps" if own.better == "higher" else "hurts"
    assert conclude(study).results["verdicts"][name].startswith(word)
    wide = [f"{arm},{seed},0.{seed}" for arm in ("old", "new") for seed in range(8)]
    assert (
        read_table([write(tmp_path / "w.csv", wide, f"arm,seed,{name}\n")], asked).questions[name].metric
        == name
    )
    other = {"lower": "higher", "higher": "lower"}[own.better]
    with pytest.raises(
        ConfigError, match=f"Two directions of `{name}`: {other}, and {own.better} for Knowhue's"
    ):
        read_table([tmp_path / "t.csv"], replace(asked, better={name: other}))
    if own.unit == "share":
        with pytest.raises(TableError, match=rf"`{name}` is a share from 0 to 1\. Found 76\.1"):
            read_table([write(tmp_path / "p.csv", [f"old,0,{name},76.1"])], asked)


def test_names_that_differ_in_case_alone_are_asked_about_whoever_holds_both(tmp_path):
    good = totals([0.1] * 8)

    def asked(lines, head=HEAD):
        return [
            each
            for each in notices(read_table([write(tmp_path / "t.csv", lines, head)], LOSS))
            if "case" in each
        ]

    both_arms = [*good, *totals([0.3] * 8, arms=("OLD", "New"), level=4.0)]
    assert asked(both_arms) == [
        "“old” and “OLD” differ only in case: are they one arm?",
        "“new” and “New” differ only in case: are they one arm?",
    ]
    # columns of a wide table that none asks about; a parameter is no metric
    wide = [f"{arm},{seed},{seed},1,2" for arm in ("old", "new") for seed in range(8)]
    (said,) = asked(wide, "arm,seed,summary.loss,summary.Loss,config.LOSS\n")
    assert said == "“loss” and “Loss” differ only in case: are they one metric?"
    of_classes = [f"{line},{label}" for line in good for label in ("", "cat")]
    of_classes += [f"{line},Cat" for line in good]
    once = ["“cat” and “Cat” differ only in case: are they one class?"]
    assert asked(of_classes, HEAD.replace("\n", ",class\n")) == once
    labelled = of_images(np.full((8, 20), 0.1), labels=("cat", "Cat"))
    assert asked(labelled, HEAD.replace("\n", ",image,class\n")) == once


def test_arms_whose_scores_are_all_alike_look_like_copies(tmp_path):
    path = write(tmp_path / "t.csv", totals([0.0] * 8))
    assert notices(read_table([path], LOSS)) == [
        "“old” and “new” have the same scores to the last digit: is one a copy of the other?"
    ]
    assert notices(read_table([write(tmp_path / "u.csv", totals([0.0] * 7 + [0.1]))], LOSS)) == []
    more = write(tmp_path / "m.csv", [*totals([0.0] * 8), *(f"old,{seed},f1,{seed}" for seed in range(8))])
    assert "is one a copy of the other?" in notices(read_table([more], LOSS))[0]


def test_a_run_whose_images_all_have_the_scores_of_another_looks_like_a_copy(tmp_path):
    table = np.random.default_rng(3).normal(0.3, 0.1, (8, 20))
    table[[2, 5]] = 0.0
    head = HEAD.replace("\n", ",image,class\n")
    (said,) = notices(read_table([write(tmp_path / "i.csv", of_images(table), head)], LOSS))
    assert (
        said
        == "“old” and “new” have the same score of every image with seeds 2, 5: is one a copy of the other?"
    )
    table[5, 3], table[2, 4] = 0.01, 0.01
    assert notices(read_table([write(tmp_path / "i.csv", of_images(table), head)], LOSS)) == []


@pytest.mark.parametrize("other_scores_differ", [True, False])
def test_answers_that_are_right_of_the_same_images_are_no_sign_of_a_copy(tmp_path, other_scores_differ):
    """Good models fail at the same few images; of many, the other scores tell the two apart."""
    wrong, metrics = (
        (40, {"accuracy": "higher", "loss": "lower"}) if other_scores_differ else (3, {"accuracy": "higher"})
    )
    rows = []
    for arm, seed, image in itertools.product(("old", "new"), range(9), range(100)):
        is_another = (arm, seed) == ("new", 0)
        scores = {"accuracy": int(image >= wrong + is_another), "loss": image + seed + (arm == "new")}
        rows += [f"{arm},{seed},{metric},{scores[metric]},{image}" for metric in metrics]
    asked = TableOptions(better=metrics, sesoi={"accuracy": 0.01}, against="old")
    table = read_table([write(tmp_path / "i.csv", rows, HEAD.replace("\n", ",image\n"))], asked)
    assert notices(table) == []


def test_a_misspelt_class_is_asked_about(tmp_path):
    head, lines = HEAD.replace("\n", ",class\n"), [f"{line}," for line in totals([0.1] * 8)]
    lines += [f"{line},jellyfish" for line in totals([0.1] * 8)]
    assert notices(read_table([write(tmp_path / "c.csv", lines, head)], LOSS)) == []
    lines[-1] = lines[-1].replace("jellyfish", "jelyfish")
    (said,) = notices(read_table([write(tmp_path / "c.csv", lines, head)], LOSS))
    assert said == "“jelyfish” has 1 run, which others lack. Did you mean `jellyfish`?"
    both = [*lines, *(line.replace(",loss,", ",psnr,") for line in lines)]  # of each metric, once
    asked = replace(LOSS, sesoi=dict.fromkeys(BOTH, 0.25), better=BOTH)
    assert notices(read_table([write(tmp_path / "b.csv", both, head)], asked)) == [said]


def test_an_error_of_ours_is_never_negative_and_of_anothers_nobody_knows(tmp_path):
    lines = [*totals([0.1] * 8), *totals([0.1] * 8, "ab_l1")]
    study = read_table([write(tmp_path / "t.csv", lines)], replace(LOSS, sesoi={"loss": 0.25, "ab_l1": 0.25}))
    assert (study.about("ab_l1").get("least", 0), study.about("loss").get("least", 0)) == (0, None)


def test_a_metric_is_secondary_to_the_one_that_it_names(tmp_path):
    lines = [f"{line}," for metric in ("loss", "psnr") for line in totals([0.1] * 8, metric)]
    lines += [f"{line},psnr" for line in totals([0.1] * 8, "ssim")]
    path = write(tmp_path / "t.csv", lines, HEAD.replace("\n", ",secondary\n"))
    options = replace(LOSS, sesoi=dict.fromkeys(BOTH, 0.25), better={**BOTH, "ssim": "higher"})
    study = read_table([path], options)
    assert {name: each.secondary for name, each in study.questions.items()} == {"loss": (), "psnr": ("ssim",)}
    assert not notices(study)
    (notice,) = notices(read_table([path], replace(options, sesoi={"loss": 0.25})))
    why = "because no question is about the metric that the column `secondary` names"
    assert notice == f"Exploratory, {why}: ssim (psnr)."
    assert not notices(
        read_table([path], replace(options, metrics=("loss", "ssim"), sesoi={"loss": 0.25, "ssim": 0.1}))
    )


def test_an_attempt_that_was_replaced_by_its_rerun_is_told(tmp_path):
    head = HEAD.replace("\n", ",state\n")
    lines = ["old,3,loss,,crashed", *(f"{line},finished" for line in totals([0.1] * 8))]
    (said,) = notices(read_table([write(tmp_path / "r.csv", lines, head)], LOSS))
    assert said == "Left out, because another row of the run is finished: old seed 3 (crashed)."


def test_arms_without_a_common_seed_are_told_which_they_have(tmp_path):
    lines = [
        f"{arm},{seed},loss,{seed}"
        for arm, first in (("old", 0), ("new", 10))
        for seed in range(first, first + 9)
    ]
    found = conclude(read_table([write(tmp_path / "t.csv", lines)], LOSS)).answers["loss"]
    assert found.detail.endswith("Runs of one seed are a pair; now old seeds 0 to 8 and new seeds 10 to 18.")
    assert "and 12 more" in found.caveat


def test_where_no_interval_can_be_given_the_reason_is_given_once(tmp_path):
    table = 0.5 + np.random.default_rng(5).normal(0, 0.1, (9, 12))
    path = write(tmp_path / "t.csv", of_images(table), "arm,seed,metric,value,image,class\n")
    answer = conclude(read_table([path], LOSS)).answers["loss"]
    assert answer.sentence.count("too few images") == 1
    assert "(no interval can be given)" in answer.headline


def test_a_seed_that_floats_do_not_hold_is_told_the_most(tmp_path):
    with pytest.raises(TableError, match=r"whole number from 0 on below 2\^53"):
        read_table([write(tmp_path / "t.csv", [f"old,{2**53 + 1},loss,1"])], LOSS)


def test_nothing_is_left_out_of_a_plain_table(tmp_path):
    assert notices(read_table([write(tmp_path / "t.csv", TWO)], LOSS)) == []


def test_a_trackers_own_columns_are_taken_for_no_misspelt_ones(tmp_path):
    rows = [f"{arm},{seed},0.{seed},1,2,3" for arm in ("old", "new") for seed in range(8)]
    path = write(tmp_path / "t.csv", rows, "arm,seed,metrics.loss,run_id,Created,params.size\n")
    assert notices(read_table([path], LOSS))[-1] == "Not used: the columns run_id, Created, params.size."
    asked = TableOptions(sesoi={"params.size": 1.0}, better={"params.size": "lower"}, against="old")
    assert list(read_table([path], asked).questions) == ["params.size"]


def test_one_difference_is_rounded_once(tmp_path):
    """The mean difference and that of the means lie, as floats, on either side of .04175."""
    scores = {"old": (0.483, 0.45, 0.402, 0.576), "new": (0.408, 0.564, 0.592, 0.514)}
    lines = [f"{arm},{seed},mIoU,{value}" for arm, own in scores.items() for seed, value in enumerate(own)]
    asked = TableOptions(sesoi={"mIoU": 0.001}, better={"mIoU": "higher"}, against="old")
    found = conclude(read_table([write(tmp_path / "t.csv", lines)], asked))
    write_verdict(found, tmp_path / "v.html", tmp_path / "v.json", "knowhue verdict t.csv")
    page = (tmp_path / "v.html").read_text(encoding="utf-8")
    (shown,) = re.findall(r"<dt>difference</dt><dd>\+([0-9.]+)", page)
    assert f": {shown} mIoU more" in page or f": {shown} more" in page


@pytest.mark.parametrize(
    ("scale", "digits"),
    [(1.0, "0.30"), (1e-6, "0.00000030"), (1e-12, "3.00e−13"), (1e-30, "3.00e−31"), (1e21, "3.00e20")],
)
def test_a_small_or_large_metric_is_written_with_its_digits_or_by_a_power_of_ten(tmp_path, scale, digits):
    rows = [
        f"{arm},{seed},loss,{level * scale!r}"
        for arm, level in (("old", 1.0), ("new", 1.3))
        for seed in range(9)
    ]
    asked = TableOptions(sesoi={"loss": 0.1 * scale}, better={"loss": "lower"}, against="old")
    answer = conclude(read_table([write(tmp_path / "t.csv", rows)], asked)).answers["loss"]
    assert f"{digits} more" in answer.sentence
    assert "the same to the last digit shown" not in answer.sentence
    assert f"+{digits} to +{digits}" in answer.sentence


def test_a_difference_that_is_not_that_of_the_levels_shown_says_why(tmp_path):
    """5.534 and 5.506 are shown as 5.53 and 5.51, and differ by 0.03."""
    table = read_table([write(tmp_path / "t.csv", totals([-0.028] * 9, level=5.134))], LOSS)
    found = conclude(table)
    said = "The difference is computed before rounding."
    assert "“new” has loss 5.51 and “old” has loss 5.53: 0.03 less" in found.answers["loss"].sentence
    assert said not in found.answers["loss"].sentence  # which studies are sealed with
    assert said in found.answers["loss"].lines[0]
    write_verdict(found, tmp_path / "v.html", tmp_path / "v.json", "knowhue verdict t.csv")
    assert said in (tmp_path / "v.html").read_text(encoding="utf-8")
    adding_up = conclude(read_table([write(tmp_path / "t.csv", totals([-0.03] * 9, level=5.13))], LOSS))
    assert said not in adding_up.answers["loss"].lines[0]


def test_a_misspelt_column_that_is_not_used_is_asked_about(tmp_path):
    head = HEAD.replace("\n", ",imgae\n")
    table = read_table([write(tmp_path / "t.csv", [f"{line},x" for line in totals([-1.0] * 9)], head)], LOSS)
    assert "Not used: the columns imgae. Did you mean `image`?" in notices(table)
    wide = "arm,seed,loss,acuracy\n"
    rows = [
        f"{arm},{seed},{seed / 9 + (arm == 'old')},0.{seed}" for arm in ("old", "new") for seed in range(9)
    ]
    asked = replace(LOSS, metrics=("loss", "accuracy"))
    with pytest.raises(ConfigError, match=r"Found `accuracy`\. Did you mean `acuracy`"):
        read_table([write(tmp_path / "w.csv", rows, wide)], asked)


def test_levels_below_0_have_a_minus(tmp_path):
    rows = totals([0.5] * 9, level=-5.0)
    assert (
        "“old” has loss −4.60"
        in conclude(read_table([write(tmp_path / "t.csv", rows)], LOSS)).answers["loss"].sentence
    )


def test_a_name_with_dollar_signs_is_no_formula(tmp_path):
    rows = [
        f"{arm},{seed},$\\bad$,{0.8 + 0.01 * (arm != 'old') + seed / 100}"
        for arm in ("old", r"$x_$")
        for seed in range(9)
    ]
    asked = TableOptions(sesoi={r"$\bad$": 0.01}, better={r"$\bad$": "higher"}, against="old")
    found = conclude(read_table([write(tmp_path / "t.csv", rows)], asked))
    write_verdict(found, tmp_path / "t.html", tmp_path / "t.json", "knowhue verdict")
    assert r"$\bad$" in (tmp_path / "t.html").read_text(encoding="utf-8")
