"""`knowhue score`, run as a command: files, checks, refused input, and the same bytes for every way to run it."""

import csv
import json
import shutil

import pytest
from scipy.stats import binomtest
from score_folders import colourings, picture, true_images, write_images
from tiny_classifier import NAME, write_network


@pytest.fixture
def at(tmp_path, monkeypatch):
    true = true_images(24, 6)
    write_images(tmp_path / "truth", true)
    write_images(tmp_path / "ours", colourings(true, 0.8))
    write_images(tmp_path / "theirs", colourings(true, 0.4, seed=50))
    monkeypatch.chdir(tmp_path)
    return tmp_path


BOTH = ("score", "ours", "theirs", "--truth", "truth", "--protocol", "original")


def written(folder):
    return {path.name: path.read_bytes() for path in folder.glob("score.*")}


def test_a_page_and_three_files_are_written_and_the_main_numbers_said(knowhue, at):
    (at / "ours" / "colorized.jsonl").write_text("{}")  # which `knowhue colorize` leaves there
    code, said, err = knowhue(*BOTH, "--workers", 1)
    assert code == 0
    assert "left alone" not in err
    assert set(written(at)) == {"score.html", "score.json", "score.tex", "score.per_image.csv"}
    lines = said.splitlines()
    assert [line.split() for line in lines[:2]] == [
        ["CIEDE2000", "a*b*", "PSNR", "SSIM", "CF,"],
        ["error", "signed"],
    ]
    assert [line.split("  ")[0] for line in lines[2:5]] == ["ours", "theirs", "gray"]
    assert lines[9].startswith("ours is nearer than theirs on images like these")
    assert lines[-1] == "Page: score.html"
    assert "note: ours: L* is not the true image's" in err
    assert "24 images, 7 rows" in err


def test_the_same_bytes_again_from_the_cache_and_without_it(knowhue, at):
    assert knowhue(*BOTH, "--workers", 1)[0] == 0
    first = written(at)
    assert knowhue(*BOTH, "--workers", 1, "--overwrite")[0] == 0
    again = written(at)
    shutil.rmtree(at / ".knowhue-score")
    assert knowhue(*BOTH, "--workers", 2, "--overwrite")[0] == 0
    other = written(at)
    names = ("score.json", "score.tex", "score.per_image.csv")
    assert (
        [again[name] for name in names] == [first[name] for name in names] == [other[name] for name in names]
    )
    # except for the command in it
    begun, gone_on = (
        b" ".join(b"<span>%s</span>" % word for word in words.split())
        for words in (b"--workers 1", b"--workers 2 --overwrite")
    )
    assert other["score.html"].replace(gone_on, begun) == first["score.html"]


def test_an_earlier_score_is_checked_against_the_files(knowhue, at):
    assert knowhue(*BOTH)[0] == 0
    kept = written(at)
    code, said, _ = knowhue("score", "ours", "theirs", "--truth", "truth", "--check", "score.json")
    assert code == 0
    assert said.endswith("numbers computed again: all as stored\n")
    # scores must depend neither on files that `knowhue colorize` adds nor on the order of systems
    (at / "ours" / "colorized.jsonl").write_text("{}")
    code, said, err = knowhue("score", "theirs", "ours", "--truth", "truth", "--check", "score.json")
    assert (code, said.endswith(": all as stored\n")) == (0, True), err
    code, _, err = knowhue("score", "mine=ours", "theirs", "--truth", "truth", "--check", "score.json")
    assert (code, err.count("should be those of `score.json`: ours, theirs. Found mine, theirs")) == (2, 1)
    write_images(at / "ours", {"class0/image0": picture(30)})
    code, said, err = knowhue("score", "ours", "theirs", "--truth", "truth", "--check", "score.json")
    assert code == 1
    assert "rows.ours.values.ab_l1 is stored as" in err
    assert written(at) == kept


