"""The studies in `studies/poster`: valid plans, disjoint images and seeds, and settings that follow from tuning."""

import csv
import hashlib
import importlib.util
import json
import re
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from synthetic_study import write_study

from knowhue.plan import Plan
from knowhue.presets import checked
from knowhue.report.contrasts import contrast
from knowhue.report.reading import read_study
from knowhue.sealing import check

POSTER = Path(__file__).parents[2] / "studies" / "poster"
DOCS = Path(__file__).parents[2] / "docs"
SPLITS = {"train": 1000, "validation": 250, "test": 1500}


def script(name):
    spec = importlib.util.spec_from_file_location(name, POSTER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plan(name):
    return checked(Plan, yaml.safe_load((POSTER / f"{name}.yaml").read_text()))


def rows(name="images"):
    with (POSTER / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_image_is_named_once_in_a_split_of_equal_classes():
    found = rows()
    assert len({row["path"] for row in found}) == len({row["sha256"] for row in found}) == len(found)
    classes = Counter((row["split"], Path(row["path"]).parent.name) for row in found)
    assert classes == {(split, name): count // 5 for split, count in SPLITS.items() for _, name in classes}
    # images of ImageNet's validation split are only in the test split
    assert {row["split"] for row in found if row["path"].startswith("val/")} == {"test"}


def test_studies_that_choose_never_see_the_test_part_and_have_other_seeds():
    report = plan("plan")
    for name in ("gan", "tuning", "methods-tuning"):
        chosen = plan(name)
        assert (chosen.purpose, chosen.config.evaluation.split) == ("tuning", "validation")
        assert not set(chosen.seeds) & set(report.seeds)
        shared = ("images", "encoder", "training.heads")
        for part in shared:
            one, other = (_part(each.config, part) for each in (chosen, report))
            assert one == other
    assert set(plan("tuning").seeds) <= set(report.tuned_on_seeds)


def test_the_second_set_is_split_by_its_files_alone_and_asked_as_the_first():
    found = rows("ocean5")
    assert len({row["sha256"] for row in found}) == len(found) == 2698
    assert not {row["sha256"] for row in found} & {row["sha256"] for row in rows()}
    by_class = {}
    for row in sorted(found, key=lambda row: row["sha256"]):
        by_class.setdefault(row["path"].split("/")[1], []).append(row["split"])
    for own in by_class.values():
        train, validation = (round(len(own) * count / 2698) for count in (1000, 250))
        test = len(own) - train - validation
        assert own == ["train"] * train + ["validation"] * validation + ["test"] * test
    second, report = plan("ocean5"), plan("plan")
    assert not set(second.seeds) & {*report.seeds, *report.tuned_on_seeds}
    assert (second.questions, second.purpose) == (report.questions, report.purpose)
    for arm in second.arms:
        one, other = (each.run_config(arm, 0).model_dump() for each in (second, report))
        assert one["images"].pop("path") != other["images"].pop("path")
        assert one == other


FEWER = (125, 250, 500)
LABELS = (2, 5, 25)


def plan_and_main(name, *others):
    """A plan with the questions of the main plan and seeds that no plan except `others` has; and the main plan."""
    own, report = plan(name), plan("plan")
    assert not set(own.seeds) & _seeds_except(name, *others)
    assert (own.questions, own.purpose) == (report.questions, report.purpose)
    return own, report


@pytest.mark.parametrize("images", FEWER)
def test_the_study_of_fewer_images_is_the_main_one_in_all_else_and_takes_as_many_steps(images):
    fewer, report = plan_and_main(f"images-{images}")
    for arm in fewer.arms:
        one, other = (each.run_config(arm, 0).model_dump() for each in (fewer, report))
        for phase in ("heads", "finetune"):
            epochs = one["training"][phase].pop("epochs"), other["training"][phase].pop("epochs")
            own, main = (one["supervision"]["image_share"] or 1) * 995, 995
            assert own == pytest.approx(images, rel=0.01)
            # training uses only full batches, and a whole number of epochs
            assert epochs[0] * (own // 32) == pytest.approx(epochs[1] * (main // 32), rel=0.04)
        apart = {"supervision": ("image_share", "resample"), "evaluation": ("every_epochs",)}
        for section, names in apart.items():
            for name in names:
                assert one[section].pop(name) != other[section].pop(name)
        assert one == other


def test_the_placebos_of_the_second_encoder_are_its_multi_with_other_targets():
    own, lite0 = plan_and_main("lite0-placebos")[0], plan("lite0")
    for arm in lite0.arms:
        assert own.run_config(arm, 0) == lite0.run_config(arm, 0)
    for kind in ("labels", "colours"):
        one, other = (own.run_config(arm, 0).model_dump() for arm in (f"placebo-{kind}", "multi"))
        assert (one["supervision"].pop("placebo"), other["supervision"].pop("placebo")) == (kind, "none")
        assert one == other


def test_the_study_of_larger_images_is_that_of_the_second_set_in_all_else():
    larger, smaller = plan_and_main("ocean5-128")[0], plan("ocean5")
    for arm in larger.arms:
        one, other = (each.run_config(arm, 0).model_dump() for each in (larger, smaller))
        assert (one["images"].pop("size_px"), other["images"].pop("size_px")) == (128, 64)
        assert one["evaluation"].pop("every_epochs") != other["evaluation"].pop("every_epochs")
        assert one == other


def test_larger_images_are_asked_again_with_other_seeds_alone():
    again, first = plan_and_main("ocean5-128-again")[0], plan("ocean5-128")
    assert len(again.seeds) == 10
    assert again.model_copy(update={"seeds": first.seeds}) == first


def test_the_study_of_more_images_trains_on_test_images_of_the_main_one_for_as_many_steps():
    more, report = plan_and_main("images-2000")
    by_class, moved = {}, set()
    for row in sorted(rows(), key=lambda row: row["sha256"]):
        if (row["split"], row["path"].split("/")[0]) == ("test", "train"):
            by_class.setdefault(row["path"].split("/")[1], []).append(row["path"])
    for own in by_class.values():
        moved |= set(own[:200])
    assert len(moved) == 1000
    expected = [{**row, "split": "train" if row["path"] in moved else row["split"]} for row in rows()]
    assert rows("images-2000") == expected
    for arm in more.arms:
        one, other = (each.run_config(arm, 0).model_dump() for each in (more, report))
        for phase in ("heads", "finetune"):
            epochs = one["training"][phase].pop("epochs"), other["training"][phase].pop("epochs")
            assert epochs[0] * (2000 // 32) == pytest.approx(epochs[1] * (1000 // 32), rel=0.02)
        for section, name in (("images", "path"), ("evaluation", "every_epochs")):
            assert one[section].pop(name) != other[section].pop(name)
        assert one == other


@pytest.mark.parametrize("percent", LABELS)
def test_the_study_of_few_labels_is_the_main_one_in_all_else_for_single_and_multi_task_alike(percent):
    few, report = plan_and_main(f"labels-{percent}", *(f"labels-{each}" for each in LABELS))
    # for a seed, the labels of a smaller share are a subset of those of a larger share
    assert all(plan(f"labels-{each}").seeds == few.seeds for each in LABELS)
    for arm in few.arms:
        one, other = (each.run_config(arm, 0).model_dump() for each in (few, report))
        assert one["supervision"].pop("labelled_share") == percent / 100
        assert other["supervision"].pop("labelled_share") == 1
        assert one["evaluation"].pop("every_epochs") != other["evaluation"].pop("every_epochs")
        assert one == other


def test_the_study_of_the_posters_length_is_the_main_one_but_for_its_epochs():
    full, report = plan_and_main("full")
    for arm in full.arms:
        one, other = (each.run_config(arm, 0).model_dump() for each in (full, report))
        for phase, epochs in (("heads", 30), ("finetune", 15)):  # the poster's
            assert one["training"][phase].pop("epochs") == epochs
            assert other["training"][phase].pop("epochs") == 6
        assert one["evaluation"].pop("every_epochs") != other["evaluation"].pop("every_epochs")
        assert one == other


def test_arms_of_the_study_of_class_weights_are_the_main_ones_but_for_their_weight():
    weights, report = plan_and_main("weights")
    for arm, weight in {"colour": 10, "class": 10, "multi": 10, "multi-w3": 3, "multi-w30": 30}.items():
        one, other = (
            each.run_config(name, 0).model_dump()
            for each, name in ((weights, arm), (report, arm.partition("-")[0]))
        )
        assert (one["tasks"]["weights"].pop("class"), other["tasks"]["weights"].pop("class")) == (weight, 10)
        assert one["evaluation"].pop("every_epochs") != other["evaluation"].pop("every_epochs")
        assert one == other


def test_the_second_encoder_is_asked_as_the_first_but_for_what_was_chosen_for_it():
    second, report = plan_and_main("lite0")
    gan, tuning = plan("lite0-gan"), plan("lite0-tuning")
    for chosen in (gan, tuning):
        assert (chosen.purpose, chosen.config.evaluation.split) == ("tuning", "validation")
        assert set(chosen.seeds) <= set(second.tuned_on_seeds)
        for part in ("images", "encoder", "training.heads"):
            assert _part(chosen.config, part) == _part(second.config, part)
    for arm in second.arms:
        one, other = (each.run_config(arm, 0).model_dump() for each in (second, report))
        assert one["encoder"].pop("name") == "tf_efficientnet_lite0" != other["encoder"].pop("name")
        assert one["encoder"].pop("weights") == "package" != other["encoder"].pop("weights")
        for each in (one, other):
            del each["colour"]["adversarial_weight"], each["evaluation"]["every_epochs"]
            del each["training"]["finetune"]["encoder_learning_rate"]
        assert one == other
    weights = {each.config.colour.adversarial_weight for each in (second, tuning)}
    assert weights == {chosen_adversarial_weight("lite0-gan")} == {30}


def chosen_adversarial_weight(study):
    """The smallest adversarial weight with a quarter of colour's gradient at the fork; the largest if none has it."""
    with zipfile.ZipFile(POSTER / f"{study}.zip") as archive:
        found = json.loads(archive.read("results.json"))["gradients"]
    shares = {weight: found[f"gan-{weight}"]["fork"]["adversarial_of_colour"] for weight in (1, 10, 30)}
    return min((weight for weight, share in shares.items() if share >= 0.25), default=30)


def test_the_other_head_is_tuned_as_the_posters_was():
    gan, tuning, report = plan("unet-gan"), plan("unet-tuning"), plan("plan")
    for chosen in (gan, tuning):
        assert (chosen.purpose, chosen.config.evaluation.split) == ("tuning", "validation")
        assert set(chosen.seeds) <= set(report.tuned_on_seeds)
        for part in ("images", "encoder", "training.heads"):
            assert _part(chosen.config, part) == _part(report.config, part)
        assert chosen.config.colour.method == "unet"
    assert tuning.config.colour.adversarial_weight == chosen_adversarial_weight("unet-gan")
    assert tuning.config.tasks == report.config.tasks


def test_the_other_head_is_asked_as_the_posters_but_for_what_was_chosen_for_it():
    other_head, report = plan_and_main("unet")
    assert len(other_head.seeds) == 20
    for arm in other_head.arms:
        one, other = (each.run_config(arm, 0).model_dump() for each in (other_head, report))
        assert one["colour"].pop("method") == "unet" != other["colour"].pop("method")
        for each in (one, other):
            del each["training"]["finetune"]["encoder_learning_rate"], each["evaluation"]["every_epochs"]
        assert one == other


def _seeds_except(*names):
    """Seeds of all other plans, for tuning and for the report."""
    plans = (plan(path.stem) for path in POSTER.glob("*.yaml") if path.stem not in names)
    return {seed for each in plans for seed in (*each.seeds, *each.tuned_on_seeds)}


def test_ways_to_colour_differ_by_what_they_are_and_by_what_was_chosen_for_each():
    ways, tuning, report = plan("methods"), plan("methods-tuning"), plan("plan")
    assert not set(ways.seeds) & _seeds_except("methods")
    assert set(tuning.seeds) == set(ways.tuned_on_seeds)
    trials = {arm.partition("-")[0]: tuning.arm_settings(arm) for arm in tuning.arms}
    assert set(ways.arms) == set(trials) - {"palette"}
    for arm in ways.arms:
        assert ways.arm_settings(arm).colour == trials[arm].colour
    # the reference is an arm of the main study
    reference, main = (
        each.run_config(arm, 0).model_dump() for each, arm in ((ways, "gan30"), (report, "colour"))
    )
    for name in ("every_epochs", "gradient_batches"):
        del reference["evaluation"][name], main["evaluation"][name]
    assert reference == main


def test_palette_is_asked_as_the_other_ways_were():
    palette, ways = plan("palette"), plan("methods")
    assert not set(palette.seeds) & _seeds_except("palette")
    assert (list(palette.arms), palette.reference) == (["gan30", "palette"], ways.reference)
    one, other = (each.run_config("gan30", 0).model_dump() for each in (palette, ways))
    del one["evaluation"]["gradient_batches"], other["evaluation"]["gradient_batches"]
    assert one == other


def _part(config, path):
    for name in path.split("."):
        config = getattr(config, name)
    return config


@pytest.mark.parametrize(("name", "report"), [("", "plan"), ("unet-", "unet"), ("lite0-", "lite0")])
def test_smaller_rates_of_colour_alone_are_tried_as_the_least_of_the_tuning_was(name, report):
    smaller, tuning = plan(f"{name}rates-tuning"), plan(f"{name}tuning")
    assert smaller.purpose == "tuning"
    assert set(smaller.seeds) == set(plan(report).tuned_on_seeds)
    runs = [tuning.run_config("colour-r1", 100), *(smaller.run_config(arm, 100) for arm in smaller.arms)]
    found = [run.model_dump() for run in runs]
    rates = [each["training"]["finetune"].pop("encoder_learning_rate") for each in found]
    assert rates == [1e-5, 1e-6, 3e-6, 1e-5]
    assert all(each == found[0] for each in found)


def test_the_second_encoder_is_asked_again_with_a_smaller_rate_of_colour_alone_and_nothing_else():
    again, lite0 = plan("lite0-rates"), plan("lite0")
    assert not set(again.seeds) & _seeds_except("lite0-rates")
    assert again.questions["colour"].sesoi == lite0.questions["colour"].sesoi
    for arm in again.arms:
        one, other = (each.run_config(arm, 0).model_dump() for each in (again, lite0))
        rates = [each["training"]["finetune"].pop("encoder_learning_rate") for each in (one, other)]
        assert rates == {"colour": [3e-6, 1e-5], "multi": [3e-4, 3e-4]}[arm]
        del one["evaluation"], other["evaluation"]
        assert one == other


def test_every_task_has_as_many_trials():
    trials = Counter(arm.split("-")[0] for arm in plan("tuning").arms)
    assert trials == {"colour": 9, "class": 9, "multi": 9}
    second = Counter(arm.split("-")[0] for arm in plan("lite0-tuning").arms)
    assert second == {"colour": 4, "class": 4, "multi": 4}
    ways = Counter(arm.split("-")[0] for arm in plan("methods-tuning").arms)
    assert set(ways.values()) == {3}
    assert len(ways) == 7


def test_the_rule_takes_both_metrics_in_smallest_effects_of_interest():
    def mean(error=None, right=None, finished=2):
        return {"mean": {"ab_l1": error, "balanced_accuracy": right}, "finished": finished}

    arms = {
        "colour-r1": mean(12.0), "colour-r2": mean(11.9),
        "class-r1": mean(right=0.80), "class-r2": mean(right=0.79),
        # a quarter of a unit and a point count the same: 47.6 - 80, 48 - 81.5, 48.8 - 82
        "multi-w3-r1": mean(11.9, 0.80), "multi-w3-r3": mean(12.0, 0.815), "multi-w10-r1": mean(12.2, 0.82),
    }  # fmt: skip
    choose = script("choose").choose
    expected = {"colour": "colour-r2", "class": "class-r1", "multi": "multi-w3-r3"}
    assert choose(arms, 2) == expected
    # without a score, or with the score of only one seed
    diverged = {"colour-r3": mean(), "class-r3": mean(right=0.99, finished=1), "multi-w30-r1": mean(1.0)}
    assert choose(arms | diverged, 2) == expected


def test_the_sealed_tuning_is_whole_and_chose_what_the_plan_has(tmp_path, monkeypatch, capsys):
    sealed = check(POSTER / "tuning.zip")
    assert (sealed.problems, sealed.numbers > 4000) == ([], True)
    with zipfile.ZipFile(POSTER / "tuning.zip") as archive:
        archive.extractall(tmp_path)
    monkeypatch.setattr(sys, "argv", ["choose.py", str(tmp_path), "--plan", str(POSTER / "plan.yaml")])
    script("choose").main()
    chosen = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("*")]
    assert chosen == ["colour-r1", "class-r18", "multi-w10-r10"]
    monkeypatch.setattr(sys, "argv", ["choose.py", str(tmp_path), "--plan", str(POSTER / "tuning.yaml")])
    with pytest.raises(SystemExit, match="at least one of the arms colour, class, multi"):
        script("choose").main()
    monkeypatch.setattr(sys, "argv", ["choose.py", str(tmp_path), "--plan", str(POSTER / "lite0.yaml")])
    with pytest.raises(SystemExit, match="`class` should have the settings of `class-r18`"):
        script("choose").main()


@pytest.mark.parametrize(
    ("name", "study", "numbers"),
    [
        ("plan", "main", 10_000),
        ("ocean5", "ocean5", 6000),
        ("ocean5-128", "ocean5-128", 2000),
        ("ocean5-128-again", "ocean5-128-again", 3000),
        ("full", "full", 2700),
        ("weights", "weights", 5000),
        ("lite0", "lite0", 3000),
        ("lite0-placebos", "lite0-placebos", 5000),
        ("lite0-tuning", "lite0-tuning", 2000),
        ("lite0-gan", "lite0-gan", 900),
        ("unet-gan", "unet-gan", 900),
        ("unet-tuning", "unet-tuning", 2000),
        ("unet", "unet", 6000),
        ("lite0-rates", "lite0-rates", 2500),
        *((f"{each}rates-tuning", f"{each}rates-tuning", 800) for each in ("", "unet-", "lite0-")),
        ("methods", "methods", 7000),
        ("methods-tuning", "methods-tuning", 4000),
        ("palette", "palette", 3000),
        *((f"images-{each}", f"images-{each}", 3000) for each in (*FEWER, 2000)),
        *((f"labels-{each}", f"labels-{each}", 3000) for each in LABELS),
    ],
)
def test_a_sealed_study_is_whole_and_is_the_plans(name, study, numbers):
    sealed = check(POSTER / f"{study}.zip")
    assert (sealed.problems, sealed.numbers > numbers) == ([], True)
    with zipfile.ZipFile(POSTER / f"{study}.zip") as archive:
        frozen = json.loads(archive.read("study.json"))
    expected = plan(name)
    if "wall_clock" in frozen:
        expected = expected.at_equal_wall_clock(frozen["wall_clock"]["epochs"])
    assert (frozen["seeds"], set(frozen["arms"])) == (list(expected.seeds), set(expected.arms))


def test_the_main_study_is_told_by_what_pretraining_has_seen(tmp_path):
    parts = script("parts")
    for name, expected in (("main", list(parts.PARTS)), ("ocean5", ["all"])):
        with zipfile.ZipFile(POSTER / f"{name}.zip") as archive:
            archive.extractall(tmp_path / name)
        assert list(parts.parts(read_study(tmp_path / name))) == expected


@pytest.mark.parametrize("name", ["main", "ocean5"])
def test_the_docs_say_of_every_class_what_the_sealed_study_says(name, tmp_path):
    with zipfile.ZipFile(POSTER / f"{name}.zip") as archive:
        archive.extractall(tmp_path)
    lines = list(script("parts").class_rows(read_study(tmp_path)))
    assert len(lines) == 5
    assert set(lines) <= set((DOCS / "results.md").read_text().splitlines())


def test_the_page_has_every_study_of_the_two_questions_with_its_numbers(tmp_path, monkeypatch, capsys):
    overview, figure = script("overview"), tmp_path / "overview.svg"
    studies = set()
    for path in POSTER.glob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            frozen = json.loads(archive.read("study.json"))
        if frozen["purpose"] == "report" and {"colour", "class"} <= set(frozen.get("questions") or ()):
            studies.add(path.stem)
    assert set(overview.STUDIES) == studies
    monkeypatch.setattr(sys, "argv", ["overview.py", "-o", str(figure)])
    overview.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(lines) == 2 * (1 + len(studies))
    assert set(lines) <= set((DOCS / "results.md").read_text().splitlines())
    # only the texts are compared, because positions depend on the version of matplotlib
    drawn, shown = (
        re.findall(r"<text[^>]*>([^<]*)", path.read_text())
        for path in (figure, DOCS / "poster" / "overview.svg")
    )
    assert drawn == shown
    assert set(overview.STUDIES.values()) <= set(drawn)
    page = (DOCS / "poster.md").read_text()
    numbers = (
        {15: "fifteen", 16: "sixteen"},
        {30: "thirty", 32: "thirty-two"},
    )
    assert f"in {numbers[0][len(studies)]} studies of" in page
    assert f"over all {numbers[1][2 * len(studies)]} answers" in page


def test_p_is_adjusted_for_all_studies_after_holm():
    # the smallest times 4, the next times 3, ...; never decreasing, and at most 1
    assert script("overview").holm([0.03, 0.01, 0.9, 0.02]) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    assert script("overview").holm([0.6, 0.9]) == [1, 1]


WAYS = ["l1-r1", "classes-r10", "gan1-r1", "gan10-r1", "gan30-r1", "pix2pix-r5", "palette-r100"]


@pytest.mark.parametrize(
    ("study", "tuning", "expected"),
    [
        ("methods", "methods-tuning", WAYS),
        ("palette", "methods-tuning", WAYS),
        ("lite0", "lite0-tuning", ["colour-r1", "class-r30", "multi-r30"]),
        ("unet", "unet-tuning", ["colour-r1", "multi-r10"]),
        ("plan", "rates-tuning", ["colour-r1"]),
        ("unet", "unet-rates-tuning", ["colour-r1"]),
        ("lite0-rates", "lite0-rates-tuning", ["colour-r0.3"]),
    ],
)
def test_a_study_has_the_rates_that_its_tuning_chose(study, tuning, expected, tmp_path, monkeypatch, capsys):
    with zipfile.ZipFile(POSTER / f"{tuning}.zip") as archive:
        archive.extractall(tmp_path)
    monkeypatch.setattr(sys, "argv", ["choose.py", str(tmp_path), "--plan", str(POSTER / f"{study}.yaml")])
    script("choose").main()
    chosen = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("*")]
    assert chosen == expected


def test_a_plan_with_other_settings_than_the_tuning_chose_is_found_out():
    settings, tuning, report = script("choose").settings, plan("tuning"), plan("plan")
    assert settings(tuning, "multi-w3-r30") == (3e-4, 3.0)
    assert settings(tuning, "class-r2") == (1.8e-5, None)
    assert (
        settings(report, "placebo-labels") == settings(report, "placebo-colours") == settings(report, "multi")
    )
    assert settings(report, "oracle") == settings(report, "colour")


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """The script, two images with their list, and the output folder."""
    lay_out, source = script("lay_out"), tmp_path / "pictures"
    lines = ["path,split,sha256"]
    for path, split in (("train/a/1.JPEG", "train"), ("val/a/2.JPEG", "test")):
        (source / path).parent.mkdir(parents=True)
        (source / path).write_bytes(path.encode())
        lines.append(f"{path},{split},{hashlib.sha256(path.encode()).hexdigest()}")
    (named := tmp_path / "images.csv").write_text("\n".join(lines))
    monkeypatch.setattr(sys, "argv", ["lay_out.py", str(source), str(tmp_path / "out"), "--list", str(named)])
    return lay_out, source, tmp_path / "out"


def test_pictures_are_laid_out_by_split_and_class(pictures):
    lay_out, _, out = pictures
    lay_out.main()
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.JPEG"))
    assert found == ["test/a/2.JPEG", "train/a/1.JPEG"]


@pytest.mark.parametrize("harm", ["gone", "other"])
def test_a_picture_that_is_gone_or_another_one_is_named_and_nothing_is_written(pictures, harm):
    lay_out, source, out = pictures
    picture = source / "val/a/2.JPEG"
    picture.unlink() if harm == "gone" else picture.write_bytes(b"another")
    with pytest.raises(SystemExit, match=r"2\.JPEG: (no such file|another image)"):
        lay_out.main()
    assert not out.exists()


def test_how_often_together_is_nearer_is_counted_over_photos_and_seeds(tmp_path):
    parts, study = script("parts"), read_study(write_study(tmp_path / "demo", seeds=(0, 1, 2)))
    alone, together = (
        np.array([[row["ab_l1"] for row in run.images] for run in study.finished(arm)])
        for arm in ("colour", "multi")
    )
    share, changes = parts.nearer(study)
    expected = 100 * np.mean(np.sign(alone - together) / 2 + 0.5)
    assert f"nearer in {expected:.1f} % (" in share
    apart = np.mean([np.abs(alone[i] - alone[j]).mean() for i, j in ((0, 1), (0, 2), (1, 2))])
    assert f"by {np.abs(alone - together).mean():.1f} units on average" in changes
    assert f"colour alone by {apart:.1f}," in changes


def test_a_part_of_the_test_images_is_judged_by_its_own_images(tmp_path):
    parts, study = script("parts"), read_study(write_study(tmp_path / "demo", seeds=(0, 1, 2)))

    def is_even(path):
        return path.endswith(("0.png", "2.png", "4.png", "6.png", "8.png"))

    cut = parts.of_part(study, is_even)

    def error(arm):
        return np.array([
            np.mean([row["ab_l1"] for row in run.images if is_even(row["path"])]) for run in study.finished(arm)
        ])  # fmt: skip

    found = contrast(cut.table, "ab_l1", "colour", "multi")
    assert np.allclose(found.differences, error("multi") - error("colour"))
    assert found.images.differences.shape == (
        3,
        sum(is_even(row["path"]) for row in study.finished("multi")[0].images),
    )
    assert not np.allclose(found.differences, contrast(study.table, "ab_l1", "colour", "multi").differences)
    lines = list(parts.rows(cut, parts.COLOURS, parts.CLASSES))
    assert any(line.startswith("| colour | multi | Mean absolute error") for line in lines)
    assert any(line.startswith("| class | multi | Balanced accuracy") for line in lines)


def test_a_file_that_is_no_sealed_study_is_said_by_the_parts_as_by_the_check(tmp_path, monkeypatch, capsys):
    cut = tmp_path / "cut.zip"
    cut.write_bytes((POSTER / "tuning.zip").read_bytes()[:9000])
    for path, said in ((tmp_path / "nope.zip", "no such file"), (cut, "or damaged")):
        monkeypatch.setattr(sys, "argv", ["parts.py", str(path)])
        with pytest.raises(SystemExit) as ended:
            script("parts").main()
        assert (ended.value.code, said in capsys.readouterr().err) == (2, True)
