"""`knowhue plan` states what its seeds and images can detect, and prints a valid study file."""

import shutil
from pathlib import Path

import pytest
import yaml

from knowhue.apps.planning import (
    commented_yaml,
    known_variances,
    parse_deviations,
    power_lines,
    read_variances,
)
from knowhue.config import Config
from knowhue.errors import ConfigError, RunError
from knowhue.plan import Plan, make_plan
from knowhue.presets import checked
from knowhue.report.results import SCHEMA
from knowhue.runs import STUDY_SCHEMA
from knowhue.statistics.power import Variances
from knowhue.storage import write_json

OURS = {"colour": Variances(0.076, 1.45), "class": Variances(0.01, 0.2)}


def test_it_says_the_smallest_difference_and_both_chances():
    plan = make_plan(Config(), seeds=range(20))
    text = "\n".join(power_lines(plan, {"colour": OURS["colour"]}, 250))
    assert "# colour: 20 seeds x 250 images (sd of a seed 0.076, of an image 1.45, residual 0):" in text
    assert "the smallest difference detected 80 % of the time is 0.29 CIELAB units;" in text
    assert "a difference of 0.25 CIELAB units is detected 67 % of the time; if there is none, " in text
    assert "the verdict is `equivalent` 52 % of the time." in text
    # in paired standard deviations, where nothing is known
    assert "# class: 20 seeds detect a difference of 0.7" in text


def test_differences_of_shares_are_told_in_points_and_a_variance_of_0_is_doubted():
    plan = make_plan(Config(), seeds=range(20))
    text = "\n".join(power_lines(plan, OURS, 250)).partition("# class")[2]
    assert "sd of a seed 1, of an image 20, residual 0" in text
    assert "80 % of the time is 4 points;" in text
    assert "a difference of 1 point is detected" in text
    assert "unreliable" not in text
    text = "\n".join(power_lines(plan, {"class": Variances(0.0, 0.2)}, 250))
    assert "The sd over seeds is 0, because most scores agree" in text
    assert "unreliable" in text
    assert power_lines(plan, {"class": Variances(0.0, 0.0)}, 250) == power_lines(plan, {}, 250)


def test_it_says_which_study_the_images_were_counted_in():
    plan = make_plan(Config(), seeds=range(20))
    first, *others = power_lines(plan, OURS, 1496, Path("old.zip"))
    assert first == "# 1,496 images, as in old.zip; --images for another number"
    assert others == power_lines(plan, OURS, 1496)


def test_too_few_seeds_are_said_to_give_no_verdict():
    lines = power_lines(make_plan(Config(), seeds=range(7)), {}, None)
    assert lines == [
        "# colour: 7 seeds give no verdict; 8 are needed.",
        "# class: 7 seeds give no verdict; 8 are needed.",
    ]
    assert "a verdict needs 8 seeds" in power_lines(make_plan(Config(), seeds=range(7)), OURS, 250)[1]


def test_variances_of_an_earlier_study_are_read(tmp_path: Path):
    tests = {
        "colour": {"standard_deviations": {"seed": 0.1, "image": 1.2, "residual": 0.5, "images": 300}},
        "class": {},
    }
    write_json(tmp_path / "results.json", {"schema": SCHEMA, "tests": tests})
    assert read_variances(tmp_path) == ({"colour": Variances(0.1, 1.2, 0.5)}, 300)
    tests["colour"]["metric"] = "ciede2000"
    write_json(tmp_path / "results.json", {"schema": SCHEMA, "tests": tests})
    with pytest.raises(
        ConfigError, match=r"asks about ab_l1, as the question `colour` .* Found ciede2000 in"
    ):
        known_variances(tmp_path, None, None, None)
    write_json(
        tmp_path / "results.json", {"schema": SCHEMA, "tests": {"colour": {"standard_deviations": None}}}
    )
    with pytest.raises(ConfigError, match=r"scores of 20 or more single images.* has no variances"):
        read_variances(tmp_path)


def test_variances_of_a_study_without_results_say_how_to_write_them(tmp_path: Path):
    with pytest.raises(RunError, match="should be the folder of a study"):
        read_variances(tmp_path)
    plan = make_plan(Config(), ["colour"], [0])
    write_json(
        tmp_path / "study.json",
        {**STUDY_SCHEMA, "hash": "0" * 64, **plan.model_dump(mode="json", by_alias=True)},
    )
    with pytest.raises(ConfigError, match="Write them with `knowhue report"):
        read_variances(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "0.1", "colour", "colour=x", "colour=-1", "colour=inf", "colour=.1;class=.2"]
)
def test_what_is_no_standard_deviation_is_refused(text: str):
    with pytest.raises(ConfigError, match="`seed_sd` should be standard deviations by question"):
        parse_deviations(text, "seed_sd")