def test_a_classifier_tests_systems_image_by_image_and_is_checked_with_its_weights(knowhue, at):
    write_network(at / "net.safetensors", 12)
    write_network(at / "other.safetensors", 12, seed=1)
    (at / "classes.txt").write_text("\n".join(f"class{number % 6}" for number in range(12)))
    classifier = ("--classifier", f"timm:{NAME}=net.safetensors", "--classes", "classes.txt")
    code, said, err = knowhue(*BOTH, *classifier)
    assert code == 0, err
    table = said.partition("\nours is ")[0].splitlines()
    assert sum(line.startswith("gray  ") for line in table) == 2  # the last column follows below
    assert max(map(len, table)) <= 80
    with (at / "score.per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = json.loads((at / "score.json").read_text())
    for test in found["mcnemar"]:
        one, other = ([float(row[test["measure"]]) for row in rows if row["row"] == test[side]]
                      for side in ("first", "second"))  # fmt: skip
        gaps = [a - b for a, b in zip(one, other, strict=True)]
        only = [gaps.count(1), gaps.count(-1)]
        assert only == [test["only_first"], test["only_second"]]
        p = binomtest(only[0], sum(only)).pvalue if any(only) else 1
        assert (test["p"], test["p_adjusted"]) == pytest.approx((p, min(1, p * len(found["mcnemar"]))))
    assert len(found["mcnemar"]) == 9
    again = ("score", "ours", "theirs", "--truth", "truth", "--check", "score.json")
    code, _, err = knowhue(*again)
    assert (code, err.count("was made with a classifier. Give it again")) == (2, 1)
    code, said, err = knowhue(*again, *classifier)
    assert (code, said.endswith(": all as stored\n")) == (0, True), err
    # numbers of another network or of other classes would look like false ones: refused before anything is measured
    (at / "others.txt").write_text("\n".join(f"class{(number + 1) % 6}" for number in range(12)))
    others = {
        ("--classifier", f"timm:{NAME}=other.safetensors", *classifier[2:]): "weights",
        classifier[:2]: "classes",
        (*classifier[:3], "others.txt"): "classes",
    }
    for given, what in others.items():
        code, said, err = knowhue(*again, *given)
        assert (code, said, err.count("\n")) == (2, "", 1)
        assert f"`--check score.json` should have used `classifier` with the same {what}: numbers with" in err


def test_earlier_scores_stand_beside_in_every_table(knowhue, at):
    one = ("score", "--truth", "truth", "--protocol", "original")
    assert knowhue(*one, "theirs", "-o", "theirs.html")[0] == 0
    code, said, err = knowhue(*one, "ours", "--beside", "theirs.json")
    assert code == 0
    assert [line.split("  ")[0] for line in said.splitlines()[2:5]] == ["ours", "theirs", "gray"]
    assert "theirs" in (at / "score.tex").read_text()
    assert "note: from earlier scores, and so not compared with other systems: theirs." in err
    code, _, err = knowhue("score", "ours", "--truth", "truth", "--beside", "theirs.json", "-o", "other.html")
    assert (code, err.count("are not comparable")) == (2, 1)
    assert "rows:" not in err  # nothing was measured for it
    assert not (at / "other.html").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ours", "--truth", "nowhere"), "`--truth` should be a folder of images. Found `nowhere`"),
        (("nowhere", "--truth", "truth"), "`nowhere` should be a folder of images"),
        (("truth", "--truth", "truth"), "another folder than --truth"),
        (("ours", "--truth", "truth", "--protocol", "crop256"), "Did you mean `crop-256`?"),
        (("ours", "--truth", "truth", "--protocol", "none.yaml"), "none.yaml"),
        (("ours", "--truth", "truth", "-o", "score.pdf"), "`--out` should end in .html"),
        (
            ("ours", "--truth", "truth", "--networks", "vgg"),
            "`--networks` should be one of lite0, inception, lpips",
        ),
        (
            ("gray=ours", "--truth", "truth"),
            "which are rows of every table. Found `gray`. Put another name before its folder: 'our gray=ours'",
        ),
        (("ours=", "--truth", "truth"), "a name and a folder. Found `ours=`"),
        (("ours", "--truth", "truth", "--reference", "our"), "Did you mean `ours`?"),
        (("ours", "--truth", "truth", "--check", "none.json"), "none.json"),
        (("ours", "--truth", "truth", "--check", "x.json", "-o", "x.html"), "Found `--out`: leave it out"),
        (("ours", "--truth", "truth", "--check", "x.json", "--networks", "lpips"), "Found `--networks`"),
        (("ours", "--truth", "truth", "--beside", "none.json"), "none.json"),
        (
            ("ours", "--truth", "truth", "--beside", "score.html"),
            "Name the .json file that `knowhue score --out`",
        ),
        (("ours", "--truth", "truth", "--cache", __file__), "`. Name another, or move the file."),
        (("ours", "--truth", "truth", "--protocol", "lpips.yaml"), "give --networks lpips"),
        (("ours", "--truth", "truth", "--protocol", "top1.yaml"), "give --classifier"),
        (("ours", "--truth", "truth", "--classes", "x.txt"), "names the outputs of `--classifier`"),
        (("ours", "--truth", "truth", "--classifier", "resnet18"), "`--classifier` should be timm:NAME"),
    ],
)
def test_wrong_input_is_one_line_and_nothing_is_written(knowhue, at, arguments, said):
    settings = "name: own\ngeometry: original\nsize_px: null\ninterpolation: none\ncodes: 8-bit\n"
    (at / "lpips.yaml").write_text(f"{settings}primary: lpips_alex\n")
    (at / "top1.yaml").write_text(f"{settings}primary: top1_accuracy\n")
    code, out, err = knowhue("score", *arguments, "--workers", 1)
    assert (code, out) == (2, "")
    lines = [line for line in err.splitlines() if line.startswith("knowhue: ")]
    assert len(lines) == 1
    assert said in lines[0]
    assert written(at) == {}


def test_an_earlier_score_is_never_replaced_by_one_that_it_stands_beside(knowhue, at):
    (at / "kept.json").write_text("precious")
    code, _, err = knowhue(*BOTH, "--beside", "kept.json", "-o", "kept.html", "--overwrite")
    assert (code, err.count("\n")) == (2, 1)
    assert "kept.json is an input, which is never replaced" in err
    assert (at / "kept.json").read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere", "--truth", "truth"), "`nowhere` should be a folder"),
        (("ours", "--truth", "nowhere"), "`--truth` should be a folder"),
        (("ours", "--truth", "truth", "--reference", "our"), "Did you mean `ours`?"),
        (("ours", "--truth", "truth", "--networks", "vgg"), "`--networks` should be one of"),
    ],
)
def test_what_is_asked_is_looked_at_before_what_is_in_the_way(knowhue, at, arguments, said):
    (at / "score.html").write_text("precious")
    code, _, err = knowhue("score", *arguments)
    assert (code, said in err, "already exists" in err) == (2, True, False)


def test_what_exists_is_replaced_only_if_asked(knowhue, at):
    (at / "score.tex").write_text("precious")
    code, _, err = knowhue(*BOTH)
    assert (code, err.count("\n")) == (2, 1)
    assert "score.tex already exists" in err
    assert (at / "score.tex").read_text() == "precious"