def test_what_is_printed_reads_back_to_the_plan(knowhue, make_folder):
    photos = str(make_folder({"ant": 1, "bee": 1}))
    stated_sds = ("--seed-sd", "colour=.08", "--image-sd", "colour=1.5", "--images", "1500")
    code, out, _ = knowhue("plan", photos, "--seeds", "8", *stated_sds)
    assert code == 0
    assert out.startswith("# colour: 8 seeds x 1,500 images")
    assert len(checked(Plan, yaml.safe_load(out)).seeds) == 8
    code, _, err = knowhue("plan", photos, "--seed-sd", "colour=.08")
    assert (code, "should be given together" in err) == (2, True)


def test_a_plan_is_refused_whose_classes_have_no_images_as_a_study_is(knowhue, make_folder, tmp_path: Path):
    photos = make_folder({"ant": 1, "bee": 0})
    said = f"knowhue: {photos / 'bee'}: no images in this class; put some there, or remove the folder"
    for command in (["plan"], ["study", "--out", tmp_path / "out"]):
        code, printed, err = knowhue(*command, photos)
        assert (code, printed, err.splitlines()[-1]) == (2, "", said)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((Path("study"), "colour=.1", None, None), "Found both"),
        ((Path("study"), None, "colour=.1", None), "Found both"),
        ((None, None, "colour=.1", 30), "should be given together"),
        ((None, None, None, 30), "has no default"),
        ((None, "colour=.1", "colour=1", None), "should be given together"),
        ((None, "colr=.1", "colour=1", 30), "Did you mean `colour`?"),
        ((None, "colour=1e300", "colour=1", 30), "`seed_sd` should be standard deviations by question"),
    ],
)
def test_variances_come_from_one_place_and_whole(given, said):
    with pytest.raises(ConfigError) as caught:
        known_variances(*given)
    assert said in str(caught.value)


def test_stated_variances_are_of_the_questions_that_both_name():
    shares, _ = known_variances(None, "class=1", "class=30", 30)
    with pytest.raises(
        ConfigError, match=r"of balanced_accuracy should be shares, 0 to 1.* Found 30 of `class`"
    ):
        power_lines(make_plan(Config(), seeds=range(8)), shares, 30)
    known, images = known_variances(None, "colour=.1,class=.01", "colour=1.5", 30)
    assert (known, images) == ({"colour": Variances(0.1, 1.5)}, 30)
    assert known_variances(None, None, None, None) == ({}, None)


def test_the_number_of_images_may_be_another_than_the_earlier_studys(tmp_path: Path):
    variances = {"seed": 0.1, "image": 1.2, "residual": 0.5, "images": 300}
    write_json(
        tmp_path / "results.json", {"schema": SCHEMA, "tests": {"colour": {"standard_deviations": variances}}}
    )
    assert known_variances(tmp_path, None, None, None)[1] == 300
    assert known_variances(tmp_path, None, None, 1000)[1] == 1000


def test_variances_of_a_sealed_study_are_those_of_its_folder(tmp_path: Path):
    sealed = Path(__file__).parents[2] / "studies/poster/tuning.zip"
    shutil.unpack_archive(sealed, tmp_path)
    assert read_variances(sealed) == read_variances(tmp_path)


def test_a_weight_that_an_arm_has_is_not_tried_again():
    with pytest.raises(ConfigError, match=r"that of `multi`\. Found `.* = 1,10`"):
        make_plan(Config(), task_weight_grid=[1, 10])
    assert "multi-class10" in make_plan(Config(), ["colour", "class"], task_weight_grid=[10]).arms


def test_every_setting_is_explained_beside_it():
    lines = commented_yaml(Config())
    bare = [line for line in lines if "#" not in line and not line.endswith(":")]
    assert bare == []
    assert len({line.split("#")[0] for line in lines}) > 60


def test_tables_of_named_entries_are_indented_below_their_name():
    lines = commented_yaml(make_plan(Config(), ["colour", "class"]))
    at = next(i for i, line in enumerate(lines) if line.startswith("arms:"))
    assert lines[at + 1].startswith("  colour:")


def test_a_sealed_study_whose_results_are_damaged_is_named_and_not_where_it_was_unpacked(tmp_path: Path):
    shutil.unpack_archive(Path(__file__).parents[2] / "studies/poster/tuning.zip", tmp_path / "study")
    (tmp_path / "study" / "results.json").write_bytes(b"{")
    sealed = Path(shutil.make_archive(str(tmp_path / "cut"), "zip", tmp_path / "study"))
    with pytest.raises(RunError, match=f"^`{sealed}/results.json` is damaged: no JSON"):
        read_variances(sealed)


def test_variances_of_a_file_that_is_no_sealed_study_are_refused_as_that(tmp_path: Path):
    (table := tmp_path / "table.csv").write_text("arm,seed\n")
    with pytest.raises(RunError, match="not a sealed study, or damaged") as caught:
        read_variances(table)
    assert "results.json" not in str(caught.value)
